"""A photo that was read, and how far apart the levels of two are."""

from __future__ import annotations

import numpy as np

from watcher.pipeline import colour, pixels, sniff


def read(content: bytes):
    kind = sniff.kind_of(content)
    width, height = sniff.size_of(content, kind)
    picture = pixels.read(content, kind)
    assert {*picture.pixels.shape[:2]} == {width, height}
    return picture


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference, in levels of 8 bits whatever the depth."""
    scales = [255 / np.iinfo(image.dtype).max for image in (one, other)]
    return float(np.abs(one * scales[0] - other * scales[1]).mean())


def in_srgb(picture) -> np.ndarray:
    eight = (picture.pixels / (np.iinfo(picture.pixels.dtype).max / 255) + 0.5).astype(np.uint8)
    return colour.proxy_to_srgb(eight, picture.profile)


def lab_of(make) -> np.ndarray:
    """HxWx3 float: L 0..100, a and b, of every sRGB level by the CIE's formulas (D50 by Bradford)."""
    linear = make.original() / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
    x, y, z = np.moveaxis(linear @ np.transpose(to_xyz) / (0.9642, 1.0, 0.8249), 2, 0)
    fx, fy, fz = (np.where(v > 216 / 24389, np.cbrt(v), (24389 / 27 * v + 16) / 116) for v in (x, y, z))
    return np.dstack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])
