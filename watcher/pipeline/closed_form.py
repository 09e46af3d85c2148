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

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

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
# Neighbours of a pixel that share a 3x3 window with it lie within this distance.
_REACH = 2


def solve(image: Field, alpha: Field) -> Field:
    """`alpha` (HxW, 0..1) with the contour at 0.5 redrawn along the edges of `image` (HxWx3, 0..1).

    Pixels further from that contour than 1 % of the short side keep their value, soft ones those
    beyond 4 %. About 25 bytes for each pixel, and 120 for each of the band.
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
    if min(height, width) <= _REACH or inside == 0 or inside == height * width:
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
        number, places, padded = framed(free, given)
        start = np.empty(places.size, np.float32)
        for i in range(places.size):
            y, x = places[i] // padded.shape[1] - _REACH, places[i] % padded.shape[1] - _REACH
            start[i] = given[y, x] + change[y, x] if change.size else given[y, x]
        rows = laplacian_rows(images[level], number, places.size, _EPSILON)
        found = descend(rows, places, padded, start, steps)
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
def framed(free: Mask, alpha: Field) -> tuple[NDArray[np.int32], NDArray[np.int64], Field]:
    """Number of each free pixel, -1 elsewhere; where these lie; `alpha`. All with a margin of 2, of 0."""
    height, width = alpha.shape
    wide = width + 2 * _REACH
    number = np.empty((height + 2 * _REACH, wide), np.int32)
    for y in range(number.shape[0]):
        for x in range(wide):
            number[y, x] = -1
    padded = np.zeros((height + 2 * _REACH, wide), np.float32)
    places = np.empty(height * width, np.int64)
    count = 0
    for y in range(height):
        for x in range(width):
            padded[y + _REACH, x + _REACH] = alpha[y, x]
            if free[y, x]:
                number[y + _REACH, x + _REACH] = count
                places[count] = (y + _REACH) * wide + x + _REACH
                count += 1
    return number, places[:count].copy(), padded


@compiled
def trust(alpha: np.float32) -> np.float32:
    """How much of an `alpha` stays: more where it is nearly 0 or 1."""
    return _TRUST if alpha > SOFT and alpha < np.float32(1) - SOFT else _TRUST_SURE


@compiled
def laplacian_rows(image: Field, number: NDArray[np.int32], count: int, epsilon: float) -> Field:
    """Rows of the matting Laplacian, equation (12): `count` x 25.

    Column (dy + 2) * 5 + dx + 2 belongs to the neighbour (dy, dx); all windows are 3x3 and lie
    within the picture. `number`, with a margin of 2, is the row of each pixel, -1 where it has none.
    """
    height, width = image.shape[:2]
    rows = np.zeros((count, 25), np.float32)
    flat = rows.ravel()
    step = np.empty(9, np.int64)
    for j in range(9):
        step[j] = 5 * (j // 3) + j % 3
    within = np.empty(9, np.int32)
    pixel = np.empty((9, 3))
    spread = np.empty((9, 3))
    near = np.empty(number.shape[1], np.bool_)
    for y in range(1, height - 1):
        for u in range(near.size):
            # -1 is the only negative number.
            near[u] = (number[y + 1, u] & number[y + 2, u] & number[y + 3, u]) != -1
        for x in range(1, width - 1):
            if not (near[x + 1] or near[x + 2] or near[x + 3]):
                continue
            for j in range(9):
                within[j] = number[y + j // 3 + 1, x + j % 3 + 1]
            m0 = m1 = m2 = 0.0
            for j in range(9):
                v, u = y + j // 3 - 1, x + j % 3 - 1
                pixel[j, 0], pixel[j, 1], pixel[j, 2] = image[v, u, 0], image[v, u, 1], image[v, u, 2]
                m0 += pixel[j, 0]
                m1 += pixel[j, 1]
                m2 += pixel[j, 2]
            m0, m1, m2 = m0 / 9, m1 / 9, m2 / 9
            a = b = c = d = e = f = 0.0
            for j in range(9):
                pixel[j, 0] -= m0
                pixel[j, 1] -= m1
                pixel[j, 2] -= m2
                a += pixel[j, 0] * pixel[j, 0]
                b += pixel[j, 0] * pixel[j, 1]
                c += pixel[j, 0] * pixel[j, 2]
                d += pixel[j, 1] * pixel[j, 1]
                e += pixel[j, 1] * pixel[j, 2]
                f += pixel[j, 2] * pixel[j, 2]
            a, b, c = a / 9 + epsilon / 9, b / 9, c / 9
            d, e, f = d / 9 + epsilon / 9, e / 9, f / 9 + epsilon / 9
            ia, ib, ic = d * f - e * e, c * e - b * f, b * e - c * d
            id_, ie, if_ = a * f - c * c, b * c - a * e, a * d - b * b
            share = 1.0 / (a * ia + b * ib + c * ic)
            for j in range(9):
                p, q, r = pixel[j, 0], pixel[j, 1], pixel[j, 2]
                spread[j, 0] = (ia * p + ib * q + ic * r) * share
                spread[j, 1] = (ib * p + id_ * q + ie * r) * share
                spread[j, 2] = (ic * p + ie * q + if_ * r) * share
            for i in range(9):
                if within[i] < 0:
                    continue
                p, q, r = spread[i, 0], spread[i, 1], spread[i, 2]
                first = 25 * np.int64(within[i]) + 12 - step[i]
                for j in range(9):
                    alike = p * pixel[j, 0] + q * pixel[j, 1] + r * pixel[j, 2]
                    flat[first + step[j]] -= np.float32((1.0 + alike) / 9)
                flat[first + step[i]] += np.float32(1)
    return rows


@compiled
def descend(rows: Field, places: NDArray[np.int64], alpha: Field, start: Field, steps: int) -> Field:
    """`steps` of conjugate gradients from `start` towards (L + t) x = t alpha, t the trust.

    Jacobi's preconditioner. Only `places` move; what lies around them is a known value. `start` has one value for each of
    these, `alpha` a margin of 2; what is returned has none, and lies within 0..1.
    """
    count, width = places.size, alpha.shape[1]
    found = alpha.copy()
    x, held, direction = found.ravel(), alpha.ravel(), np.zeros(alpha.size, np.float32)
    trusted = np.empty(count, np.float32)
    inverse = np.empty(count, np.float32)
    residual = np.empty(count, np.float32)
    image_of = np.empty(count, np.float32)
    for i in range(count):
        x[places[i]] = start[i]
        trusted[i] = trust(held[places[i]])
        inverse[i] = 1 / (rows[i, 12] + trusted[i])
    energy = 0.0
    for i in range(count):
        pull = trusted[i] * (held[places[i]] - x[places[i]])
        residual[i] = pull - product(rows, i, places[i], width, x)
        direction[places[i]] = inverse[i] * residual[i]
        energy += float(residual[i]) * inverse[i] * residual[i]
    for _ in range(steps):
        curvature = 0.0
        for i in range(count):
            there = direction[places[i]]
            image_of[i] = product(rows, i, places[i], width, direction) + trusted[i] * there
            curvature += float(image_of[i]) * there
        if curvature <= 1e-12:
            break
        length = np.float32(energy / curvature)
        before, energy = energy, 0.0
        for i in range(count):
            x[places[i]] += length * direction[places[i]]
            residual[i] -= length * image_of[i]
            energy += float(residual[i]) * inverse[i] * residual[i]
        turn = np.float32(energy / before)
        for i in range(count):
            direction[places[i]] = inverse[i] * residual[i] + turn * direction[places[i]]
    inner = np.empty((alpha.shape[0] - 2 * _REACH, width - 2 * _REACH), np.float32)
    for v in range(inner.shape[0]):
        for u in range(inner.shape[1]):
            inner[v, u] = min(np.float32(1), max(np.float32(0), found[v + _REACH, u + _REACH]))
    return inner


@compiled
def product(rows: Field, row: int, place: int, width: int, vector: Field) -> np.float32:
    """One row of the Laplacian times `vector`."""
    # Five sums side by side: of one, each addition would wait for the one before.
    a = b = c = d = e = np.float32(0)
    for dy in range(5):
        column, first = 5 * dy, place + (dy - 2) * width - 2
        a += rows[row, column] * vector[first]
        b += rows[row, column + 1] * vector[first + 1]
        c += rows[row, column + 2] * vector[first + 2]
        d += rows[row, column + 3] * vector[first + 3]
        e += rows[row, column + 4] * vector[first + 4]
    return (a + b) + (d + e) + c
