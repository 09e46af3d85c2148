"""Fields of numbers, HxW or HxWxC, at half their size and back, for kernels to call. Pure.

OpenCV does it as well, and no slower, but not from within a kernel: whoever calls it gives the GIL away, and waits until it
gets it back, which takes longer than the call where sixteen threads are at work.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.compiled import compiled
from watcher.pipeline.shrink import spans

Field = NDArray[np.float32]


@compiled
def halved(field: Field) -> Field:
    """HxWxC at half its size, rounded down: area averages."""
    height, width, depth = field.shape
    out = np.empty((height // 2, width // 2, depth), np.float32)
    if height % 2 == 0 and width % 2 == 0:
        quarter = np.float32(0.25)
        for y in range(height // 2):
            for x in range(width // 2):
                for c in range(depth):
                    above = field[2 * y, 2 * x, c] + field[2 * y, 2 * x + 1, c]
                    out[y, x, c] = (
                        above + field[2 * y + 1, 2 * x, c] + field[2 * y + 1, 2 * x + 1, c]
                    ) * quarter
        return out
    y0, y1, above_y, below_y = spans(height, height // 2)
    x0, x1, left, right = spans(width, width // 2)
    # Two to four rows and columns lie under each; what lies between the first and the last counts in full.
    inner_y, inner_x = np.float32((height // 2) / height), np.float32((width // 2) / width)
    for y in range(height // 2):
        for x in range(width // 2):
            for c in range(depth):
                total = np.float32(0)
                for v in range(y0[y], y1[y] + 1):
                    share = above_y[y] if v == y0[y] else below_y[y] if v == y1[y] else inner_y
                    for u in range(x0[x], x1[x] + 1):
                        part = left[x] if u == x0[x] else right[x] if u == x1[x] else inner_x
                        total += share * part * field[v, u, c]
                out[y, x, c] = total
    return out


@compiled
def taps(wanted: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Field]:
    """Bilinear interpolation from `length` samples to `wanted`: left index, right index, right weight."""
    left = np.empty(wanted, np.int64)
    right = np.empty(wanted, np.int64)
    weight = np.empty(wanted, np.float32)
    for i in range(wanted):
        place = min(max((i + 0.5) * length / wanted - 0.5, 0.0), length - 1.0)
        left[i] = int(place)
        right[i] = min(length - 1, left[i] + 1)
        weight[i] = place - left[i]
    return left, right, weight


@compiled
def enlarged(field: Field, height: int, width: int) -> Field:
    """HxW at a larger size, bilinear."""
    out = np.empty((height, width), np.float32)
    y0, y1, ty = taps(height, field.shape[0])
    x0, x1, tx = taps(width, field.shape[1])
    row = np.empty(field.shape[1], np.float32)
    for y in range(height):
        top, bottom, share = y0[y], y1[y], ty[y]
        for i in range(row.size):
            row[i] = field[top, i] + share * (field[bottom, i] - field[top, i])
        for x in range(width):
            out[y, x] = row[x0[x]] + tx[x] * (row[x1[x]] - row[x0[x]])
    return out
