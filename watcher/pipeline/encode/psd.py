"""A layered Photoshop document: the photo under a mask that can be painted, over a hidden background.

After Adobe's "Photoshop File Formats Specification" (November 2019). PSD up to 30 000 pixels a
side and 2 GB; PSB (version 2) beyond. 8 bits a channel are packed by PackBits, as Photoshop
itself does; 16 bits by deflate with prediction, in a block of their own (`Lr16`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Metadata, Pixels
from watcher.errors import InputRejected
from watcher.pipeline import iptc
from watcher.pipeline.compiled import compiled
from watcher.pipeline.deflate import compressor
from watcher.pipeline.encode.packbits import packed_rows

_SIDE, _BIG_SIDE = 30_000, 300_000
_MOST_BYTES = (1 << 31) - 1
_RESOLUTION, _PROFILE, _EXIF, _XMP = 1005, 1039, 1058, 1060
_RAW, _RLE, _ZIP_PREDICTED = 0, 1, 3
_TRANSPARENCY, _MASK = -1, -2
_HIDDEN, _FLAGS_COUNT = 2, 8
_STRIP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """`pixels` HxWx3, the photo itself; `alpha` HxW becomes its mask; `backdrop` HxWx3 or 1x1x3."""

    pixels: Pixels
    alpha: Pixels
    backdrop: Pixels


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """`planes`: (channel id, HxW, whose strides may be 0)."""

    name: str
    planes: tuple[tuple[int, Pixels], ...]
    hidden: bool = False


def encode(document: Document, *, big: bool, level: int, profile: bytes | None, metadata: Metadata) -> bytes:
    """The document as PSD, or PSB if `big`. `level` 0..3 as in deflate.py, for 16 bits."""
    height, width = document.alpha.shape
    _fits(width, height, big=big)
    bits = document.pixels.dtype.itemsize * 8
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 2 if big else 1, 4, height, width, bits, 3)
    resources = b"".join(_resources(profile, metadata))
    layers = b"".join(_layer_section(document, level, big=big))
    content = b"".join(
        [
            header,
            bytes(4),  # no colour table
            struct.pack(">I", len(resources)),
            resources,
            struct.pack(">Q" if big else ">I", _within(len(layers), big=big)),
            layers,
            *_merged(document, big=big),
        ]
    )
    _within(len(content), big=big)
    return content


def _fits(width: int, height: int, *, big: bool) -> None:
    side = _BIG_SIDE if big else _SIDE
    if max(width, height) > side:
        raise InputRejected(
            f"a {'PSB' if big else 'PSD'} has {side} pixels a side at most, and the photo is {width} x {height}",
            remedy="Ask for this output as .psb (Photoshop's large documents), then `hotmatte retry`.",
        )


def _within(length: int, *, big: bool) -> int:
    if not big and length > _MOST_BYTES:
        raise InputRejected(
            "a PSD holds 2 GB at most",
            remedy="Ask for this output as .psb (Photoshop's large documents), then `hotmatte retry`.",
        )
    return length


def _resources(profile: bytes | None, metadata: Metadata) -> Iterator[bytes]:
    if metadata.dpi is not None:
        across, down = (min((1 << 32) - 1, round(value * 65536)) for value in metadata.dpi)
        # 16.16 fixed, pixels per inch; shown in inches.
        yield iptc.resource(_RESOLUTION, struct.pack(">IHHIHH", across, 1, 1, down, 1, 1))
    bodies = (
        (iptc.RESOURCE, metadata.iptc),
        (_PROFILE, profile),
        (_EXIF, metadata.exif),
        (_XMP, metadata.xmp),
    )
    for number, body in bodies:
        if body is not None:
            yield iptc.resource(number, body)


# --- Layers --------------------------------------------------------------------------------


def _layer_section(document: Document, level: int, *, big: bool) -> list[bytes]:
    """Section 4: the layers, where the depth wants them, and no global mask."""
    shape = document.alpha.shape
    layers = (
        _Layer("Background", _colour_planes(document.backdrop, shape), hidden=True),
        _Layer("Photo", (*_colour_planes(document.pixels, shape), (_MASK, document.alpha))),
    )
    body = b"".join(_layers(layers, shape, level, big=big))
    body += bytes(-len(body) % 4)
    length = struct.pack(">Q" if big else ">I", len(body))
    if document.pixels.dtype == np.uint8:
        return [length, body, bytes(4)]
    empty = bytes(8 if big else 4)
    # Mt16 says that the merged picture has its transparency with it.
    return [empty, bytes(4), b"8BIMMt16", empty, b"8BIMLr16", length, body]


def _colour_planes(image: Pixels, shape: tuple[int, ...]) -> tuple[tuple[int, Pixels], ...]:
    opaque = np.broadcast_to(np.array(np.iinfo(image.dtype).max, image.dtype), shape)
    colours = [(number, cast(Pixels, np.broadcast_to(image[..., number], shape))) for number in range(3)]
    return ((_TRANSPARENCY, cast(Pixels, opaque)), *colours)


def _layers(layers: tuple[_Layer, ...], shape: tuple[int, ...], level: int, *, big: bool) -> Iterator[bytes]:
    packed = [[(number, _packed(plane, level, big=big)) for number, plane in one.planes] for one in layers]
    # Negative: the fourth channel of the merged picture is its transparency.
    yield struct.pack(">h", -len(layers))
    for one, planes in zip(layers, packed, strict=True):
        yield struct.pack(">iiiiH", 0, 0, *shape, len(planes))
        for number, plane in planes:
            yield struct.pack(">hQ" if big else ">hI", number, len(plane))
        yield struct.pack(
            ">4s4sBBBx", b"8BIM", b"norm", 255, 0, _FLAGS_COUNT | (_HIDDEN if one.hidden else 0)
        )
        extra = _extra(one, shape)
        yield struct.pack(">I", len(extra)) + extra
    for planes in packed:
        yield from (plane for _, plane in planes)


def _extra(layer: _Layer, shape: tuple[int, ...]) -> bytes:
    """Mask, blending ranges and name, twice: for old readers in ASCII."""
    masked = any(number == _MASK for number, _ in layer.planes)
    # Black outside of its rectangle, which is the whole picture.
    mask = struct.pack(">IiiiiBBxx", 20, 0, 0, *shape, 0, 0) if masked else bytes(4)
    short = bytes([len(layer.name)]) + layer.name.encode("ascii")
    wide = struct.pack(">I", len(layer.name)) + layer.name.encode("utf-16-be")
    wide += bytes(-len(wide) % 4)
    return b"".join(
        [mask, bytes(4), short, bytes(-len(short) % 4), b"8BIMluni", struct.pack(">I", len(wide)), wide]
    )


def _packed(plane: Pixels, level: int, *, big: bool) -> bytes:
    if plane.dtype == np.uint8:
        sizes, body = packed_rows(plane)
        return struct.pack(">H", _RLE) + sizes.astype(">u4" if big else ">u2").tobytes() + body
    stream = compressor(level)
    parts = [struct.pack(">H", _ZIP_PREDICTED)]
    for strip in _strips(plane):
        less = strip.copy()
        np.subtract(strip[:, 1:], strip[:, :-1], out=less[:, 1:])
        parts.append(stream.compress(_big_endian(less)))
    return b"".join([*parts, stream.flush()])


def _strips(plane: Pixels) -> Iterator[Pixels]:
    rows = max(1, _STRIP_BYTES // (plane.shape[1] * plane.itemsize))
    for top in range(0, len(plane), rows):
        yield cast(Pixels, np.ascontiguousarray(plane[top : top + rows]))


def _big_endian(strip: Pixels) -> NDArray[np.uint8]:
    return np.ascontiguousarray(strip, strip.dtype.newbyteorder(">")).reshape(-1).view(np.uint8)


# --- The merged picture --------------------------------------------------------------------


def _merged(document: Document, *, big: bool) -> Iterator[bytes]:
    """What programs show that know no layers: the photo matted with white, and its transparency."""
    height, width = document.alpha.shape
    planes = [np.empty((height, width), document.alpha.dtype) for _ in range(3)]
    for number, plane in enumerate(planes):
        matted(document.pixels, document.alpha, number, cast(Pixels, plane))
    planes.append(document.alpha)
    if document.alpha.dtype == np.uint16:
        yield struct.pack(">H", _RAW)
        for plane in planes:
            yield from (_big_endian(strip).tobytes() for strip in _strips(cast(Pixels, plane)))
        return
    packed = [packed_rows(cast(Pixels, plane)) for plane in planes]
    yield struct.pack(">H", _RLE)
    yield from (sizes.astype(">u4" if big else ">u2").tobytes() for sizes, _ in packed)
    yield from (body for _, body in packed)


@compiled
def matted(pixels: Pixels, alpha: Pixels, channel: int, out: Pixels) -> None:
    """One channel of the photo over white, rounded to nearest."""
    top = np.uint64(255 if pixels.itemsize == 1 else 65535)
    for y in range(alpha.shape[0]):
        for x in range(alpha.shape[1]):
            a = np.uint64(alpha[y, x])
            mixed = a * np.uint64(pixels[y, x, channel]) + (top - a) * top
            out[y, x] = (mixed + top // np.uint64(2)) // top


def warm_up() -> None:
    """Compile what a document needs."""
    for dtype in (np.uint8, np.uint16):
        plane = cast(Pixels, np.zeros((1, 1), dtype))
        matted(cast(Pixels, np.zeros((1, 1, 3), dtype)), plane, 0, plane.copy())
