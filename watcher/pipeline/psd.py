"""PSD and PSB: the composite that Photoshop stores beside the layers, at its own depth. Opens no file.

Source: Adobe Photoshop File Formats Specification. Pillow reads neither PSB nor 16 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Pixels
from watcher.errors import InputRejected
from watcher.pipeline import colour, openers, picture
from watcher.pipeline.picture import Picture

_HEADER = struct.Struct(">4sH6xHIIHH")
_BITMAP, _GREY, _INDEXED, _RGB, _CMYK, _DUOTONE, _LAB = 0, 1, 2, 3, 4, 8, 9
_COLOURS = {_GREY: 1, _DUOTONE: 1, _RGB: 3, _CMYK: 4, _LAB: 3}
_RAW, _PACKED = 0, 1
_RESOLUTION, _ICC, _VERSION, _EXIF, _XMP = 1005, 1039, 1057, 1058, 1060
_MOST_CHANNELS = 56
# Blocks whose length has eight bytes in a PSB.
_LONG_BLOCKS = (b"LMsk", b"Lr16", b"Lr32", b"Layr", b"Mt16", b"Mt32", b"Mtrn", b"Alph", b"FMsk", b"lnk2")


@dataclass(frozen=True, slots=True)
class _Document:
    """What the header says, and where things lie. `wide`: lengths of eight bytes, as in a PSB."""

    wide: bool
    channels: int
    height: int
    width: int
    depth: int
    mode: int
    resources: tuple[int, int]
    layers: tuple[int, int]


def size_of(content: bytes) -> tuple[int, int]:
    """(width, height) from the header."""
    _, _, _, height, width, _, _ = _HEADER.unpack_from(content)
    return width, height


def read(content: bytes, kind: str) -> Picture:
    """The composite, with the document's transparency if it has one."""
    document = _document(content)
    resources = dict(_resources(content, *document.resources))
    _refuse(document, resources)
    profile = resources.get(_ICC)
    if document.mode in (_BITMAP, _INDEXED) or document.depth == 1:
        with openers.opened(content, kind) as image:
            image.load()
            found = picture.of_image(image, profile)
    else:
        found = _coloured(content, document, profile)
    found.exif, found.xmp, found.orientation = resources.get(_EXIF), resources.get(_XMP), 1
    if len(resources.get(_RESOLUTION, b"")) >= 12:
        across, down = struct.unpack_from(">I4xI", resources[_RESOLUTION])
        found.dpi = picture.printable_dpi(across / 65536, down / 65536)
    return found


def _document(content: bytes) -> _Document:
    try:
        _, version, channels, height, width, depth, mode = _HEADER.unpack_from(content)
        wide = version == 2
        places, at = [], _HEADER.size
        for code in (">I", ">I", ">Q" if wide else ">I"):
            (length,) = struct.unpack_from(code, content, at)
            start = at + struct.calcsize(code)
            at = start + length
            places.append((start, at))
    except struct.error as error:
        raise EOFError("the end of the file is missing") from error
    if at > len(content):
        raise EOFError("the end of the file is missing")
    if version not in (1, 2) or not 0 < channels <= _MOST_CHANNELS:
        raise ValueError(f"version {version} with {channels} channels")
    return _Document(wide, channels, height, width, depth, mode, places[1], places[2])


def _refuse(document: _Document, resources: dict[int, bytes]) -> None:
    """Raises InputRejected where there is no composite, or none that is a photo."""
    if document.depth not in (1, 8, 16):
        raise InputRejected(
            f"it is a Photoshop document of {document.depth} bits a channel",
            remedy="In Photoshop, choose Image > Mode > 16 Bits/Channel and save again.",
        )
    if document.mode not in (*_COLOURS, _BITMAP, _INDEXED):
        raise InputRejected(
            "it is a Photoshop document in multichannel mode", remedy="Convert it to RGB and save again."
        )
    version = resources.get(_VERSION, b"")
    if len(version) > 4 and version[4] == 0:
        raise InputRejected(
            "it is a Photoshop document that was saved without its composite",
            remedy="In Photoshop's preferences, set Maximize PSD and PSB File Compatibility to Always; save again.",
        )


def _coloured(content: bytes, document: _Document, profile: bytes | None) -> Picture:
    colours = _COLOURS[document.mode]
    if document.channels < colours:
        raise ValueError(f"{document.channels} channels")
    # Further channels are saved selections, unless the document itself is transparent.
    holed = document.channels > colours and _is_transparent(content, document)
    levels = _planes(content, document, colours + holed)
    match document.mode:
        case 4:
            top = np.iinfo(levels.dtype).max
            # Stored as paper that shows: none of it where the ink is full.
            found = picture.of_cmyk(top - levels[..., :4], profile)
        case 9:
            found = Picture(colour.deep_lab_to_srgb(_lab(levels[..., :3])))
        case _:
            return _without_white(picture.coloured(levels, profile, grey=colours == 1))
    if holed:
        found.opacity = cast(Pixels, np.ascontiguousarray(levels[..., -1]))
        if found.pixels.dtype != found.opacity.dtype:
            found.opacity = found.opacity.astype(np.uint16) * 257
    return found


def _lab(levels: Pixels) -> NDArray[np.uint16]:
    """In ICC's 16-bit encoding. Photoshop's zero of a and b at 16 bits is 32768, and a unit 256, as in its TIFFs."""
    if levels.dtype == np.uint8:
        return levels.astype(np.uint16) * 257
    wide = levels.astype(np.int32)
    wide[..., 1:] = np.clip(32896 + (wide[..., 1:] - 32768) * 257 // 256, 0, 65535)
    return wide.astype(np.uint16)


def _without_white(found: Picture) -> Picture:
    """Photoshop stores the composite of a transparent document over white: take the white out."""
    if found.opacity is not None:
        top = np.iinfo(found.pixels.dtype).max
        for rows in picture.strips(found.pixels):
            share = np.maximum(found.opacity[rows], 1).astype(np.float32)[..., None] / top
            straight = (found.pixels[rows] - top * (1 - share)) / share
            found.pixels[rows] = np.clip(straight + 0.5, 0, top).astype(found.pixels.dtype)
    return found


def _planes(content: bytes, document: _Document, count: int) -> Pixels:
    """The first `count` channels as HxWxC."""
    at = document.layers[1]
    if at + 2 > len(content):
        raise EOFError("the end of the file is missing")
    (packing,) = struct.unpack_from(">H", content, at)
    dtype = np.dtype(">u2" if document.depth == 16 else "u1")
    size = document.height * document.width
    levels = np.empty((document.height, document.width, count), dtype.newbyteorder("="))
    for number, start, end in _channels(content, document, packing, at + 2):
        if number < count:
            raw = (
                content[start:end]
                if packing == _RAW
                else _unpacked(content[start:end], size * dtype.itemsize)
            )
            levels[..., number] = np.frombuffer(raw, dtype, size).reshape(levels.shape[:2])
    return cast(Pixels, levels)


def _channels(content: bytes, document: _Document, packing: int, at: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each channel. Raises EOFError where one lies beyond the end."""
    size = document.height * document.width * document.depth // 8
    if packing == _RAW:
        sizes = [size] * document.channels
    elif packing == _PACKED:
        rows = np.dtype(">u4" if document.wide else ">u2")
        count = document.channels * document.height
        if at + count * rows.itemsize > len(content):
            raise EOFError("the end of the file is missing")
        table: NDArray[Any] = np.frombuffer(content, rows, count, at).astype(np.int64)
        sizes = [int(part.sum()) for part in table.reshape(document.channels, document.height)]
        at += count * rows.itemsize
    else:
        raise ValueError(f"a composite of compression {packing}")
    if at + sum(sizes) > len(content):
        raise EOFError("the end of the file is missing")
    for number, length in enumerate(sizes):
        yield number, at, at + length
        at += length


def _unpacked(packed: bytes, size: int) -> bytes:
    """PackBits of a whole channel: rows are packed each on its own, so they may follow one another."""
    import imagecodecs

    raw = bytes(imagecodecs.packbits_decode(packed, out=size + 1))
    if len(raw) != size:
        raise ValueError(f"a channel of {len(raw)} bytes instead of {size}")
    return raw


def _resources(content: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at + 12 <= end and content[at : at + 4] in (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR"):
        (number,) = struct.unpack_from(">H", content, at + 4)
        name = content[at + 6]
        at += 6 + name + 1 + (name + 1) % 2
        (length,) = struct.unpack_from(">I", content, at)
        if at + 4 + length > end:
            return
        yield number, content[at + 4 : at + 4 + length]
        at += 4 + length + length % 2


def _is_transparent(content: bytes, document: _Document) -> bool:
    """Whether the first channel behind the colours is the transparency: a negative count of layers."""
    at, end = document.layers
    code = ">Q" if document.wide else ">I"
    step = struct.calcsize(code)
    if at + step + 2 > end:
        return False
    (length,) = struct.unpack_from(code, content, at)
    if length:
        return _negative(content, at + step)
    # 16-bit documents keep their layers in a block of their own.
    at += step
    if at + 4 > end:
        return False
    at += 4 + int.from_bytes(content[at : at + 4])
    while at + 12 <= end and content[at : at + 4] in (b"8BIM", b"8B64"):
        key = content[at + 4 : at + 8]
        block = ">Q" if document.wide and key in _LONG_BLOCKS else ">I"
        body = at + 8 + struct.calcsize(block)
        if key in (b"Mtrn", b"Mt16"):
            return True
        if key == b"Lr16":
            return _negative(content, body)
        (length,) = struct.unpack_from(block, content, at + 8)
        at = body + (length + 3) // 4 * 4
    return False


def _negative(content: bytes, at: int) -> bool:
    return content[at] >= 0x80
