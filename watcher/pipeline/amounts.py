"""How much there is in an alpha, where it lies, and how far two of them are apart. Pure.

Own kernels, each of which does in one call what took NumPy and OpenCV up to ten: every call on an array
of that size lets go of the GIL, and among many threads it takes milliseconds to have it back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.compiled import compiled, summing
from watcher.pipeline.shrink import spans

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]
Fractions = tuple[float, float, float, float]
Four = tuple[int, int, int, int]

# Above the first there is a trace of somebody, above the second there is somebody.
_FAINT, _HALF = np.float32(0.1), np.float32(0.5)


@dataclass(frozen=True, slots=True)
class Amounts:
    """Of one alpha.

    `coverage`: its mean. `uncertain`: mean a(1-a) over mean a, 0 for a hard matte or none, 0.25 and more for fog.
    `borders`: of the top, bottom, left and right border, the share above a half. `faint` and `half`: the box around
    all that is above a tenth and above a half, as left, top, right, bottom in shares of the picture; None: nothing is.
    """

    coverage: float
    uncertain: float
    borders: Fractions
    faint: Fractions | None
    half: Fractions | None


def measured(alpha: Field) -> Amounts:
    """The amounts of `alpha`, hxw, 0..1."""
    # Contiguous: another layout would be another signature to compile.
    total, squares, borders, faint, half = tallied(np.ascontiguousarray(alpha), _FAINT, _HALF)
    (height, width), (top, bottom, left, right) = alpha.shape, borders
    return Amounts(
        total / alpha.size,
        max(0.0, 1 - squares / total) if total > 0 else 0.0,
        (top / width, bottom / width, left / height, right / height),
        _shares(faint, width, height),
        _shares(half, width, height),
    )


def _shares(box: Four, width: int, height: int) -> Fractions | None:
    left, top, right, bottom = box
    return None if right <= left else (left / width, top / height, right / width, bottom / height)


def difference(one: Field, other: Field) -> float:
    """Mean difference as a share of the larger one's area, at the smaller one's size. Both hxw, 0..1."""
    return apart(np.ascontiguousarray(one), np.ascontiguousarray(other), np.float32(1), _NO_MASK)[0]


def differences(one: Field, two: Field, three: Field) -> tuple[float, float, float]:
    """`difference` of the first and the second, the first and the third, the second and the third."""
    one, two, three = (np.ascontiguousarray(alpha) for alpha in (one, two, three))
    return all_apart(one, two, three, _NO_MASK)


def differ(one: Field, other: Field, *, by: float, contradicts: float, patch: float) -> bool:
    """Is `difference` more than `by`, or more than `contradicts` in a whole patch?

    That is a square with a side of `patch` of the short side, at the smaller one's size.
    """
    height, width = min(one.shape[0], other.shape[0]), min(one.shape[1], other.shape[1])
    one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
    return contradicted(one, other, by, np.float32(contradicts), side_of(patch, height, width))


_NO_MASK = np.empty((0, 0), np.bool_)


def side_of(patch: float, height: int, width: int) -> int:
    """Odd, and about this share of the short side, in pixels."""
    return 2 * round(patch * min(height, width) / 2) + 1


def warm_up() -> None:
    """Compile all of this."""
    alpha = np.zeros((2, 2), np.float32)
    measured(alpha)
    difference(alpha, alpha)
    differences(alpha, alpha, alpha)
    differ(alpha, alpha, by=0.5, contradicts=0.5, patch=1.0)
    mended(alpha, alpha, alpha, True, True, np.float32(1), 1.0, 1)


@summing
def tallied(alpha: Field, low: np.float32, high: np.float32) -> tuple[float, float, Four, Four, Four]:
    """Sums of a and of a^2, how much of the top, bottom, left and right border is above `high`, and boxes.

    These are left, top, right, bottom, in pixels, of what is above `low` and `high`; all 0 where nothing is.
    """
    height, width = alpha.shape
    highest = np.zeros(width, np.float32)
    total = squares = 0.0
    for y in range(height):
        for x in range(width):
            wide = np.float64(alpha[y, x])
            total += wide
            squares += wide * wide
        for x in range(width):
            highest[x] = max(highest[x], alpha[y, x])
    left = right = 0
    for y in range(height):
        left += alpha[y, 0] > high
        right += alpha[y, width - 1] > high
    borders = (above(alpha[0], high), above(alpha[height - 1], high), left, right)
    return total, squares, borders, box(alpha, highest, low), box(alpha, highest, high)


@compiled
def box(alpha: Field, highest: Field, level: np.float32) -> Four:
    """Around all that is above `level`; `highest`: of each column."""
    left, top, right, bottom = 0, 0, len(highest), len(alpha)
    while right > 0 and not highest[right - 1] > level:
        right -= 1
    if not right:
        return 0, 0, 0, 0
    while not highest[left] > level:
        left += 1
    while not above(alpha[top], level):
        top += 1
    while not above(alpha[bottom - 1], level):
        bottom -= 1
    return left, top, right, bottom


@compiled
def above(row: Field, level: np.float32) -> int:
    """How many are."""
    count = 0
    for x in range(len(row)):
        count += row[x] > level
    return count


@summing
def apart(one: Field, other: Field, contradicts: np.float32, mask: Mask) -> tuple[float, int]:
    """`difference`, and how many pixels are further apart than `contradicts`; `mask` (hxw, or empty) becomes these."""
    height, width = min(one.shape[0], other.shape[0]), min(one.shape[1], other.shape[1])
    rows_one, columns_one = spans(one.shape[0], height), spans(one.shape[1], width)
    rows_other, columns_other = spans(other.shape[0], height), spans(other.shape[1], width)
    row_one, row_other = np.empty(width, np.float32), np.empty(width, np.float32)
    added = np.empty(max(one.shape[1], other.shape[1]), np.float32)
    total_one = total_other = total = 0.0
    count = 0
    for y in range(height):
        averaged(one, y, rows_one, columns_one, added, row_one)
        averaged(other, y, rows_other, columns_other, added, row_other)
        for x in range(width):
            a, b = row_one[x], row_other[x]
            total_one += np.float64(a)
            total_other += np.float64(b)
            total += np.float64(abs(a - b))
        if mask.size:
            for x in range(width):
                far = abs(row_one[x] - row_other[x]) > contradicts
                mask[y, x] = far
                count += far
    largest = max(total_one, total_other)
    return (total / largest if largest > 0 else 0.0), count


@compiled
def contradicted(one: Field, other: Field, by: float, contradicts: np.float32, side: int) -> bool:
    """`differ`, in one call; a patch has this `side`."""
    mask = np.empty((min(one.shape[0], other.shape[0]), min(one.shape[1], other.shape[1])), np.bool_)
    share, count = apart(one, other, contradicts, mask)
    return share > by or (count > 0 and patched(mask, side))


@compiled
def averaged(
    field: Field,
    y: int,
    rows: tuple[Places, Places, Field, Field],
    columns: tuple[Places, Places, Field, Field],
    added: Field,
    out: Field,
) -> None:
    """Row `y` of area averages of `field`, into `out`; `added`: room for a row of `field`, at least."""
    height, width, wanted = field.shape[0], field.shape[1], len(out)
    y0, y1, above, below = rows
    x0, x1, left, right = columns
    top, bottom, share = y0[y], y1[y], above[y]
    if height == len(y0):
        for x in range(width):
            added[x] = field[y, x]
    else:
        inner = np.float32(len(y0) / height)
        for x in range(width):
            added[x] = share * field[top, x]
        for v in range(top + 1, bottom):
            for x in range(width):
                added[x] += inner * field[v, x]
        if bottom > top:
            share = below[y]
            for x in range(width):
                added[x] += share * field[bottom, x]
    if width == wanted:
        for x in range(width):
            out[x] = added[x]
        return
    inner = np.float32(wanted / width)
    for x in range(wanted):
        p, q = x0[x], x1[x]
        level = left[x] * added[p]
        for u in range(p + 1, q):
            level += inner * added[u]
        if q > p:
            level += right[x] * added[q]
        out[x] = level


@compiled
def all_apart(one: Field, two: Field, three: Field, no_mask: Mask) -> tuple[float, float, float]:
    """`differences`, in one call."""
    found = np.empty(3, np.float64)
    for i in range(3):
        # In a loop, for where it is called three times it is compiled as often.
        found[i] = apart(two if i == 2 else one, two if i == 0 else three, np.float32(1), no_mask)[0]
    return found[0], found[1], found[2]


@compiled
def patched(mask: Mask, side: int) -> bool:
    """Leave of `mask` whatever hangs together in squares of `side` (odd), and half of one around; is there any?

    An opening with the square, dilated by it; beyond the border all is as the square would have it.
    """
    height, width = mask.shape
    half, wide = side // 2, side - 1
    found = np.zeros((height, width), np.bool_)
    down, since = np.empty(width, np.int32), np.empty(width, np.int32)
    for x in range(width):
        down[x] = since[x] = side
    first, last = height, -1
    # Row by row, how many marked ones end here, in each column; a square's last row is `half` below its middle.
    for v in range(height + half):
        full = 0
        for x in range(width):
            down[x] = min(side, down[x] + 1) if v >= height or mask[v, x] else 0
            full += down[x] == side
        y = v - half
        if y < 0 or not full:
            continue
        across, done = side, 0
        for u in range(width + half):
            across = min(side, across + 1) if u >= width or down[u] == side else 0
            if across == side and u >= half:
                for x in range(max(done, u - half - wide), min(width, u - half + wide + 1)):
                    found[y, x] = True
                done = min(width, u - half + wide + 1)
                first, last = min(first, y), y
    for y in range(height):
        for x in range(width):
            mask[y, x] = False
    for y in range(first, min(height, last + wide + 1)):
        for x in range(width):
            since[x] = 0 if found[y, x] else min(side, since[x] + 1)
            mask[y, x] |= since[x] <= wide
    for x in range(width):
        since[x] = side
    for y in range(last, max(0, first - wide) - 1, -1):
        for x in range(width):
            since[x] = 0 if found[y, x] else min(side, since[x] + 1)
            mask[y, x] |= since[x] <= wide
    return last >= 0


@compiled
def mended(
    best: Field,
    one: Field,
    two: Field,
    confused: bool,
    agree: bool,
    contradicts: np.float32,
    certain: float,
    side: int,
) -> Field:
    """`best` with what the others (of its size) say in patches that are wrong by more than `contradicts`; 0x0: none is.

    Where all are `confused`, whoever is no less `certain` than that has seen what it says. Otherwise what both say
    counts where both see more, and, if they `agree`, where both see less.
    """
    height, width = best.shape
    seen, wrong = np.empty((height, width), np.float32), np.empty((height, width), np.bool_)
    less = wrong
    missed = added = 0
    if confused:
        hear_one, hear_two = fog(one) <= certain, fog(two) <= certain
        for y in range(height):
            for x in range(width):
                most = best[y, x]
                if hear_one:
                    most = max(most, one[y, x])
                if hear_two:
                    most = max(most, two[y, x])
                seen[y, x] = most
                far = most - best[y, x] > contradicts
                wrong[y, x] = far
                missed += far
    else:
        less = np.zeros((height, width), np.bool_)
        half = np.float32(0.5)
        for y in range(height):
            for x in range(width):
                a, b, c = best[y, x], one[y, x], two[y, x]
                seen[y, x] = (b + c) * half
                far = b - a > contradicts and c - a > contradicts
                wrong[y, x] = far
                missed += far
                if agree:
                    far = a - b > contradicts and a - c > contradicts
                    less[y, x] = far
                    added += far
    some = missed > 0 and patched(wrong, side)
    more = added > 0 and patched(less, side)
    if not some and not more:
        return np.empty((0, 0), np.float32)
    for y in range(height):
        for x in range(width):
            if not (some and wrong[y, x]) and not (more and less[y, x]):
                seen[y, x] = best[y, x]
    return seen


@summing
def fog(alpha: Field) -> float:
    """How uncertain `alpha` is: see `Amounts`."""
    total = squares = 0.0
    for y in range(alpha.shape[0]):
        for x in range(alpha.shape[1]):
            wide = np.float64(alpha[y, x])
            total += wide
            squares += wide * wide
    return max(0.0, 1 - squares / total) if total > 0 else 0.0
