"""The narrow band around a contour in which alpha is solved for anew. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.compiled import compiled
from watcher.pipeline.distance import ACROSS, FAR, PIXEL, STRAIGHT, spread

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Steps = NDArray[np.int32]

# Of the short side, to each side of the contour, sure pixels and all ...
_BAND = 0.01
_CLOSEST = 2.0  # pixels
# ... and soft ones only, for curls reach further than contours err: those that have a sure pixel of both
# kinds within twice that. Hair has; a body that an engine only half believes in has not, and is held.
_BAND_SOFT = 0.04
SOFT, _SURE, _NEVER = np.float32(0.03), np.float32(0.05), np.float32(2)


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
    rows = int(2 * _BAND_SOFT * short) + 2
    near, reach = int(max(_CLOSEST, _BAND * short) * PIXEL), int(_BAND_SOFT * short * PIXEL)
    columns = np.empty(width, np.int64)
    for x in range(width):
        columns[x] = min(x >> halvings, seen.shape[1] - 1)
    soft = np.zeros((height, width), np.bool_)
    first, last = len(seen), -1
    for y in range(height):
        v = min(y >> halvings, len(seen) - 1)
        closest = FAR
        for u in range(seen.shape[1]):
            closest = min(closest, away[v, u])
        if closest > reach:
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
    top = max(0, first - rows)
    part = seen[top : last + rows + 1]
    clear, full = to_sure(part, _SURE, _NEVER), to_sure(part, -_NEVER, np.float32(1) - _SURE)
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
def to_other_side(alpha: Field) -> tuple[Steps, bool]:
    """How far each pixel is from the nearest beyond the contour at 0.5, as `distance` counts; whether there are any."""
    height, width = alpha.shape
    half = np.float32(0.5)
    inside, away = np.empty((height, width), np.bool_), np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            inside[y, x], away[y, x] = alpha[y, x] > half, FAR
    crossed = False
    for y in range(height):
        for x in range(width - 1):
            if inside[y, x] != inside[y, x + 1]:
                away[y, x] = away[y, x + 1] = STRAIGHT
                crossed = True
    for y in range(height - 1):
        for x in range(width):
            if inside[y, x] != inside[y + 1, x]:
                away[y, x] = away[y + 1, x] = STRAIGHT
                crossed = True
        for x in range(width - 1):
            if inside[y, x] != inside[y + 1, x + 1]:
                away[y, x] = min(away[y, x], ACROSS)
                away[y + 1, x + 1] = min(away[y + 1, x + 1], ACROSS)
            if inside[y, x + 1] != inside[y + 1, x]:
                away[y, x + 1] = min(away[y, x + 1], ACROSS)
                away[y + 1, x] = min(away[y + 1, x], ACROSS)
    # What lies on the other side is a step away: no way there through it is shorter.
    if crossed:
        spread(away)
    return away, crossed


@compiled
def to_sure(alpha: Field, below: np.float32, above: np.float32) -> Steps:
    """How far each pixel is from the nearest that is below or above that: surely 0, or surely 1."""
    height, width = alpha.shape
    away = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            there = alpha[y, x] < below or alpha[y, x] > above
            away[y, x] = np.int32(0) if there else FAR
    spread(away)
    return away
