"""Area averages of a whole photo, as an engine's proxy is made. Pure.

Own kernel: OpenCV's INTER_AREA, to the last bit but for ties, takes four to seven times as long.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Pixels
from watcher.pipeline.compiled import compiled
from watcher.pipeline.scale import resized

Field = NDArray[np.float32]
Places = NDArray[np.int64]


def shrunk(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """`pixels` (HxWx3) at `size` (width, height), as `scale.resized` would have it; parts of a photo, too."""
    width, height = size
    if width > pixels.shape[1] or height > pixels.shape[0] or not pixels.flags.c_contiguous:
        return resized(pixels, size)
    out = cast(Pixels, np.empty((height, width, 3), pixels.dtype))
    average(pixels.reshape(len(pixels), -1), out)
    return out


def warm_up() -> None:
    """Compile what `shrunk` needs."""
    for dtype in (np.uint8, np.uint16):
        shrunk(cast(Pixels, np.zeros((2, 2, 3), dtype)), (1, 1))


@compiled
def spans(length: int, wanted: int) -> tuple[Places, Places, Field, Field]:
    """Which of `length` samples lie under each of `wanted`: the first, the last, and the shares of these two."""
    first = np.empty(wanted, np.int64)
    last = np.empty(wanted, np.int64)
    head = np.empty(wanted, np.float32)
    tail = np.empty(wanted, np.float32)
    for i in range(wanted):
        start, end = i * length / wanted, (i + 1) * length / wanted
        first[i] = int(start)
        last[i] = min(length, math.ceil(end)) - 1
        head[i] = (min(end, first[i] + 1.0) - start) * wanted / length
        tail[i] = (end - last[i]) * wanted / length
    return first, last, head, tail


@compiled
def average(rows: Pixels, out: Pixels) -> None:
    """`rows` (HxW*3, levels of neighbours side by side) averaged into `out` (hxwx3), h <= H and w <= W.

    Rows first: whole rows are added up eight and more levels at a time, and only their sums are gathered.
    """
    length = rows.shape[1]
    height, width = out.shape[:2]
    y0, y1, above, below = spans(rows.shape[0], height)
    x0, x1, left, right = spans(length // 3, width)
    inner_y, inner_x = np.float32(height / rows.shape[0]), np.float32(width / (length // 3))
    total = np.empty(length, np.float32)
    for y in range(height):
        # Names, not places in arrays: what could change in between keeps a loop from being eight levels wide.
        top, bottom, share = y0[y], y1[y], above[y]
        for i in range(length):
            total[i] = share * np.float32(rows[top, i])
        for v in range(top + 1, bottom):
            for i in range(length):
                total[i] += inner_y * np.float32(rows[v, i])
        if bottom > top:
            share = below[y]
            for i in range(length):
                total[i] += share * np.float32(rows[bottom, i])
        for x in range(width):
            red = green = blue = np.float32(0)
            for u in range(x0[x] + 1, x1[x]):
                red += total[3 * u]
                green += total[3 * u + 1]
                blue += total[3 * u + 2]
            p, q = 3 * x0[x], 3 * x1[x]
            red = inner_x * red + left[x] * total[p]
            green = inner_x * green + left[x] * total[p + 1]
            blue = inner_x * blue + left[x] * total[p + 2]
            if q > p:
                red += right[x] * total[q]
                green += right[x] * total[q + 1]
                blue += right[x] * total[q + 2]
            # Ties to even, as OpenCV has them.
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = np.rint(red), np.rint(green), np.rint(blue)
