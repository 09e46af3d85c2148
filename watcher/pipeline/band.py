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
    short = min(seen.shape)
    near, reach = np.int32(max(_CLOSEST, _BAND * short) * PIXEL), np.int32(_BAND_SOFT * short * PIXEL)
    away, crossed = to_other_side(seen)
    if not crossed:
        return free, False
    rows = int(2 * _BAND_SOFT * short) + 2
    columns = np.empty(width, np.int64)
    for x in range(width):
        columns[x] = min(x >> halvings, seen.shape[1] - 1)
    soft = np.zeros((height, width), np.bool_)
    first, last = len(seen), -1
    far = np.empty(width, np.int32)
    for y in range(height):
        v = min(y >> halvings, len(seen) - 1)
        closest = FAR
        for u in range(seen.shape[1]):
            closest = min(closest, away[v, u])
        if closest > reach:
            continue
        if halvings:
            for x in range(width):
                far[x] = away[v, columns[x]]
        else:
            far[:] = away[v]
        there, own, row, found = soft[y], free[y], alpha[y], False
        for x in range(width):
            own[x] = far[x] <= near
            there[x] = (far[x] > near) & (far[x] <= reach) & (row[x] > SOFT) & (row[x] < np.float32(1) - SOFT)
            found |= there[x]
        if found:
            first, last = min(first, v), v
    if last < 0:
        return free, True
    top = max(0, first - rows)
    part = seen[top : last + rows + 1]
    clear = to_sure(part, _SURE, _NEVER)
    full = to_sure(part, -_NEVER, np.float32(1) - _SURE)
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
    # Beyond the border it goes on as it is there.
    inside = np.empty((height + 2, width + 2), np.bool_)
    for y in range(height):
        row, of = inside[y + 1, 1 : width + 1], alpha[y]
        for x in range(width):
            row[x] = of[x] > half
        inside[y + 1, 0], inside[y + 1, width + 1] = row[0], row[width - 1]
    inside[0], inside[height + 1] = inside[1], inside[height]
    away = np.empty((height, width), np.int32)
    crossed = False
    for y in range(height):
        above, row, below, to = inside[y], inside[y + 1], inside[y + 2], away[y]
        for x in range(width):
            own = row[x + 1]
            beside = (row[x] ^ own) | (row[x + 2] ^ own) | (above[x + 1] ^ own) | (below[x + 1] ^ own)
            across = (above[x] ^ own) | (above[x + 2] ^ own) | (below[x] ^ own) | (below[x + 2] ^ own)
            to[x] = STRAIGHT if beside else ACROSS if across else FAR
            crossed |= beside | across
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
            there = (alpha[y, x] < below) | (alpha[y, x] > above)
            away[y, x] = np.int32(0) if there else FAR
    spread(away)
    return away
