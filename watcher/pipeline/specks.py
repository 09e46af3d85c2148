"""Which parts of an alpha hang together, and which of them are specks. Pure; the kernel of `edges.islands`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.compiled import compiled
from watcher.pipeline.distance import FAR, PIXEL, spread

Field = NDArray[np.float32]
Flags = NDArray[np.bool_]
Steps = NDArray[np.int32]
Runs = NDArray[np.int32]

# A pixel is looked at by itself only where not all of eight neighbours are alike: eight marks are one number.
_EIGHT, _NONE, _ALL = 8, np.uint64(0), np.uint64(0x0101010101010101)


def without_specks(
    alpha: Field, *, faint: float, speck: float, doubtful: float, weighs: float, near: float
) -> Field:
    """`alpha` (hxw) less what is no part of a large island and not `near` one; itself where that is nothing.

    An island: what is above `faint` and hangs together, at corners too. Large: it weighs a share of `speck` of the
    heaviest, where what is not above `doubtful` weighs `weighs`. `near`: in shares of the short side.
    """
    contiguous = np.ascontiguousarray(alpha)
    closest = np.float32(near * min(alpha.shape))
    levels = np.float32(faint), np.float32(doubtful), np.float32(weighs)
    cleaned = sunk(contiguous, *levels, speck, closest)
    return cleaned if cleaned.size else alpha


def warm_up() -> None:
    """Compile all of this."""
    alpha = np.ones((2, 2), np.float32)
    without_specks(alpha, faint=0.1, speck=0.1, doubtful=0.5, weighs=0.5, near=0.1)


@compiled
def sunk(
    alpha: Field,
    faint: np.float32,
    doubtful: np.float32,
    weighs: np.float32,
    speck: float,
    closest: np.float32,
) -> Field:
    """`without_specks`, in one call; 0x0 where nothing has to go."""
    nothing = np.empty((0, 0), np.float32)
    runs = runs_of(alpha, faint)
    islands, count = joined(runs)
    if count < 2:
        return nothing
    kept = large(alpha, runs, islands, count, doubtful, weighs, speck)
    if all_of(kept):
        return nothing
    spare(alpha.shape[0], alpha.shape[1], runs, islands, kept, closest)
    if all_of(kept):
        return nothing
    out = alpha.copy()
    for i in range(len(runs)):
        if not kept[islands[i]]:
            out[runs[i, 0], runs[i, 1] : runs[i, 2]] = 0
    return out


@compiled
def all_of(flags: Flags) -> bool:
    """Is every one set?"""
    count = 0
    for i in range(len(flags)):
        count += flags[i]
    return count == len(flags)


@compiled
def runs_of(alpha: Field, faint: np.float32) -> Runs:
    """Row, start and end of each run of neighbours above `faint`, row after row."""
    height, width = alpha.shape
    runs = np.empty((4 * height + 16, 3), np.int32)
    # What lies beyond the end of a row is not above.
    marks = np.zeros(_EIGHT * (width // _EIGHT + 1), np.bool_)
    eights = marks.view(np.uint64)
    turns = np.empty(2 * width + _EIGHT, np.int32)
    count = 0
    for y in range(height):
        if len(runs) < count + width // 2 + 1:
            more = np.empty((2 * len(runs) + width, 3), np.int32)
            # One by one: NumPy's way, with all it may say of shapes that differ, takes seconds to compile.
            for i in range(count):
                more[i, 0], more[i, 1], more[i, 2] = runs[i, 0], runs[i, 1], runs[i, 2]
            runs = more
        for x in range(width):
            marks[x] = alpha[y, x] > faint
        inside = False
        turned = 0
        for i in range(len(eights)):
            if eights[i] == (_ALL if inside else _NONE):
                continue
            for x in range(_EIGHT * i, _EIGHT * (i + 1)):
                turns[turned] = x  # written over unless it counts: that is faster than to guess
                turned += marks[x] != inside
                inside = marks[x]
        for i in range(0, turned, 2):
            runs[count, 0], runs[count, 1], runs[count, 2] = y, turns[i], turns[i + 1]
            count += 1
    return runs[:count]


@compiled
def joined(runs: Runs) -> tuple[Steps, int]:
    """The island that each run belongs to, from 0 on, and how many there are."""
    owner = np.empty(len(runs), np.int32)
    before = 0
    for i in range(len(runs)):
        owner[i] = i
        y, start, end = runs[i, 0], runs[i, 1], runs[i, 2]
        # Of the row above, those that end before this one starts touch none that comes later, either.
        while before < i and (
            runs[before, 0] < y - 1 or (runs[before, 0] == y - 1 and runs[before, 2] < start)
        ):
            before += 1
        mine, other = i, before
        while other < i and runs[other, 0] == y - 1 and runs[other, 1] <= end:
            theirs = root(owner, other)
            first, later = min(mine, theirs), max(mine, theirs)
            owner[later] = mine = first
            other += 1
    count = 0
    for i in range(len(runs)):
        # An owner comes before what it owns: its number is there already.
        if owner[i] == i:
            owner[i] = count
            count += 1
        else:
            owner[i] = owner[owner[i]]
    return owner, count


@compiled
def root(owner: Steps, i: int) -> int:
    """Who owns `i` in the end; ways there are shortened."""
    while owner[i] != i:
        owner[i] = owner[owner[i]]
        i = owner[i]
    return i


@compiled
def large(
    alpha: Field,
    runs: Runs,
    islands: Steps,
    count: int,
    doubtful: np.float32,
    weighs: np.float32,
    speck: float,
) -> Flags:
    """Which islands weigh a share of `speck` of the heaviest."""
    weights = np.zeros(count)
    for i in range(len(runs)):
        y = runs[i, 0]
        weight = 0.0
        for x in range(runs[i, 1], runs[i, 2]):
            level = alpha[y, x]
            weight += level if level > doubtful else level * weighs
        weights[islands[i]] += weight
    heaviest = 0.0
    for island in range(count):
        heaviest = max(heaviest, weights[island])
    kept = np.empty(count, np.bool_)
    for island in range(count):
        kept[island] = weights[island] >= speck * heaviest
    return kept


@compiled
def spare(height: int, width: int, runs: Runs, islands: Steps, kept: Flags, closest: np.float32) -> None:
    """Keep islands, too, of which a pixel is as near as `closest` (in pixels) to one that is kept."""
    # Rows that no speck comes near to do not count.
    reach = int(closest / 0.9) + 2
    first, last = height, 0
    for i in range(len(runs)):
        if not kept[islands[i]]:
            first, last = min(first, runs[i, 0]), max(last, runs[i, 0] + 1)
    first, last = max(0, first - reach), min(height, last + reach)
    away = np.empty((last - first, width), np.int32)
    for y in range(last - first):
        for x in range(width):
            away[y, x] = FAR
    for i in range(len(runs)):
        if kept[islands[i]] and first <= runs[i, 0] < last:
            away[runs[i, 0] - first, runs[i, 1] : runs[i, 2]] = 0
    spread(away)
    add = np.zeros(len(kept), np.bool_)
    for i in range(len(runs)):
        if not kept[islands[i]] and not add[islands[i]]:
            for x in range(runs[i, 1], runs[i, 2]):
                if np.float32(away[runs[i, 0] - first, x] / PIXEL) <= closest:
                    add[islands[i]] = True
                    break
    for island in range(len(kept)):
        kept[island] |= add[island]
