"""The matting Laplacian of the pixels of a band, and its product with a picture. Pure; for kernels to call.

A. Levin, D. Lischinski, Y. Weiss: "A Closed-Form Solution to Natural Image Matting", PAMI 2008, equation (12), in
windows of 3x3. Pixels lie in blocks of neighbours, so that the product is that of eight of them at a time: half of what
one after the other takes, all of conjugate gradients in it. Where it counts, indices are unsigned: others Numba takes for counted from the
end, if they are negative, and then no loop is eight pixels wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.compiled import compiled

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

# Pixels of a row that are computed side by side.
LANES = 8
# Neighbours of a pixel that share a window with it lie within this distance.
REACH = 2
# Neighbours of a pixel, itself included.
SQUARE = 25
_NINTH = 1 / 9


@compiled
def blocks(free: Mask) -> tuple[Places, Places]:
    """The free pixels, up to LANES neighbours of a row together: where each block begins, and how many they are.

    Places count in a picture with a margin of REACH.
    """
    height, width = free.shape
    places, lengths = np.empty(free.size, np.int64), np.empty(free.size, np.int64)
    count = 0
    for y in range(height):
        row, length = free[y], 0
        for x in range(width):
            if not row[x]:
                length = 0
                continue
            if length == 0 or length == LANES:
                places[count] = (y + REACH) * (width + 2 * REACH) + x + REACH
                count += 1
                length = 0
            length += 1
            lengths[count - 1] = length
    return places[:count].copy(), lengths[:count].copy()


@compiled
def rows_of(image: Field, places: Places, lengths: Places, epsilon: float) -> Field:
    """Rows of the Laplacian of `image` (HxWx3, 0..1) for the pixels of these blocks, one after the other.

    Of each block 25 x LANES numbers: (dy + 2) * 5 + dx + 2 is the neighbour (dy, dx). Unused lanes are 0. All windows lie
    within the picture.
    """
    height, width = image.shape[:2]
    # What pixels of no block would have goes to one more, which nobody gets.
    size = len(places) * SQUARE * LANES
    rows = np.zeros(size + SQUARE * LANES, np.float32)
    first_of = np.full((height + 2 * REACH, width + 2 * REACH), np.int32(size))
    flat = first_of.ravel()
    for block in range(len(places)):
        for lane in range(lengths[block]):
            flat[places[block] + lane] = block * SQUARE * LANES + lane
    step = np.empty(9, np.uint64)
    for j in range(9):
        step[j] = LANES * (5 * (j // 3) + j % 3)
    nine, middle = np.uint64(9), np.uint64(12 * LANES)
    within = np.empty(9, np.uint64)
    pixel = np.empty((9, 3))
    near = np.empty(first_of.shape[1], np.bool_)
    for y in range(1, height - 1):
        for u in range(near.size):
            near[u] = min(first_of[y + 1, u], first_of[y + 2, u], first_of[y + 3, u]) < size
        for x in range(1, width - 1):
            if not (near[x + 1] or near[x + 2] or near[x + 3]):
                continue
            m0 = m1 = m2 = 0.0
            for j in range(9):
                within[j] = first_of[y + j // 3 + 1, x + j % 3 + 1]
                v, u = y + j // 3 - 1, x + j % 3 - 1
                pixel[j, 0], pixel[j, 1], pixel[j, 2] = image[v, u, 0], image[v, u, 1], image[v, u, 2]
                m0 += pixel[j, 0]
                m1 += pixel[j, 1]
                m2 += pixel[j, 2]
            m0, m1, m2 = m0 / 9, m1 / 9, m2 / 9
            a = b = c = d = e = f = 0.0
            for j in range(9):
                p, q, r = pixel[j, 0] - m0, pixel[j, 1] - m1, pixel[j, 2] - m2
                pixel[j, 0], pixel[j, 1], pixel[j, 2] = p, q, r
                a += p * p
                b += p * q
                c += p * r
                d += q * q
                e += q * r
                f += r * r
            a, b, c = a / 9 + epsilon / 9, b / 9, c / 9
            d, e, f = d / 9 + epsilon / 9, e / 9, f / 9 + epsilon / 9
            ia, ib, ic = d * f - e * e, c * e - b * f, b * e - c * d
            id_, ie, if_ = a * f - c * c, b * c - a * e, a * d - b * b
            share = 1 / (9 * (a * ia + b * ib + c * ic))
            for i in range(nine):
                own = within[i] + middle
                p, q, r = pixel[i, 0], pixel[i, 1], pixel[i, 2]
                p, q, r = (
                    (ia * p + ib * q + ic * r) * share,
                    (ib * p + id_ * q + ie * r) * share,
                    (ic * p + ie * q + if_ * r) * share,
                )
                alike = np.float32(_NINTH + (p * pixel[i, 0] + q * pixel[i, 1] + r * pixel[i, 2]))
                rows[own] += np.float32(1) - alike
                # One is to the other as the other to the one.
                for j in range(i + np.uint64(1), nine):
                    other, apart = within[j] + middle, step[j] - step[i]
                    alike = np.float32(_NINTH + (p * pixel[j, 0] + q * pixel[j, 1] + r * pixel[j, 2]))
                    rows[own + apart] -= alike
                    rows[other - apart] -= alike
    return rows[:size]


@compiled
def times(
    rows: Field, places: Places, width: int, vector: Field, trusted: Field, out: Field, lanes: int
) -> None:
    """(L + trusted) `vector`, for each lane of each block. `vector`: a picture `width` wide, with room for LANES after its end.

    `lanes`: LANES, but untold: a loop whose length is known becomes none, and computes one pixel after the other.
    """
    wide, eight = np.uint64(width), np.uint64(LANES)
    for block in range(np.uint64(len(places))):
        p0 = np.uint64(places[block]) - np.uint64(2) * wide - np.uint64(2)
        p1, p2, p3, p4 = (
            p0 + wide,
            p0 + np.uint64(2) * wide,
            p0 + np.uint64(3) * wide,
            p0 + np.uint64(4) * wide,
        )
        q, o = block * np.uint64(SQUARE) * eight, block * eight
        for lane in range(np.uint64(lanes)):
            r = q + lane
            # Five sums side by side: of one, each addition would wait for the one before.
            a = rows[r] * vector[p0 + lane]
            b = rows[r + eight] * vector[p0 + np.uint64(1) + lane]
            c = rows[r + np.uint64(2) * eight] * vector[p0 + np.uint64(2) + lane]
            d = rows[r + np.uint64(3) * eight] * vector[p0 + np.uint64(3) + lane]
            e = rows[r + np.uint64(4) * eight] * vector[p0 + np.uint64(4) + lane]
            a += rows[r + np.uint64(5) * eight] * vector[p1 + lane]
            b += rows[r + np.uint64(6) * eight] * vector[p1 + np.uint64(1) + lane]
            c += rows[r + np.uint64(7) * eight] * vector[p1 + np.uint64(2) + lane]
            d += rows[r + np.uint64(8) * eight] * vector[p1 + np.uint64(3) + lane]
            e += rows[r + np.uint64(9) * eight] * vector[p1 + np.uint64(4) + lane]
            a += rows[r + np.uint64(10) * eight] * vector[p2 + lane]
            b += rows[r + np.uint64(11) * eight] * vector[p2 + np.uint64(1) + lane]
            there = vector[p2 + np.uint64(2) + lane]
            c += rows[r + np.uint64(12) * eight] * there
            d += rows[r + np.uint64(13) * eight] * vector[p2 + np.uint64(3) + lane]
            e += rows[r + np.uint64(14) * eight] * vector[p2 + np.uint64(4) + lane]
            a += rows[r + np.uint64(15) * eight] * vector[p3 + lane]
            b += rows[r + np.uint64(16) * eight] * vector[p3 + np.uint64(1) + lane]
            c += rows[r + np.uint64(17) * eight] * vector[p3 + np.uint64(2) + lane]
            d += rows[r + np.uint64(18) * eight] * vector[p3 + np.uint64(3) + lane]
            e += rows[r + np.uint64(19) * eight] * vector[p3 + np.uint64(4) + lane]
            a += rows[r + np.uint64(20) * eight] * vector[p4 + lane]
            b += rows[r + np.uint64(21) * eight] * vector[p4 + np.uint64(1) + lane]
            c += rows[r + np.uint64(22) * eight] * vector[p4 + np.uint64(2) + lane]
            d += rows[r + np.uint64(23) * eight] * vector[p4 + np.uint64(3) + lane]
            e += rows[r + np.uint64(24) * eight] * vector[p4 + np.uint64(4) + lane]
            out[o + lane] = (a + b) + (d + e) + c + trusted[o + lane] * there
