"""The contour finds the photo's edges, and nothing but the contour moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from watcher.pipeline import band, closed_form, laplacian
from watcher.pipeline.refine import refine


def scene(height=300, width=260, *, blur=1.5):
    """(image, alpha): two coloured discs that touch, before a gradient; exact by construction."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    discs = (np.hypot(x - 90, y - 150) < 60) | (np.hypot(x - 170, y - 160) < 55)
    alpha = cv2.GaussianBlur(discs.astype(np.float32), (0, 0), blur)
    front = np.dstack([0.8 - 0.1 * x / width, 0.3 + 0.1 * y / height, np.full_like(x, 0.2)])
    back = np.dstack([0.1 + 0.1 * y / height, 0.4 - 0.1 * x / width, np.full_like(x, 0.5)])
    image = alpha[..., None] * front + (1 - alpha[..., None]) * back
    return np.ascontiguousarray(image, np.float32), alpha


def engine_like(alpha, *, shift=1.0, blur=2.0):
    """What an engine makes of it: a little beside, and softer."""
    moved = cv2.warpAffine(alpha, np.float32([[1, 0, shift], [0, 1, 0]]), alpha.shape[::-1])
    return cv2.GaussianBlur(moved, (0, 0), blur)


def test_a_contour_beside_the_edge_is_brought_back_to_it():
    image, truth = (cv2.resize(part, None, fx=2.5, fy=2.5) for part in scene(blur=0.6))
    given = engine_like(truth)
    error, before = (np.abs(alpha - truth).sum() for alpha in (closed_form.solve(image, given), given))
    assert error < 0.5 * before


def test_it_comes_near_the_least_squares_solution():
    """The same system, assembled from the kernel's rows and solved densely."""
    image, truth = scene()
    image, given = np.ascontiguousarray(image[80:130, 30:80]), engine_like(truth)[80:130, 30:80].copy()
    free, _ = band.band(given, given, 0)
    places = np.flatnonzero(np.pad(free, 2))
    starts, lengths = laplacian.blocks(free)
    lanes = starts[:, None] + np.arange(laplacian.LANES)
    used = np.arange(laplacian.LANES) < lengths[:, None]
    assert np.array_equal(lanes[used], places), "every free pixel has a lane, in order"
    blocks = laplacian.rows_of(image, starts, lengths, 1e-6).reshape(len(starts), 25, laplacian.LANES)
    rows = blocks.transpose(0, 2, 1)[used]
    assert not blocks.transpose(0, 2, 1)[~used].any()
    assert np.abs(rows.sum(1)).max() < 1e-4, "a Laplacian's rows add up to nothing"
    around = [(dy - 2) * 54 + dx - 2 for dy in range(5) for dx in range(5)]
    full = np.zeros((places.size, 54 * 54))
    for column, offset in enumerate(around):
        full[np.arange(places.size), np.clip(places + offset, 0, 54 * 54 - 1)] += rows[:, column]
    matrix = full[:, places]
    assert np.allclose(matrix, matrix.T, atol=1e-4)
    held = np.pad(given, 2).ravel().astype(np.float64)
    held[places] = 0
    trusted = np.array([closed_form.trust(value) for value in given[free]], np.float64)
    right = trusted * given[free] - full @ held
    vector = np.random.default_rng(1).random(54 * 54 + laplacian.LANES, dtype=np.float32)
    weights, product = np.zeros(lanes.size, np.float32), np.empty(lanes.size, np.float32)
    weights.reshape(lanes.shape)[used] = trusted
    laplacian.times(blocks.ravel(), starts, 54, vector, weights, product, laplacian.LANES)
    multiplied = full @ vector[: 54 * 54] + trusted * vector[places]
    assert np.allclose(product.reshape(lanes.shape)[used], multiplied, atol=1e-4)
    assert not product.reshape(lanes.shape)[~used].any()
    exact = np.linalg.solve(matrix + np.diag(trusted), right)
    assert np.abs(closed_form.solve(image, given)[free] - np.clip(exact, 0, 1)).mean() < 0.01


def test_what_is_far_from_the_contour_keeps_its_value_soft_or_not():
    image, truth = scene()
    given = engine_like(truth)
    given[140:170, 70:100] = 0.8  # a doubt in the middle of a body
    given[5:20, 5:20] = 0.3  # and one beside it
    solved = closed_form.solve(image, given)
    far = ~band.band(given, given, 0)[0]
    assert np.array_equal(solved[far], given[far])
    assert far[140:170, 70:100].all() and far[5:20, 5:20].all()


@pytest.mark.parametrize("body", [0.55, 0.8, 0.97])
def test_people_in_a_group_do_not_turn_to_glass(body, frame_of):
    """Bodies an engine doubts, in the colours of what is behind them: unguarded they dissolve."""
    image, truth = scene()
    image[:, 130:] = image[:, 130:].mean((0, 1))
    given = truth * body
    pixels = np.rint(image * 255).astype(np.uint8)
    refined = refine(frame_of(pixels), given, method="closed_form", decontaminate=False, side=256)
    inside = cv2.erode((truth > 0.99).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    assert refined.alpha[inside].min() >= 255 * body - 3


def test_nor_do_they_beside_one_who_is_sure():
    """A doubted body touches a sure one: what is soft within it, beyond the contour, is held."""
    image, truth = scene()
    image[:, 130:] = image[:, 130:].mean((0, 1))
    given = truth.copy()
    given[:, 130:] *= 0.6
    solved = closed_form.solve(image, given)
    inside = cv2.erode((truth > 0.99).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    inside[:, :150] = False
    assert inside.sum() > 4000
    assert np.array_equal(solved[inside], given[inside])


def test_hair_beyond_the_contour_is_found():
    """Strands an engine takes for a haze, further out than contours are redrawn."""
    image, truth = scene(600, 520)
    beyond = np.zeros_like(truth)
    for x in range(60, 120, 6):
        beyond[76:96, x : x + 2] = 1  # up to 4 % of the short side above the disc
    hairy = np.maximum(truth, cv2.GaussianBlur(beyond, (0, 0), 0.5))
    image = (image + (hairy - truth)[..., None] * ([0.8, 0.3, 0.2] - image)).astype(np.float32)
    haze = np.maximum(engine_like(truth), cv2.GaussianBlur(beyond, (0, 0), 6))
    there = beyond > 0
    there[:, :60] = False
    free, _ = band.band(haze, haze, 0)
    assert free[there].mean() > 0.9
    solved = closed_form.solve(image, haze)
    assert np.abs(solved - hairy)[70:90, 55:125].mean() < 0.7 * np.abs(haze - hairy)[70:90, 55:125].mean()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 3), (5, 4), (33, 7), (191, 193), (200, 401)])
def test_any_shape_and_any_alpha_stay_finite(shape):
    chance = np.random.default_rng(1)
    noise = chance.random((*shape, 3), dtype=np.float32)
    for image in (noise, np.zeros_like(noise), np.ones_like(noise)):
        for alpha in (np.zeros(shape, np.float32), np.ones(shape, np.float32), noise[..., 0]):
            solved = closed_form.solve(image, alpha)
            assert solved.shape == shape and solved.dtype == np.float32
            assert np.isfinite(solved).all() and solved.min() >= 0 and solved.max() <= 1
            if alpha.min() == alpha.max():
                assert np.array_equal(solved, alpha)


def test_the_same_photo_gives_the_same_bytes():
    image, truth = scene()
    given = engine_like(truth)
    assert closed_form.solve(image, given).tobytes() == closed_form.solve(image, given).tobytes()


def test_the_photo_and_the_alpha_are_left_as_they_were():
    image, truth = scene()
    given = engine_like(truth)
    before = image.tobytes(), given.tobytes()
    closed_form.solve(image, given)
    assert (image.tobytes(), given.tobytes()) == before
