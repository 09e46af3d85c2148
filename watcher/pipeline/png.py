"""PNG chunks: a small writer for the arrays we publish, and a walk over those of a source.

Decodes no pixels.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from watcher.domain import Metadata, Pixels
from watcher.pipeline.compiled import compiled
from watcher.pipeline.deflate import compressor

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = b"XML:com.adobe.xmp"
# Far above any real profile or XMP packet, far below what could hurt.
MAX_INFLATED = 16 << 20
_EXIF, _XAP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_RAW = b"Raw profile type "
_RAW_BODY = re.compile(rb"\n[^\n]*\n\s*(\d+)\n([0-9a-fA-F\s]+)")
_COLOUR_TYPE = {1: 0, 3: 2, 4: 6}
_UP_FILTER = 2
_STRIP_BYTES = 1 << 22


class Truncated(ValueError):
    """The file ends within a chunk, or before IEND."""


def encode(
    image: Pixels,
    *,
    level: int = 1,
    srgb: bool = False,
    profile: bytes | None = None,
    metadata: Metadata | None = None,
    texts: Iterable[bytes] = (),
) -> bytes:
    """`image` as PNG: HxW grey, HxWx3 or HxWx4, uint8 or uint16. `level` 0..3 as in deflate.py.

    `texts`: bodies of zTXt chunks. Same input, same bytes. The "up" filter and ISA-L were the fastest of all measured
    pairs that also make small files; filtering in strips keeps the copy small.
    """
    metadata = metadata or Metadata()
    height, width = image.shape[:2]
    channels = 1 if image.ndim == 2 else image.shape[2]
    depth = image.dtype.itemsize * 8
    header = struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPE[channels], 0, 0, 0)
    parts = [SIGNATURE, *_chunk(b"IHDR", header)]
    if profile is not None:
        parts += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile, 6))
    elif srgb:
        parts += _chunk(b"sRGB", b"\0")  # perceptual
    if metadata.dpi is not None:
        per_metre = [min(2**31 - 1, round(dpi / 0.0254)) for dpi in metadata.dpi]
        parts += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if metadata.exif is not None:
        parts += _chunk(b"eXIf", metadata.exif)
    if metadata.xmp is not None:
        parts += _chunk(b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp)
    for text in texts:
        parts += _chunk(b"zTXt", text)
    for block in _deflated(image, level):
        parts += _chunk(b"IDAT", block)
    parts += _chunk(b"IEND", b"")
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> list[bytes]:
    checksum = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return [struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)]


def _deflated(image: Pixels, level: int) -> Iterator[bytes]:
    stream = compressor(level)
    for strip in _filtered_strips(image):
        if block := stream.compress(strip):
            yield block
    yield stream.flush()


def _filtered_strips(image: Pixels) -> Iterator[NDArray[np.uint8]]:
    """Rows, each behind its filter byte, minus the row above it (modulo 256)."""
    height = image.shape[0]
    row_bytes = image[0].nbytes
    rows = max(1, _STRIP_BYTES // row_bytes)
    above = np.zeros(row_bytes, np.uint8)
    for top in range(0, height, rows):
        plain = _big_endian(image[top : top + rows])
        yield filtered(plain, above)
        above = plain[-1]


@compiled
def filtered(plain: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`plain` (rows of bytes) less the row above each, behind the number of that filter."""
    rows, length = plain.shape
    out = np.empty((rows, 1 + length), np.uint8)
    for y in range(rows):
        out[y, 0] = _UP_FILTER
        if y == 0:
            for i in range(length):
                out[y, 1 + i] = plain[y, i] - above[i]
        else:
            for i in range(length):
                out[y, 1 + i] = plain[y, i] - plain[y - 1, i]
    return out


def warm_up() -> None:
    """Compile what `encode` needs."""
    filtered(np.zeros((1, 1), np.uint8), np.zeros(1, np.uint8))


def _big_endian(rows: Pixels) -> NDArray[np.uint8]:
    ordered = np.ascontiguousarray(rows, None if rows.itemsize == 1 else rows.dtype.newbyteorder(">"))
    return ordered.reshape(len(rows), -1).view(np.uint8)


def chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of every chunk's body up to IEND. Raises Truncated; checks no CRC."""
    position = len(SIGNATURE)
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            break
        yield kind, position + 8, end
        if kind == b"IEND":
            return
        position = end + 4
    raise Truncated("the end of the file is missing")


def only(content: bytes, kinds: frozenset[bytes]) -> bytes:
    """`content` with no other chunks than `kinds`. Raises ValueError where a checksum is wrong.

    Decoders differ in which checksums they look at; wrong pixels must not pass.
    """
    view = memoryview(content)
    kept = []
    for kind, start, end in chunks(content):
        if kind not in kinds:
            continue
        if isal_zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise ValueError(f"the checksum of {kind.decode('latin-1')} is wrong")
        kept.append(view[start - 8 : end + 4])
    return b"".join([SIGNATURE, *kept])


def profile_in(body: bytes) -> bytes | None:
    """The ICC profile of an iCCP body; None if damaged or absurdly large."""
    return inflated(body.partition(b"\0")[2][1:])


def xmp_in(body: bytes) -> bytes | None:
    """The XMP packet of an iTXt body, or None if it is some other text."""
    keyword, _, rest = body.partition(b"\0")
    if keyword != XMP_KEYWORD or len(rest) < 2:
        return None
    text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return inflated(text) if rest[0] else text


def exif_and_xmp(content: bytes) -> tuple[bytes | None, bytes | None]:
    """An EXIF block and an XMP packet, from chunks of their own or, where there are none, from raw profiles."""
    exif = xmp = None
    for kind, start, end in chunks(content):
        if kind == b"eXIf":
            exif = exif or content[start:end]
        elif kind == b"iTXt":
            xmp = xmp or xmp_in(content[start:end])
    if exif is None or xmp is None:
        for keyword, body in raw_profiles(content):
            if keyword in (b"exif", b"APP1") and body.startswith(_EXIF):
                exif = exif or body.removeprefix(_EXIF)
            elif keyword in (b"xmp", b"APP1"):
                xmp = xmp or body.removeprefix(_XAP)
    return exif, xmp


def raw_profiles(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, bytes) of what ImageMagick and ExifTool, in their older versions, wrote as hex in text chunks.

    What is damaged is passed over.
    """
    for kind, start, end in chunks(content):
        if kind not in (b"zTXt", b"tEXt") or content[start : start + len(_RAW)] != _RAW:
            continue
        keyword, _, rest = content[start:end].partition(b"\0")
        text = inflated(rest[1:]) if kind == b"zTXt" else rest
        if text is not None and (found := _RAW_BODY.match(text)) is not None:
            with suppress(ValueError):
                yield keyword.removeprefix(_RAW), bytes.fromhex(found[2].decode("ascii"))


def inflated(packed: bytes) -> bytes | None:
    """A zlib stream's content; None if damaged, cut off or absurdly large."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, MAX_INFLATED)
    except zlib.error:
        return None
    return content if stream.eof else None
