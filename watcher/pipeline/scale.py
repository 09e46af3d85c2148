"""Other sizes and depths of an array of pixels. Pure."""

from __future__ import annotations

from typing import TypeAlias, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.domain import Pixels
from watcher.pipeline.compiled import compiled

_Array = TypeVar("_Array", NDArray[np.float32], Pixels)
# A name, since to write the type out at each call takes longer than what is done there.
_Bytes: TypeAlias = NDArray[np.uint8]
_TOP_8, _TOP_16 = np.float32(255), np.float32(65535)


def resized(image: _Array, size: tuple[int, int]) -> _Array:
    """`image` at `size` (width, height): area averages, or bilinear where it has to grow."""
    width, height = size
    grows = width > image.shape[1] and height > image.shape[0]
    way = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
    return cast(
        _Array, cv2.resize(image, (width, height), interpolation=way).reshape(height, width, *image.shape[2:])
    )


# Below this an engine that runs out of memory has no excuse: 1080p.
_LEAST_PIXELS = 1920 * 1080
# Of each side, at each step: about half the pixels.
_STEP = 0.72


def step_down(proxy: NDArray[np.uint8], *, multiple: int) -> NDArray[np.uint8] | None:
    """A smaller `proxy` for an engine that ran out of memory; None where it is 1080p or less.

    Sides stay multiples of `multiple`. The last step lands on 1080p, not below.
    """
    height, width = proxy.shape[:2]
    if height * width <= _LEAST_PIXELS:
        return None
    scale = max(_STEP, (_LEAST_PIXELS / (height * width)) ** 0.5)
    size = tuple(max(1, int(side * scale) // multiple) * multiple for side in (width, height))
    if size[0] * size[1] >= height * width:
        return None
    return cast(_Bytes, resized(proxy, (size[0], size[1])))


def eight_bits(levels: Pixels) -> NDArray[np.uint8]:
    """0..65535 to 0..255, rounded; 8-bit levels as they are. Contiguous."""
    levels = cast(Pixels, np.ascontiguousarray(levels))
    if levels.dtype == np.uint16:
        # Rounds to nearest, without a temporary; 257 is odd, so there are no ties.
        return cast(_Bytes, cv2.convertScaleAbs(levels, alpha=1 / 257).reshape(levels.shape))
    return cast(_Bytes, levels)


def sixteen_bits(levels: Pixels) -> NDArray[np.uint16]:
    """0..255 to 0..65535; 16-bit levels as they are."""
    if levels.dtype == np.uint16:
        return cast(NDArray[np.uint16], levels)
    return np.multiply(levels, 257, dtype=np.uint16)


@compiled
def sane(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of `alpha`, contiguous, within 0..1; 0 where it is no number."""
    height, width = alpha.shape
    out = np.empty((height, width), np.float32)
    zero, one = np.float32(0), np.float32(1)
    for y in range(height):
        for x in range(width):
            # In this order: nothing is greater than zero that is no number.
            out[y, x] = min(one, max(zero, alpha[y, x]))
    return out


def unit(levels: Pixels) -> NDArray[np.float32]:
    """Levels of any depth as 0..1."""
    return np.asarray(levels / (_TOP_8 if levels.itemsize == 1 else _TOP_16), np.float32)
