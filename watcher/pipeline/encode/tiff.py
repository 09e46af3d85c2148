"""A baseline TIFF (6.0) writer: strips, predictor, alpha said right, and all that travels.

Own, because of the EXIF: the photo's block is a TIFF itself, and the file begins with it byte by
byte, so that maker notes with absolute offsets stay readable. No library offers that. The
directory that readers follow comes last and takes the block's own entries along.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Metadata, Pixels
from watcher.errors import InputRejected
from watcher.pipeline.compiled import compiled
from watcher.pipeline.deflate import compressor

Pack = Literal["deflate", "lzw", "zstd", "none"]

_CODES = {"none": 1, "lzw": 5, "deflate": 8, "zstd": 50000}
_ZSTD_LEVEL = (1, 3, 9, 15)
_SHORT, _LONG, _RATIONAL, _UNDEFINED = 3, 4, 5, 7
_STRIP_BYTES = 1 << 20
_MOST_BYTES = (1 << 32) - (1 << 20)
# Entries of the EXIF's main directory that say how *its* pixels lie, or that are said anew.
_NOT_TAKEN = frozenset(
    (
        *range(254, 267),
        *(273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 288, 289, 290, 291, 292, 293, 296, 301, 317),
        *(318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 338, 339, 340, 341, 342, 347),
        *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675),
    )
)


@dataclass(slots=True)
class _File:
    """The file so far. `entries`: tag -> (type, count, 4 bytes that are a value or an offset)."""

    order: Literal["<", ">"]
    parts: list[bytes] = field(default_factory=list)
    length: int = 0
    entries: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)

    def append(self, body: bytes) -> int:
        """Add `body` at an even offset, and return that."""
        start = self.length
        self.parts += [body, b"\0"] if len(body) % 2 else [body]
        self.length += len(body) + len(body) % 2
        if self.length > _MOST_BYTES:
            raise InputRejected(
                "a TIFF holds 4 GB at most",
                remedy="Ask for this output as PNG, or with another `pack`, then `hotmatte retry`.",
            )
        return start

    def put(self, tag: int, kind: int, *values: int) -> None:
        letter = "H" if kind == _SHORT else "I"
        count = len(values) // 2 if kind == _RATIONAL else len(values)
        self.put_bytes(tag, kind, count, struct.pack(f"{self.order}{len(values)}{letter}", *values))

    def put_bytes(self, tag: int, kind: int, count: int, body: bytes) -> None:
        held = body.ljust(4, b"\0") if len(body) <= 4 else struct.pack(self.order + "I", self.append(body))
        self.entries[tag] = (kind, count, held)

    def finished(self) -> bytes:
        rows = [
            struct.pack(self.order + "HHI", tag, kind, count) + held
            for tag, (kind, count, held) in sorted(self.entries.items())
        ]
        place = self.append(struct.pack(self.order + "H", len(rows)) + b"".join(rows) + bytes(4))
        first = self.parts[0]
        self.parts[0] = first[:4] + struct.pack(self.order + "I", place) + first[8:]
        return b"".join(self.parts)


def encode(
    image: Pixels,
    *,
    pack: Pack,
    level: int,
    premultiplied: bool,
    profile: bytes | None,
    metadata: Metadata,
) -> bytes:
    """`image`: HxW grey, HxWx3 or HxWx4 with straight alpha, which `premultiplied` associates."""
    file = _begun(metadata.exif)
    channels = 1 if image.ndim == 2 else image.shape[2]
    height, width = image.shape[:2]
    rows = max(1, min(height, _STRIP_BYTES // image[0].nbytes))
    file.put(256, _LONG, width)
    file.put(257, _LONG, height)
    file.put(258, _SHORT, *[image.dtype.itemsize * 8] * channels)
    file.put(259, _SHORT, _CODES[pack])
    file.put(262, _SHORT, 1 if channels == 1 else 2)
    file.put(274, _SHORT, 1)
    file.put(277, _SHORT, channels)
    file.put(278, _LONG, rows)
    file.put(284, _SHORT, 1)
    if pack != "none":
        file.put(317, _SHORT, 2)  # horizontal differences
    if channels == 4:
        file.put(338, _SHORT, 1 if premultiplied else 2)
    _put_metadata(file, profile, metadata)
    places, sizes = [], []
    for strip in _strips(image, rows, premultiplied=premultiplied and channels == 4):
        packed = _packed(strip, pack, level, file.order)
        places.append(file.append(packed))
        sizes.append(len(packed))
    file.put(273, _LONG, *places)
    file.put(279, _LONG, *sizes)
    return file.finished()


def _begun(exif: bytes | None) -> _File:
    """A file that begins with `exif` unchanged and lists its entries, or an empty one."""
    if exif is not None and exif[:4] in (b"II*\0", b"MM\0*"):
        file = _File("<" if exif[:2] == b"II" else ">")
        try:
            (start,) = struct.unpack_from(file.order + "I", exif, 4)
            (count,) = struct.unpack_from(file.order + "H", exif, start)
            for entry in range(start + 2, start + 2 + 12 * count, 12):
                tag, kind, length, held = struct.unpack_from(file.order + "HHI4s", exif, entry)
                if tag not in _NOT_TAKEN:
                    file.entries[tag] = (kind, length, held)
            file.append(exif)
        except struct.error:
            pass  # damaged: nothing of it can be told
        else:
            return file
    file = _File("<")
    file.append(b"II*\0" + bytes(4))
    return file


def _put_metadata(file: _File, profile: bytes | None, metadata: Metadata) -> None:
    if metadata.dpi is not None:
        for tag, value in zip((282, 283), metadata.dpi, strict=True):
            share = Fraction(value).limit_denominator(10_000)
            file.put(tag, _RATIONAL, share.numerator, share.denominator)
        file.put(296, _SHORT, 2)
    for tag, body in ((700, metadata.xmp), (33723, metadata.iptc), (34675, profile)):
        if body is not None:
            # XMP is BYTE by its specification, the others are UNDEFINED.
            file.put_bytes(tag, 1 if tag == 700 else _UNDEFINED, len(body), body)


def _strips(image: Pixels, rows: int, *, premultiplied: bool) -> Iterator[Pixels]:
    """`rows` rows at a time, HxWxC."""
    whole = image.reshape(*image.shape[:2], -1)
    for top in range(0, len(whole), rows):
        strip = cast(Pixels, np.ascontiguousarray(whole[top : top + rows]))
        if premultiplied:
            associated = np.empty_like(strip)
            associate(strip, associated)
            strip = associated
        yield strip


def _packed(strip: Pixels, pack: Pack, level: int, order: Literal["<", ">"]) -> bytes:
    if pack != "none":
        strip = _differences(strip)
    # In the byte order of the whole file.
    raw: NDArray[np.uint8] = (
        np.ascontiguousarray(strip, strip.dtype.newbyteorder(order)).reshape(-1).view(np.uint8)
    )
    match pack:
        case "none":
            return raw.tobytes()
        case "deflate":
            stream = compressor(level)
            return stream.compress(raw) + stream.flush()
    import imagecodecs  # of an extra

    if pack == "lzw":
        return bytes(imagecodecs.lzw_encode(raw.tobytes()))
    return bytes(imagecodecs.zstd_encode(raw.tobytes(), _ZSTD_LEVEL[level]))


def _differences(strip: Pixels) -> Pixels:
    """Predictor 2: each sample minus its left neighbour of the same channel, modulo 2^bits."""
    less = strip.copy()
    np.subtract(strip[:, 1:], strip[:, :-1], out=less[:, 1:])
    return less


@compiled
def associate(straight: Pixels, out: Pixels) -> None:
    """HxWx4: colours times alpha, rounded to nearest."""
    top = np.uint64(255 if straight.itemsize == 1 else 65535)
    for y in range(straight.shape[0]):
        for x in range(straight.shape[1]):
            a = np.uint64(straight[y, x, 3])
            out[y, x, 3] = straight[y, x, 3]
            for c in range(3):
                out[y, x, c] = (a * np.uint64(straight[y, x, c]) + top // np.uint64(2)) // top


def warm_up() -> None:
    """Compile what premultiplied alpha needs."""
    for dtype in (np.uint8, np.uint16):
        one = cast(Pixels, np.zeros((1, 1, 4), dtype))
        associate(one, one.copy())
