"""Small JPEGs of sources and results, for contact sheets. Never raises for a file: None is no picture.

Opens sources, as decode.py does, but only such as have been decoded once already.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from watcher.errors import WatcherError
from watcher.pipeline import colour, openers, pixels, sniff
from watcher.pipeline.scale import eight_bits, resized, unit

Rgb = NDArray[np.uint8]
# Sides of a thumbnail, in pixels, and of a square of the board under a cutout.
SIDE = 240
_SQUARE = 12
_LIGHT, _DARK = 250, 205
_QUALITY = 80
# What a thumbnail may cost: larger files and pictures go without one.
MOST_BYTES = 1 << 30
MOST_PIXELS = 120_000_000


def small(path: Path) -> tuple[Rgb, NDArray[np.float32] | None] | None:
    """A picture as HxWx3 sRGB, neither side over SIDE, and its opacity HxW in 0..1 if it has one."""
    try:
        content = _read(path)
        kind = sniff.kind_of(content)
        width, height = sniff.size_of(content, kind)
        quick = _by_draft(content) if kind == "JPEG" else None
        if quick is not None:
            return quick, None
        return _by_decoding(content, kind) if width * height <= MOST_PIXELS else None
    except (WatcherError, OSError, ValueError, MemoryError):
        return None


def jpeg(picture: Rgb) -> bytes:
    """Bytes of a JPEG of an HxWx3 picture."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), _QUALITY, "RGB", "420", True))


def grey(values: NDArray[np.float32]) -> Rgb:
    """Values in 0..1 as an HxWx3 picture."""
    return np.repeat((values * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)


def over_board(picture: Rgb, opacity: NDArray[np.float32]) -> Rgb:
    """A cutout over the checkerboard that means "nothing here"; both of one size."""
    y, x = np.indices(opacity.shape) // _SQUARE
    board = np.where((x + y) % 2 == 0, _LIGHT, _DARK)[..., None]
    share = opacity[..., None]
    return np.asarray(picture * share + board * (1 - share) + 0.5, np.uint8)


def _read(path: Path) -> bytes:
    """The content of a regular file; a link is not followed, a pipe not waited for."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            raise ValueError("not a file to be shown")
        return stream.read()


def _by_draft(content: bytes) -> Rgb | None:
    """A JPEG decoded at an eighth or so of its size; None where its colours need the long way."""
    with openers.opened(content, "JPEG") as image:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        if image.mode not in ("RGB", "L"):
            return None
        image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        profile = image.info.get("icc_profile")
        upright = ImageOps.exif_transpose(image)
        if profile is not None:
            with suppress(*colour.Unusable):
                upright = colour.to_srgb(upright, profile)
        return np.asarray(upright.convert("RGB"), np.uint8)


def _by_decoding(content: bytes, kind: str) -> tuple[Rgb, NDArray[np.float32] | None]:
    picture = pixels.read(content, kind)
    height, width = picture.pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    reduced = eight_bits(resized(picture.pixels, size))
    with suppress(*colour.Unusable):
        reduced = colour.proxy_to_srgb(reduced, picture.profile)
    opacity = None if picture.opacity is None else unit(resized(picture.opacity, size))
    return reduced, opacity
