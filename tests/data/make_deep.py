"""The astronaut in the formats that hold more than eight bits, and in camera RAW. Takes make.py as `make`."""

from __future__ import annotations

import io
import struct
import zlib
from types import ModuleType

import cv2
import imagecodecs
import numpy as np
import pillow_heif
import tifffile


def wide(make: ModuleType) -> np.ndarray:
    """176x132x3 uint16 sRGB: the original's levels, and something in the low bytes."""
    levels = make.original().astype(np.uint32) * 257
    return np.clip(levels + np.arange(levels.size).reshape(levels.shape) % 200, 0, 65535).astype(np.uint16)


def tiff(levels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    options = {"photometric": "rgb", "metadata": None, "software": None, **options}
    tifffile.imwrite(buffer, levels, **options)
    return buffer.getvalue()


def tiffs(make: ModuleType) -> dict[str, bytes]:
    """Every one holds `wide` or, named so, the 8-bit original: exactly."""
    deep, shallow = wide(make), make.original()
    tiled = {"tile": (64, 48)}
    files = {
        "lzw16.tif": tiff(deep, compression="lzw", predictor=True),
        "deflate16.tif": tiff(deep, compression="zlib", predictor=True),
        "adobe_deflate16.tif": tiff(deep, compression="adobe_deflate"),
        "packbits16.tif": tiff(deep, compression="packbits"),
        "zstd16.tif": tiff(deep, compression="zstd"),
        "tiled16.tif": tiff(deep, compression="zlib", predictor=True, **tiled),
        "planar16.tif": tiff(np.moveaxis(deep, 2, 0), planarconfig="separate", compression="lzw"),
        "planar_tiled16.tif": tiff(np.moveaxis(deep, 2, 0), planarconfig="separate", **tiled),
        "big16.tif": tiff(deep, bigtiff=True),
        "motorola16.tif": tiff(deep, byteorder=">", compression="zlib", predictor=True),
        "strips16.tif": tiff(deep, rowsperstrip=7),
        "lzw8.tif": tiff(shallow, compression="lzw", predictor=True),
        "packbits8.tif": tiff(shallow, compression="packbits"),
        "tiled8.tif": tiff(shallow, compression="zlib", **tiled),
        "planar8.tif": tiff(np.moveaxis(shallow, 2, 0), planarconfig="separate"),
        "big8.tif": tiff(shallow, bigtiff=True, compression="lzw"),
        "selection16.tif": tiff(np.dstack([deep, deep[..., 0]]), extrasamples=["unspecified"]),
    }
    for turn in range(1, 9):
        files[f"turn{turn}_16.tif"] = tiff(make.lying(turn, deep), extratags=[(274, "H", 1, turn, True)])
    return files


def camera_raw(
    make: ModuleType, *, turn: int = 1, size: tuple[int, int] | None = None, **options: object
) -> bytes:
    """A Bayer DNG 1.4 of 14 bits whose sensor has sRGB's primaries; `size`: (width, height)."""
    linear = make.lying(turn).astype(np.float32) / 255
    if size is not None:
        linear = cv2.resize(linear, size)
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    sensor = np.empty(linear.shape[:2], np.uint16)
    for y, x, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        sensor[y::2, x::2] = (linear[y::2, x::2, channel] * 16383 + 0.5).astype(np.uint16)
    to_xyz = (
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.0721750),
        (0.0193339, 0.1191920, 0.9503041),
    )
    matrix = [part for v in np.linalg.inv(to_xyz).ravel() for part in (round(v * 10000), 10000)]
    tags = [
        (271, "s", 0, "Hotmatte", True),
        (272, "s", 0, "Test Camera", True),
        (274, "H", 1, turn, True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, bytes([0, 1, 1, 2]), True),
        (50706, "B", 4, bytes([1, 4, 0, 0]), True),
        (50708, "s", 0, "Hotmatte Test Camera", True),
        (50714, "H", 1, 0, True),
        (50717, "I", 1, 16383, True),
        (50721, "2i", 9, matrix, True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
        (50778, "H", 1, 21, True),
        (700, "B", len(XMP), XMP, True),
    ]
    return tiff(sensor, photometric=32803, extratags=tags, rowsperstrip=16, **options)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def heic(make: ModuleType, bits: int) -> bytes:
    picture = pillow_heif.from_bytes("RGB;16", (make.WIDTH, make.HEIGHT), wide(make).tobytes())
    picture.info["exif"] = make.exif(1)
    picture.info["icc_profile"] = make.profile("RGB ", 2.2)
    buffer = io.BytesIO()
    before = pillow_heif.options.SAVE_HDR_TO_12_BIT
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    try:
        picture.save(buffer, quality=-1, chroma=444, matrix_coefficients=0)
    finally:
        pillow_heif.options.SAVE_HDR_TO_12_BIT = before
    return buffer.getvalue()


def avif(make: ModuleType, bits: int) -> bytes:
    return imagecodecs.avif_encode(wide(make) >> (16 - bits), bitspersample=bits, level=100)


def jxl_with(codestream_or_file: bytes, **boxes: bytes) -> bytes:
    """A JPEG XL file with more boxes at its end, as encoders put them; `Exif`, `xml_`, `brob`."""
    content = codestream_or_file
    if content.startswith(b"\xff\x0a"):
        ftyp = struct.pack(">I4s4sI4s", 20, b"ftyp", b"jxl ", 0, b"jxl ")
        content = (
            b"\0\0\0\x0cJXL \r\n\x87\n" + ftyp + struct.pack(">I4s", len(content) + 8, b"jxlc") + content
        )
    for name, body in boxes.items():
        content += struct.pack(">I4s", len(body) + 8, name.replace("_", " ").encode()) + body
    return content


PSD_MODES = {"grey": 1, "rgb": 3, "cmyk": 4, "lab": 9}


def psd(
    levels: np.ndarray,
    mode: str = "rgb",
    *,
    big: bool = False,
    packed: bool = True,
    transparent: bool = False,
    resources: dict[int, bytes] | None = None,
) -> bytes:
    """HxWxC uint8 or uint16 as a Photoshop document with its composite and, if transparent, a layer count."""
    height, width, channels = levels.shape
    depth = levels.dtype.itemsize * 8
    head = struct.pack(
        ">4sH6xHIIHH", b"8BPS", 2 if big else 1, channels, height, width, depth, PSD_MODES[mode]
    )
    told = b"".join(
        b"8BIM" + struct.pack(">HxxI", number, len(body)) + body + bytes(len(body) % 2)
        for number, body in (resources or {}).items()
    )
    wide_length = ">Q" if big else ">I"
    layers = b""
    if transparent:
        info = struct.pack(">h", -1) + bytes(2)
        layers = struct.pack(wide_length, len(info)) + info + bytes(4)
    planes = np.moveaxis(levels, 2, 0).astype(levels.dtype.newbyteorder(">"))
    if packed:
        rows = [imagecodecs.packbits_encode(row.tobytes()) for plane in planes for row in plane]
        table = struct.pack(f">{len(rows)}{'I' if big else 'H'}", *(len(row) for row in rows))
        body = b"\0\1" + table + b"".join(rows)
    else:
        body = b"\0\0" + planes.tobytes()
    return (
        head
        + bytes(4)
        + struct.pack(">I", len(told))
        + told
        + struct.pack(wide_length, len(layers))
        + layers
        + body
    )


def cmyk_profile() -> bytes:
    """An ICC v2 printer profile with a 2x2x2x2 table (mft2) to Lab: paper, inks, and black over all."""
    lab = {
        (0, 0, 0): (100, 0, 0), (1, 0, 0): (55, -37, -50), (0, 1, 0): (48, 74, -3), (0, 0, 1): (89, -5, 93),
        (1, 1, 0): (24, 22, -46), (1, 0, 1): (50, -65, 27), (0, 1, 1): (47, 68, 48), (1, 1, 1): (23, 0, 0),
    }  # fmt: skip
    table = b""
    for corner in np.ndindex(2, 2, 2, 2):
        lightness, a, b = lab[corner[:3]]
        if corner[3]:
            lightness, a, b = lightness * 0.16, a * 0.1, b * 0.1
        table += struct.pack(">3H", round(lightness * 652.8), round((a + 128) * 256), round((b + 128) * 256))
    one = 65536
    body = b"mft2" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, one)
    body += (
        struct.pack(">HH", 2, 2) + struct.pack(">2H", 0, 65535) * 4 + table + struct.pack(">2H", 0, 65535) * 3
    )
    words = b"hotmatte test inks\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(words)) + words + bytes(78),
        b"cprt": b"text" + bytes(4) + b"public domain\0",
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": body,
        b"A2B1": body,
    }
    directory, content = b"", b""
    start = 132 + 12 * len(tags)
    for name, part in tags.items():
        directory += name + struct.pack(">II", start + len(content), len(part))
        content += part + bytes(-len(part) % 4)
    header = struct.pack(">I4xI4s4s4s", start + len(content), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += (
        struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp")
        + bytes(28)
        + struct.pack(">3i", 63190, 65536, 54061)
    )
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + directory + content


def interlaced(make: ModuleType, levels: np.ndarray) -> bytes:
    """HxWx3 or HxWx4, uint8 or uint16, as a PNG in seven passes (PNG 1.2, section 2.6)."""
    height, width, channels = levels.shape
    depth = levels.dtype.itemsize * 8
    rows = b""
    for x, y, right, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
    ):  # fmt: skip
        for row in levels[y::down, x::right]:
            rows += b"\0" + row.astype(levels.dtype.newbyteorder(">")).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, 2 if channels == 3 else 6, 0, 0, 1)
    chunks = make.chunk(b"IHDR", header) + make.chunk(b"IDAT", zlib.compress(rows)) + make.chunk(b"IEND", b"")
    return bytes(make.PNG_SIGNATURE + chunks)
