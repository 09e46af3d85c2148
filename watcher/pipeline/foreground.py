"""Colours of foreground and background behind a soft edge. Pure.

Own kernel, after T. Germer, T. Uelwer, S. Conrad, S. Harmeling: "Fast Multi-Level
Foreground Estimation", ICPR 2020. The package of its authors compiles all of itself at
import: 37 s without a writable cache, and SciPy in memory for good.
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.compiled import compiled

Field = NDArray[np.float32]
Places = NDArray[np.int64]

# Smoothness everywhere, as in the paper's section IV ...
_REGULARISATION = np.float32(1e-5)
# ... and more of it across edges of alpha, against one for the photo itself. The paper has 1, and that blurs
# what the photo says: with a tenth the colours of an exact alpha err by a sixth to a third less, with the
# rounding of 8 bits, and those of an engine's alpha by 1 to 4 % less. Below that hardly anything changes.
_GRADIENT_WEIGHT = 0.1
# Below this size a level costs nothing, and what it gets wrong every finer one inherits.
_SMALL = 32
_SWEEPS_SMALL, _SWEEPS = 10, 3
# Nearer to 0 or 1 than this, and so are its neighbours: a pixel shows one colour, and tells nothing
# of the other that a coarser level did not know.
_CLEAR = np.float32(1 / 64)
# The rows of a picture that its mean colours are taken of.
_ROWS = 100


def estimate(
    image: Field, alpha: Field, *, gradient_weight: float = _GRADIENT_WEIGHT, sweeps: int = _SWEEPS
) -> Field:
    """HxWx6: foreground RGB, then background RGB, each 0..1, such that I = aF + (1-a)B nearly.

    `image` HxWx3 and `alpha` HxW, both 0..1. About 60 bytes a pixel, at most.
    """
    # Contiguous: another layout would be another signature to compile.
    image, alpha = np.ascontiguousarray(image), np.ascontiguousarray(alpha)
    return climb(image, alpha[..., None], *_ladder(*alpha.shape), sweeps, np.float32(gradient_weight))


def warm_up() -> None:
    """Compile all of this."""
    estimate(np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.float32))


@functools.lru_cache(maxsize=64)
def _ladder(height: int, width: int) -> tuple[Places, Places, Places, Places, Places]:
    """The sizes (height, width) from one pixel up, and which rows and columns each takes, one after the other.

    First of the whole picture, then of the size before. No averages: what is mixed from one F and one
    B stays that.
    """
    levels = max(1, math.ceil(math.log2(max(height, width))))
    shares = [level / levels for level in range(levels + 1)]
    sizes = [(round(height**share), round(width**share)) for share in shares]
    before = [(1, 1), *sizes[:-1]]
    picks = [
        np.concatenate([_nearest(of[axis], size[axis]) for of, size in zip(origin, sizes, strict=True)])
        for origin in ([(height, width)] * len(sizes), before)
        for axis in (0, 1)
    ]
    return np.array(sizes), picks[0], picks[1], picks[2], picks[3]


def _nearest(length: int, wanted: int) -> Places:
    numbers = np.arange(length, dtype=np.float32)[None]
    picked = cv2.resize(numbers, (wanted, 1), interpolation=cv2.INTER_NEAREST_EXACT)
    return picked.ravel().astype(np.int64)


@compiled
def climb(
    image: Field,
    alpha: Field,
    sizes: Places,
    rows: Places,
    columns: Places,
    rows_before: Places,
    columns_before: Places,
    sweeps: int,
    gradient_weight: np.float32,
) -> Field:
    """`estimate` in one call: dozens would each let go of the GIL and want it back. `alpha` is HxWx1."""
    colours = initial(image, alpha.reshape(alpha.shape[:2]))
    y = x = 0
    for level in range(len(sizes)):
        height, width = sizes[level, 0], sizes[level, 1]
        small = max(height, width) <= _SMALL
        down, right = slice(y, y + height), slice(x, x + width)
        colours = picked(colours, rows_before[down], columns_before[right])
        solve(
            picked(image, rows[down], columns[right]),
            picked(alpha, rows[down], columns[right]).reshape((height, width)),
            colours,
            _SWEEPS_SMALL if small else sweeps,
            small,
            gradient_weight,
        )
        y, x = y + height, x + width
    return colours


@compiled
def picked(field: Field, rows: Places, columns: Places) -> Field:
    """These of `field`, HxWxC; itself where that is all."""
    height, width, depth = field.shape
    if height == len(rows) and width == len(columns):
        return field
    out = np.empty((len(rows), len(columns), depth), np.float32)
    flat = field.reshape((height * width, depth))
    for y in range(len(rows)):
        first = rows[y] * width
        for x in range(len(columns)):
            place = first + columns[x]
            if depth == 6:
                for c in range(6):
                    out[y, x, c] = flat[place, c]
            elif depth == 3:
                for c in range(3):
                    out[y, x, c] = flat[place, c]
            else:
                out[y, x, 0] = flat[place, 0]
    return out


@compiled
def initial(image: Field, alpha: Field) -> Field:
    """One pixel: the mean colours of what is surely foreground, and surely not; of all, where nothing is."""
    sums = np.zeros((3, 3))
    counts = np.zeros(3)
    # A mean of some of the rows is as good a start, unless one of the two is in none of them.
    for step in (max(1, alpha.shape[0] // _ROWS), 1):
        sums[:], counts[:] = 0.0, 0.0
        for y in range(step // 2, alpha.shape[0], step):
            for x in range(alpha.shape[1]):
                side = 0 if alpha[y, x] > 0.9 else 1 if alpha[y, x] < 0.1 else 2
                counts[side] += 1
                for c in range(3):
                    sums[side, c] += image[y, x, c]
        if counts[0] and counts[1]:
            break
    colours = np.empty((1, 1, 6), np.float32)
    for side in range(2):
        for c in range(3):
            total, count = sums[side, c], counts[side]
            if not count:
                total = sums[0, c] + sums[1, c] + sums[2, c]
                count = counts[0] + counts[1] + counts[2]
            colours[0, 0, 3 * side + c] = total / count
    return colours


@compiled
def mixed(image: Field, alpha: Field, colours: Field) -> NDArray[np.int32]:
    """The pixels, by number, that are not clear: nothing but foreground or background, and their four neighbours the same.

    Of the clear ones one colour is what the photo shows.
    """
    height, width = alpha.shape
    places = np.empty(height * width, np.int32)
    low, high = np.empty(width, np.float32), np.empty(width, np.float32)
    count = 0
    for y in range(height):
        # Branches keep a loop from being eight pixels wide, and this is about every pixel there is.
        row, above, below = alpha[y], alpha[max(0, y - 1)], alpha[min(height - 1, y + 1)]
        for x in range(width):
            low[x] = min(row[x], above[x], below[x])
            high[x] = max(row[x], above[x], below[x])
        for x in range(width):
            left, right = row[max(0, x - 1)], row[min(width - 1, x + 1)]
            least, most = min(low[x], left, right), max(high[x], left, right)
            if most < _CLEAR or least > 1 - _CLEAR:
                side = 0 if row[x] > np.float32(0.5) else 3
                for c in range(3):
                    colours[y, x, side + c] = image[y, x, c]
            else:
                places[count] = y * width + x
                count += 1
    return places[:count]


@compiled
def solve(
    image: Field, alpha: Field, colours: Field, sweeps: int, small: bool, gradient_weight: np.float32
) -> None:
    """Gauss-Seidel sweeps over the paper's equation (4), `colours` HxWx6 in place.

    Each pixel's F and B minimise (aF + (1-a)B - I)^2 + sum w_j ((F-F_j)^2 + (B-B_j)^2) over
    its four neighbours j, w_j = regularisation + gradient weight * |a - a_j|. Pixels far from any
    edge are only solved in a `small` picture, where the colours beyond them come from.
    """
    height, width = alpha.shape
    one = np.float32(1)
    if small:
        places = np.empty(height * width, np.int32)
        for i in range(places.size):
            places[i] = i
    else:
        places = mixed(image, alpha, colours)
    for _ in range(sweeps):
        for i in range(len(places)):
            y, x = places[i] // width, places[i] % width
            a = alpha[y, x]
            b = one - a
            total = np.float32(0)
            f0 = f1 = f2 = b0 = b1 = b2 = np.float32(0)
            for j in range(4):
                v = min(height - 1, max(0, y + (j == 0) - (j == 1)))
                u = min(width - 1, max(0, x + (j == 2) - (j == 3)))
                w = _REGULARISATION + gradient_weight * abs(a - alpha[v, u])
                total += w
                f0 += w * colours[v, u, 0]
                f1 += w * colours[v, u, 1]
                f2 += w * colours[v, u, 2]
                b0 += w * colours[v, u, 3]
                b1 += w * colours[v, u, 4]
                b2 += w * colours[v, u, 5]
            ff, fb, bb = a * a + total, a * b, b * b + total
            inverse = one / (ff * bb - fb * fb)
            for c in range(3):
                known = image[y, x, c]
                right = (f0 if c == 0 else f1 if c == 1 else f2) + a * known
                left = (b0 if c == 0 else b1 if c == 1 else b2) + b * known
                front = (bb * right - fb * left) * inverse
                back = (ff * left - fb * right) * inverse
                colours[y, x, c] = min(one, max(np.float32(0), front))
                colours[y, x, 3 + c] = min(one, max(np.float32(0), back))
