"""The narrow band around a contour in which alpha is solved for anew. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.compiled import compiled

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Of the short side, to each side of the contour, sure pixels and all ...
_BAND = 0.01
_CLOSEST = 2.0  # pixels
# ... and soft ones only, for curls reach further than contours err: those that have a sure pixel of both
# kinds within twice that. Hair has; a body that an engine only half believes in has not, and is held.
_BAND_SOFT = 0.04
SOFT, _SURE = np.float32(0.03), np.float32(0.05)
# Of a step to a neighbour, and to a diagonal one: G. Borgefors, "Distance transformations in digital images", 1986, as
# OpenCV's DIST_L2 has them for masks of 3x3; at most 4 % off.
_STEP, _DIAGONAL = np.float32(0.955), np.float32(1.3693)
_FAR = np.float32(1e9)


@compiled
def band(alpha: Field, seen: Field, halvings: int) -> tuple[Mask, bool]:
    """The pixels near the contour at 0.5, and the soft ones not far from it; whether there is a contour at all.

    Distances are those of `seen`: `alpha`, at half its size `halvings` times.
    """
    height, width = alpha.shape
    free = np.zeros((height, width), np.bool_)
    away, crossed = to_other_side(seen)
    if not crossed:
        return free, False
    short = min(seen.shape)
    near, reach = np.float32(max(_CLOSEST, _BAND * short)), np.float32(_BAND_SOFT * short)
    columns = np.minimum(np.arange(width) >> halvings, seen.shape[1] - 1)
    soft = np.zeros((height, width), np.bool_)
    first, last = len(seen), -1
    for y in range(height):
        v = min(y >> halvings, len(seen) - 1)
        if away[v].min() > reach:
            continue
        for x in range(width):
            far, a = away[v, columns[x]], alpha[y, x]
            if far <= near:
                free[y, x] = True
            elif far <= reach and a > SOFT and a < np.float32(1) - SOFT:
                soft[y, x] = True
                first, last = min(first, v), v
    if last < 0:
        return free, True
    top = max(0, first - int(2 * reach) - 1)
    part = seen[top : last + int(2 * reach) + 2]
    clear, full = to_sure(part, False), to_sure(part, True)
    for y in range(height):
        v = min(y >> halvings, len(seen) - 1)
        if v < first or v > last:
            continue
        for x in range(width):
            if soft[y, x]:
                u = columns[x]
                free[y, x] = clear[v - top, u] <= 2 * reach and full[v - top, u] <= 2 * reach
    return free, True


@compiled
def to_other_side(alpha: Field) -> tuple[Field, bool]:
    """How far each pixel is from the nearest beyond the contour at 0.5; whether there are any."""
    height, width = alpha.shape
    inside = alpha > np.float32(0.5)
    away = np.full((height, width), _FAR, np.float32)
    crossed = False
    for y in range(height):
        for x in range(width - 1):
            if inside[y, x] != inside[y, x + 1]:
                away[y, x] = away[y, x + 1] = _STEP
                crossed = True
    for y in range(height - 1):
        for x in range(width):
            if inside[y, x] != inside[y + 1, x]:
                away[y, x] = away[y + 1, x] = _STEP
                crossed = True
        for x in range(width - 1):
            for left, right in ((x, x + 1), (x + 1, x)):
                if inside[y, left] != inside[y + 1, right]:
                    away[y, left] = min(away[y, left], _DIAGONAL)
                    away[y + 1, right] = min(away[y + 1, right], _DIAGONAL)
    # What lies on the other side is a step away: no way there through it is shorter.
    if crossed:
        spread(away)
    return away, crossed


@compiled
def to_sure(alpha: Field, full: bool) -> Field:
    """How far each pixel is from the nearest that is surely 1, or surely 0."""
    height, width = alpha.shape
    away = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            there = alpha[y, x] > np.float32(1) - _SURE if full else alpha[y, x] < _SURE
            away[y, x] = np.float32(0) if there else _FAR
    spread(away)
    return away


@compiled
def spread(away: Field) -> None:
    """Distances from the pixels whose distance is known to all others, in place: once down, and once up."""
    height, width = away.shape
    for y in range(height):
        if y > 0:
            for x in range(width):
                best = away[y, x]
                over = away[y - 1, x] + _STEP
                best = min(best, over)
                if x > 0:
                    over = away[y - 1, x - 1] + _DIAGONAL
                    best = min(best, over)
                if x + 1 < width:
                    over = away[y - 1, x + 1] + _DIAGONAL
                    best = min(best, over)
                away[y, x] = best
        for x in range(1, width):
            over = away[y, x - 1] + _STEP
            away[y, x] = min(away[y, x], over)
    for y in range(height - 1, -1, -1):
        if y + 1 < height:
            for x in range(width):
                best = away[y, x]
                under = away[y + 1, x] + _STEP
                best = min(best, under)
                if x > 0:
                    under = away[y + 1, x - 1] + _DIAGONAL
                    best = min(best, under)
                if x + 1 < width:
                    under = away[y + 1, x + 1] + _DIAGONAL
                    best = min(best, under)
                away[y, x] = best
        for x in range(width - 2, -1, -1):
            under = away[y, x + 1] + _STEP
            away[y, x] = min(away[y, x], under)
