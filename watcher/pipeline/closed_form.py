"""Closed-form matting of a narrow band around a contour. Pure.

Own kernels, after A. Levin, D. Lischinski, Y. Weiss: "A Closed-Form Solution to Natural Image
Matting", PAMI 2008. Everything outside the band is held: unguarded, the method spreads the
smallest doubt of an engine over whole bodies, and people in groups turn to glass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.band import SOFT, band
from watcher.pipeline.compiled import compiled
from watcher.pipeline.fields import enlarged, halved
from watcher.pipeline.laplacian import LANES, REACH, SQUARE, Places, blocks, rows_of, times

Field = NDArray[np.float32]

# For colours in 0..1; between 1e-8 and 3e-6 it hardly matters. 1e-5 halves what the method gains.
_EPSILON = 1e-6
# How much the engine's word counts, against one row of the Laplacian, where it is in doubt and where not.
_TRUST, _TRUST_SURE = np.float32(3e-3), np.float32(3e-2)
# Solved at half the size first, what is left to do here is local, and few steps do it: 50 take 1 %
# more off the error, and twice the time.
_STEPS, _STEPS_SMALL = 15, 80
_SMALL = 96
# On a grid as large as this, distances to the contour are measured at half its size; on smaller ones single hairs show it.
_COARSE_FROM = 640


def solve(image: Field, alpha: Field) -> Field:
    """`alpha` (HxW, 0..1) with the contour at 0.5 redrawn along the edges of `image` (HxWx3, 0..1).

    Pixels further from that contour than 1 % of the short side keep their value, soft ones those
    beyond 4 %. About 25 bytes for each pixel, and 170 for each of the band: six in a block of eight, as a rule.
    """
    # Another layout would be another signature to compile.
    return solved(np.ascontiguousarray(image), np.ascontiguousarray(alpha))


@compiled
def solved(image: Field, alpha: Field) -> Field:
    """`solve` in one call: forty would each let go of the GIL and want it back."""
    height, width = alpha.shape
    inside = 0
    for y in range(height):
        for x in range(width):
            inside += alpha[y, x] > np.float32(0.5)
    if min(height, width) <= REACH or inside == 0 or inside == height * width:
        return alpha
    images, alphas = [image], [alpha]
    while min(alphas[-1].shape) >= 2 * _SMALL:
        images.append(halved(images[-1]))
        large = alphas[-1]
        small = halved(large.reshape((*large.shape, 1)))
        alphas.append(small.reshape(small.shape[:2]))
    found = alphas[-1]
    for level in range(len(alphas) - 1, -1, -1):
        given = alphas[level]
        change, steps, seen, halvings = np.empty((0, 0), np.float32), _STEPS_SMALL, given, 0
        if level + 1 < len(alphas):
            change, steps = enlarged(less(found, alphas[level + 1]), given.shape[0], given.shape[1]), _STEPS
            if min(given.shape) >= _COARSE_FROM:
                seen, halvings = alphas[level + 1], 1
        free, crossed = band(given, seen, halvings)
        if not crossed:
            found = given
            continue
        # From where `change`, which may be empty, has brought them.
        places, lengths = blocks(free)
        rows = rows_of(images[level], places, lengths, _EPSILON)
        found = descend(rows, places, lengths, given, change, steps)
    return found


def warm_up() -> None:
    """Compile what `solve` needs."""
    alpha = np.zeros((8, 8), np.float32)
    alpha[:, 4:] = 1
    solve(np.zeros((8, 8, 3), np.float32), alpha)


@compiled
def less(one: Field, other: Field) -> Field:
    """`one` less `other`, both HxW."""
    out = np.empty(one.shape, np.float32)
    for y in range(one.shape[0]):
        for x in range(one.shape[1]):
            out[y, x] = one[y, x] - other[y, x]
    return out


@compiled
def trust(alpha: np.float32) -> np.float32:
    """How much of an `alpha` stays: more where it is nearly 0 or 1."""
    return _TRUST if alpha > SOFT and alpha < np.float32(1) - SOFT else _TRUST_SURE


@compiled
def descend(rows: Field, places: Places, lengths: Places, alpha: Field, change: Field, steps: int) -> Field:
    """`steps` of conjugate gradients from alpha + change towards (L + t) x = t alpha, t the trust.

    Jacobi's preconditioner. Only the pixels of the blocks move; what lies around them is a known value. `alpha` and `change`
    are HxW, `change` may be empty; what is returned lies within 0..1. Lanes that no pixel uses stay 0.
    """
    height, width = alpha.shape
    wide, count = width + 2 * REACH, len(places) * LANES
    lanes = rows.size // max(1, SQUARE * len(places))  # for `times`, untold
    # With a margin, what is multiplied; without, what is known of each lane.
    picture = np.zeros((height + 2 * REACH) * wide + LANES, np.float32)
    x, direction = np.zeros(count, np.float32), np.zeros(count, np.float32)
    trusted, inverse = np.zeros(count, np.float32), np.zeros(count, np.float32)
    residual, image_of = np.zeros(count, np.float32), np.empty(count, np.float32)
    for v in range(height):
        for u in range(width):
            picture[(v + REACH) * wide + u + REACH] = alpha[v, u]
    for block in range(len(places)):
        v, u = places[block] // wide - REACH, places[block] % wide - REACH
        for lane in range(lengths[block]):
            i = block * LANES + lane
            trusted[i] = trust(alpha[v, u + lane])
            inverse[i] = 1 / (rows[(block * SQUARE + 12) * LANES + lane] + trusted[i])
            residual[i] = trusted[i] * alpha[v, u + lane]
            x[i] = alpha[v, u + lane] + change[v, u + lane] if change.size else alpha[v, u + lane]
    lay(x, places, lengths, picture)
    times(rows, places, wide, picture, trusted, image_of, lanes)
    picture[:] = np.float32(0)
    for i in range(count):
        residual[i] -= image_of[i]
        direction[i] = inverse[i] * residual[i]
    energy = summed(residual, direction)
    for _ in range(steps):
        lay(direction, places, lengths, picture)
        times(rows, places, wide, picture, trusted, image_of, lanes)
        curvature = summed(image_of, direction)
        if curvature <= 1e-12:
            break
        length = np.float32(energy / curvature)
        for i in range(count):
            x[i] += length * direction[i]
            residual[i] -= length * image_of[i]
            image_of[i] = inverse[i] * residual[i]
        before, energy = energy, summed(residual, image_of)
        turn = np.float32(energy / before)
        for i in range(count):
            direction[i] = image_of[i] + turn * direction[i]
    found = alpha.copy()
    for block in range(len(places)):
        v, u = places[block] // wide - REACH, places[block] % wide - REACH
        for lane in range(lengths[block]):
            found[v, u + lane] = min(np.float32(1), max(np.float32(0), x[block * LANES + lane]))
    return found


@compiled
def lay(values: Field, places: Places, lengths: Places, picture: Field) -> None:
    """Each lane's value to where its pixel is."""
    for block in range(len(places)):
        for lane in range(lengths[block]):
            picture[places[block] + lane] = values[block * LANES + lane]


@compiled
def summed(one: Field, other: Field) -> float:
    """The sum of one * other, in double precision."""
    # Four sums side by side: of one, each addition would wait for the one before.
    a = b = c = d = 0.0
    for i in range(0, one.size - 3, 4):
        a += float(one[i]) * other[i]
        b += float(one[i + 1]) * other[i + 1]
        c += float(one[i + 2]) * other[i + 2]
        d += float(one[i + 3]) * other[i + 3]
    return a + b + c + d
