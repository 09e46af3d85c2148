"""Closed-form matting of a narrow band around a contour. Pure.

Own kernels, after A. Levin, D. Lischinski, Y. Weiss: "A Closed-Form Solution to Natural Image
Matting", PAMI 2008. Everything outside the band is held: unguarded, the method spreads the
smallest doubt of an engine over whole bodies, and people in groups turn to glass.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.compiled import compiled
from watcher.pipeline.scale import resized

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Of the short side, to each side of the contour, sure pixels and all ...
_BAND = 0.01
# ... and soft ones only, for curls reach further than contours err: those that have a sure pixel of both
# kinds within twice that. Hair has; a body that an engine only half believes in has not, and is held.
_BAND_SOFT = 0.04
_SOFT, _SURE = 0.03, 0.05
# For colours in 0..1; between 1e-8 and 3e-6 it hardly matters. 1e-5 halves what the method gains.
_EPSILON = 1e-6
# How much the engine's word counts, against one row of the Laplacian, where it is in doubt and where not.
_TRUST, _TRUST_SURE = np.float32(3e-3), np.float32(3e-2)
# Solved at half the size first, what is left to do here is local, and few steps do it: 50 take 1 %
# more off the error, and twice the time.
_STEPS, _STEPS_SMALL = 15, 80
_SMALL = 96
# Neighbours of a pixel that share a 3x3 window with it lie within this distance.
_REACH = 2


def solve(image: Field, alpha: Field) -> Field:
    """`alpha` (HxW, 0..1) with the contour at 0.5 redrawn along the edges of `image` (HxWx3, 0..1).

    Pixels further from that contour than 1 % of the short side keep their value, soft ones those
    beyond 4 %. About 25 bytes for each pixel, and 120 for each of the band.
    """
    height, width = alpha.shape
    if min(height, width) < 3 or not (places := _padded_places(band(alpha))).size:
        return alpha
    start = alpha
    if min(height, width) >= 2 * _SMALL:
        half = (width // 2, height // 2)
        small = resized(alpha, half)
        start = alpha + _enlarged(solve(resized(image, half), small) - small, (width, height))
    steps = _STEPS if start is not alpha else _STEPS_SMALL
    number = np.full((height + 2 * _REACH, width + 2 * _REACH), -1, np.int32)
    number.ravel()[places] = np.arange(places.size, dtype=np.int32)
    rows = laplacian_rows(np.ascontiguousarray(image), number, places.size, _EPSILON)
    padded, begin, trusted = (np.pad(field, _REACH) for field in (alpha, start, trust(alpha)))
    solved = descend(rows, places, padded, begin, trusted, steps)
    inner = slice(_REACH, -_REACH)
    return cast(Field, np.clip(solved[inner, inner], 0, 1))


def warm_up() -> None:
    """Compile what `solve` needs."""
    alpha = np.zeros((8, 8), np.float32)
    alpha[:, 4:] = 1
    solve(np.zeros((8, 8, 3), np.float32), alpha)


def _padded_places(free: Mask) -> NDArray[np.int64]:
    return np.flatnonzero(np.pad(free, _REACH))


def _enlarged(field: Field, size: tuple[int, int]) -> Field:
    return cast(Field, cv2.resize(field, size, interpolation=cv2.INTER_LINEAR))


def band(alpha: Field) -> Mask:
    """The pixels near the contour at 0.5, and the soft ones not far from it; none where there is no contour."""
    inside = alpha > 0.5
    if inside.all() or not inside.any():
        return np.zeros(alpha.shape, bool)
    short = min(alpha.shape)
    away = _distance(inside) + _distance(~inside)
    soft = (alpha > _SOFT) & (alpha < 1 - _SOFT) & (away <= _BAND_SOFT * short)
    if soft.any():
        for sure in (alpha < _SURE, alpha > 1 - _SURE):
            soft &= _distance(sure) <= 2 * _BAND_SOFT * short if sure.any() else False
    return cast(Mask, (away <= max(2.0, _BAND * short)) | soft)


def _distance(places: Mask) -> Field:
    """From each pixel to the nearest of `places`."""
    return cast(Field, cv2.distanceTransform((~places).astype(np.uint8), cv2.DIST_L2, 3))


def trust(alpha: Field) -> Field:
    """How much of `alpha` stays, for each pixel: more where it is nearly 0 or 1."""
    return np.where((alpha > _SOFT) & (alpha < 1 - _SOFT), _TRUST, _TRUST_SURE)


@compiled
def laplacian_rows(image: Field, number: NDArray[np.int32], count: int, epsilon: float) -> Field:
    """Rows of the matting Laplacian, equation (12): `count` x 25.

    Column (dy + 2) * 5 + dx + 2 belongs to the neighbour (dy, dx); all windows are 3x3 and lie
    within the picture. `number`, with a margin of 2, is the row of each pixel, -1 where it has none.
    """
    height, width = image.shape[:2]
    rows = np.zeros((count, 25), np.float32)
    pixel = np.empty((9, 3))
    spread = np.empty((9, 3))
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            touched = False
            for j in range(9):
                if number[y + j // 3 + 1, x + j % 3 + 1] >= 0:
                    touched = True
                    break
            if not touched:
                continue
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
                row = number[y + i // 3 + 1, x + i % 3 + 1]
                if row < 0:
                    continue
                for j in range(9):
                    alike = (
                        spread[i, 0] * pixel[j, 0] + spread[i, 1] * pixel[j, 1] + spread[i, 2] * pixel[j, 2]
                    )
                    column = (j // 3 - i // 3 + 2) * 5 + j % 3 - i % 3 + 2
                    rows[row, column] += (1.0 if i == j else 0.0) - (1.0 + alike) / 9
    return rows


@compiled
def descend(
    rows: Field, places: NDArray[np.int64], alpha: Field, start: Field, trust: Field, steps: int
) -> Field:
    """`steps` of conjugate gradients from `start` towards (L + t) x = t alpha, t the `trust`.

    Jacobi's preconditioner. Only `places` move; what lies around them is a known value.
    """
    count, width = places.size, alpha.shape[1]
    found = alpha.copy()
    x, held, direction = found.ravel(), alpha.ravel(), np.zeros(alpha.size, np.float32)
    begin, trusted = start.ravel(), trust.ravel()
    inverse = np.empty(count, np.float32)
    residual = np.empty(count, np.float32)
    image_of = np.empty(count, np.float32)
    for i in range(count):
        x[places[i]] = begin[places[i]]
        inverse[i] = 1 / (rows[i, 12] + trusted[places[i]])
    energy = 0.0
    for i in range(count):
        pull = trusted[places[i]] * (held[places[i]] - x[places[i]])
        residual[i] = pull - product(rows, i, places[i], width, x)
        direction[places[i]] = inverse[i] * residual[i]
        energy += float(residual[i]) * inverse[i] * residual[i]
    for _ in range(steps):
        curvature = 0.0
        for i in range(count):
            there = direction[places[i]]
            image_of[i] = product(rows, i, places[i], width, direction) + trusted[places[i]] * there
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
    return found


@compiled
def product(rows: Field, row: int, place: int, width: int, vector: Field) -> np.float32:
    """One row of the Laplacian times `vector`."""
    total = np.float32(0)
    for dy in range(5):
        first = place + (dy - 2) * width - 2
        for dx in range(5):
            total += rows[row, dy * 5 + dx] * vector[first + dx]
    return total
