"""A cutout to the bytes of one output. Pure: same input, same bytes."""

from __future__ import annotations

import struct

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from watcher.config import Output
from watcher.domain import Frame, Metadata, Pixels
from watcher.pipeline import colour, png
from watcher.pipeline.compiled import compiled
from watcher.pipeline.refine import Refined
from watcher.pipeline.scale import eight_bits

# A JPEG segment counts its bytes, and itself, in 16 bits.
_SEGMENT = 65533
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
# From here on half-resolution colour would be the larger loss.
_FULL_COLOUR_QUALITY = 90


def encode(output: Output, refined: Refined, frame: Frame) -> bytes:
    """The file that `output` asks for: as wide, deep and coloured as the source.

    A matte is 8-bit grey without a colour space, since it holds coverage, not light.
    """
    match output.kind:
        case "matte":
            level = output.compression
            return png.encode(
                eight_bits(refined.alpha), level=level, metadata=Metadata(dpi=frame.metadata.dpi)
            )
        case "cutout":
            return _png(refined.cutout, output, frame)
    background = colour.from_srgb(output.background, frame.profile)
    solid = composite(refined.cutout, background)
    return _jpeg(solid, output, frame) if output.format == "jpeg" else _png(solid, output, frame)


def composite(cutout: Pixels, background: tuple[int, int, int]) -> Pixels:
    """HxWx3: aF + (1-a)B in encoded levels; `background` in 8-bit levels of the cutout's space."""
    top = np.iinfo(cutout.dtype).max
    solid = np.empty((*cutout.shape[:2], 3), cutout.dtype)
    over(cutout, np.array(background, np.uint32) * np.uint32(top // 255), np.uint32(top), solid)
    return solid


@compiled
def over(cutout: Pixels, background: NDArray[np.uint32], top: np.uint32, out: Pixels) -> None:
    """Exact where alpha is 0 or full; rounded to nearest between. 65535^2 still fits 32 bits."""
    for y in range(cutout.shape[0]):
        for x in range(cutout.shape[1]):
            a = np.uint64(cutout[y, x, 3])
            rest = np.uint64(top) - a
            for c in range(3):
                mixed = a * np.uint64(cutout[y, x, c]) + rest * np.uint64(background[c])
                out[y, x, c] = (mixed + np.uint64(top // 2)) // np.uint64(top)


def _png(image: Pixels, output: Output, frame: Frame) -> bytes:
    return png.encode(
        image,
        level=output.compression,
        srgb=frame.profile is None,
        profile=frame.profile,
        metadata=frame.metadata,
    )


def _jpeg(image: Pixels, output: Output, frame: Frame) -> bytes:
    sampling = "444" if output.quality >= _FULL_COLOUR_QUALITY else "420"
    plain = simplejpeg.encode_jpeg(eight_bits(image), output.quality, "RGB", sampling)
    # Its JFIF segment comes first and says nothing about resolution.
    start = 4 + struct.unpack_from(">H", plain, 4)[0]
    return b"".join([_jfif(plain[:start], frame.metadata.dpi), *_segments(frame), plain[start:]])


def _jfif(head: bytes, dpi: tuple[float, float] | None) -> bytes:
    """SOI and JFIF segment, with the density in dots per inch."""
    if dpi is None or head[6:11] != b"JFIF\0":
        return head
    across, down = (max(1, min(65535, round(value))) for value in dpi)
    return head[:13] + struct.pack(">BHH", 1, across, down) + head[18:]


def _segments(frame: Frame) -> list[bytes]:
    """EXIF, XMP and ICC as APP1 and APP2. What is too long for one segment is left out, ICC apart."""
    segments = []
    for prefix, body in ((_EXIF, frame.metadata.exif), (_XMP, frame.metadata.xmp)):
        if body is not None and len(prefix) + len(body) <= _SEGMENT:
            segments.append(_segment(0xE1, prefix + body))
    profile = frame.profile or b""
    step = _SEGMENT - len(_ICC) - 2
    pieces = [profile[at : at + step] for at in range(0, len(profile), step)]
    if len(pieces) <= 255:
        for number, piece in enumerate(pieces, 1):
            segments.append(_segment(0xE2, _ICC + bytes([number, len(pieces)]) + piece))
    return segments


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
