"""JPEG XL (ISO/IEC 18181): its size, pixels at native depth, profile and metadata. Opens no file."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Pixels
from watcher.errors import InputRejected
from watcher.pipeline import colour, picture
from watcher.pipeline.boxes import boxes
from watcher.pipeline.picture import Picture
from watcher.pipeline.png import MAX_INFLATED

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_LENGTHS = (9, 13, 18, 30)


def size_of(content: bytes) -> tuple[int, int]:
    """(width, height) as stored, from the first bits of the codestream."""
    width, height, _ = _header(content)
    return width, height


def read(content: bytes, kind: str) -> Picture:
    """The first frame. The decoder turns it by the codestream's own orientation; EXIF's is void."""
    import imagecodecs

    # To find its end first: a container may end within a box of metadata.
    listed = list(boxes(content)) if content.startswith(CONTAINER) else []
    levels: NDArray[Any] = imagecodecs.jpegxl_decode(content, index=0, numthreads=1)
    if levels.dtype.kind == "f":
        levels = _from_float(levels)
    if levels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels of type {levels.dtype}")
    grey = levels.ndim == 2 or levels.shape[2] <= 2
    found = picture.coloured(cast(Pixels, levels), _profile(content), grey=grey)
    _leave_linear(found)
    found.orientation = 1
    for name, start, end in listed:
        body = content[start:end]
        if name == b"brob":
            name, body = body[:4], _inflated(body[4:])
        if name == b"Exif" and len(body) > 4:
            found.exif = body[4 + int.from_bytes(body[:4]) :]
        elif name == b"xml " and found.xmp is None:
            found.xmp = body
    return found


def _leave_linear(found: Picture) -> None:
    """8 bits of linear light, to which libjxl decodes lossy colours of a rare profile, become 16 of sRGB."""
    if found.pixels.dtype != np.uint8 or found.profile is None or not colour.is_linear(found.profile):
        return
    found.pixels = colour.deep_to_srgb(found.pixels.astype(np.uint16) * 257, found.profile, "rgb")
    found.profile = None
    if found.opacity is not None:
        found.opacity = cast(Pixels, found.opacity.astype(np.uint16) * 257)
    found.warnings.append("a lossy JPEG XL with a rare colour profile: its colours were decoded to sRGB")


def _inflated(body: bytes) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.brotli_decode(body, out=MAX_INFLATED))


def _from_float(levels: NDArray[Any]) -> NDArray[np.uint16]:
    if float(np.nanmax(levels)) > 1.0:
        raise InputRejected(
            "it is a JPEG XL of floating point numbers brighter than white (HDR)",
            remedy="Export it as 16-bit TIFF or 16-bit JPEG XL.",
        )
    scaled = np.clip(np.nan_to_num(levels, nan=0.0), 0, 1) * 65535 + 0.5
    return cast(NDArray[np.uint16], scaled.astype(np.uint16))


def _profile(content: bytes) -> bytes | None:
    """The ICC profile of the pixels; None for plain sRGB.

    The one library that keeps the depth does not tell the profile, and the one that tells it
    has 8 bits: that one decodes a second time, for all but plain files.
    """
    if _header(content)[2]:
        return None
    from pillow_jxl import Decoder

    return bytes(Decoder(num_threads=0)(content)[3] or b"") or None


def _header(content: bytes) -> tuple[int, int, bool]:
    """Width, height, and whether all else is default: 8 bits of sRGB (18181-1, annex D)."""
    bits = Bits(_codestream(content)[2:])
    width, height = size_in(bits)
    return width, height, bool(bits.take(1))


def size_in(bits: Bits) -> tuple[int, int]:
    """(width, height): the size header (18181-1, annex D.2)."""
    small = bits.take(1)

    def length() -> int:
        return 8 * (bits.take(5) + 1) if small else bits.take(_LENGTHS[bits.take(2)]) + 1

    height = length()
    ratio = bits.take(3)
    if ratio == 0:
        width = length()
    else:
        above, below = _RATIOS[ratio - 1]
        width = height * above // below
    return width, height


def _codestream(content: bytes) -> bytes:
    """The beginning of it."""
    if content.startswith(CODESTREAM):
        return content[:64]
    for kind, start, _ in boxes(content):
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0
            return content[start : start + 64]
    raise EOFError("the end of the file is missing")


class Bits:
    """Least significant bit first. `taken`: how many so far."""

    def __init__(self, raw: bytes) -> None:
        self._rest = int.from_bytes(raw, "little")
        self._length = 8 * len(raw)
        self.taken = 0

    def take(self, count: int) -> int:
        self.taken += count
        if self.taken > self._length:
            raise EOFError("the end of the file is missing")
        value = self._rest & ((1 << count) - 1)
        self._rest >>= count
        return value
