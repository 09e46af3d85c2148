"""Pixels of more than 8 bits where Pillow has 8: HEIC, AVIF, JPEG 2000, PPM. Opens no file."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Pixels
from watcher.pipeline import openers, picture, spaces
from watcher.pipeline.picture import Picture


def heif(content: bytes) -> Picture | None:
    """A HEIF of 10 or 12 bits; None where it has 8. Turned as its container says."""
    import pillow_heif

    found = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False)
    bits = int(found.info.get("bit_depth", 8))
    if bits <= 8:
        return None
    # pillow-heif shifts the levels up to 16 bits, which leaves white a little short of white.
    shifted = np.right_shift(np.asarray(found), 16 - bits)
    levels = picture.full_scale(shifted.astype(np.uint16, copy=False), bits)
    profile, warnings = _profile_of(found.info, content)
    made = picture.coloured(levels, profile, grey=levels.ndim == 2)
    made.warnings += warnings
    made.exif, made.xmp = found.info.get("exif"), found.info.get("xmp")
    made.orientation = 1
    return made


def _profile_of(told: Mapping[Any, Any], content: bytes) -> tuple[bytes | None, list[str]]:
    profile: bytes | None = told.get("icc_profile")
    return (profile, []) if profile else spaces.of_container(content)


# An AV1 configuration (AV1-ISOBMFF 2.3): marker and version, sequence profile, then the depth.
_AV1C = re.compile(rb"av1C\x81.(.)", re.DOTALL)


def avif(content: bytes) -> Picture | None:
    """An AVIF of 10 or 12 bits; None where it has 8."""
    flags = [found[0] for found in _AV1C.findall(content[: 1 << 20])]
    bits = max((12 if flag & 0x20 else 10 if flag & 0x40 else 8 for flag in flags), default=8)
    if bits <= 8:
        return None
    import imagecodecs

    levels: NDArray[Any] = imagecodecs.avif_decode(content, index=0)
    with openers.opened(content, "AVIF") as image:
        profile, warnings = _profile_of(image.info, content)
        made = picture.coloured(picture.full_scale(levels, bits), profile)
        made.warnings += warnings
        # Pillow tells `irot` and `imir` as an orientation; libavif leaves the pixels lying.
        made.exif, made.xmp = image.info.get("exif"), image.info.get("xmp")
    return made


def jpeg2000(content: bytes) -> Picture | None:
    """A grey or RGB JPEG 2000 of more than 8 bits; None for all others."""
    at = content.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(content) < at + 43:
        return None
    (count,) = struct.unpack_from(">H", content, at + 40)
    depths = set(content[at + 42 : at + 42 + 3 * count : 3])
    if len(depths) != 1 or count > 4 or not 8 <= (depth := depths.pop()) < 16:
        return None
    import imagecodecs

    levels: NDArray[Any] = imagecodecs.jpeg2k_decode(content)
    with openers.opened(content, "JPEG2000") as image:
        made = picture.coloured(
            picture.full_scale(levels, depth + 1), image.info.get("icc_profile"), grey=count < 3
        )
        made.dpi = picture.dpi_of(image)
    return made


# Netpbm's header: magic, width, height and top level, with comments between them.
_PNM = re.compile(rb"P([56])(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)\s")


def ppm(content: bytes) -> Picture | None:
    """A binary PGM or PPM of more than 8 bits; None for all others."""
    header = _PNM.match(content[:4096])
    if header is None or not 255 < (top := int(header[4])) < 65536:
        return None
    width, height, channels = int(header[2]), int(header[3]), 1 if header[1] == b"5" else 3
    if len(content) - header.end() < 2 * width * height * channels:
        raise EOFError("the end of the file is missing")
    stored = np.frombuffer(content, ">u2", width * height * channels, header.end())
    levels = stored.reshape(height, width, channels).astype(np.uint16)
    if top < 65535:
        table = np.minimum(np.arange(65536, dtype=np.uint64) * 65535 // top, 65535)
        levels = table.astype(np.uint16)[levels]
    return picture.coloured(cast(Pixels, levels), None)
