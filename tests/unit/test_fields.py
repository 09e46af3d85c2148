"""Halved, enlarged and measured as OpenCV does it, which kernels cannot call."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from watcher.pipeline import band
from watcher.pipeline.distance import PIXEL
from watcher.pipeline.fields import enlarged, halved

SHAPES = [(2, 2), (3, 2), (3, 5), (64, 48), (65, 48), (64, 47), (191, 193)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("depth", [1, 3])
def test_half_the_size_is_area_averages(shape, depth):
    field = np.random.default_rng(1).random((*shape, depth), dtype=np.float32)
    half = shape[1] // 2, shape[0] // 2
    wanted = cv2.resize(field, half, interpolation=cv2.INTER_AREA).reshape(half[1], half[0], depth)
    assert np.abs(halved(field) - wanted).max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("more", [0, 1])
def test_twice_the_size_is_bilinear(shape, more):
    field = np.random.default_rng(2).random(shape, dtype=np.float32)
    height, width = 2 * shape[0] + more, 2 * shape[1] + more
    wanted = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.abs(enlarged(field, height, width) - wanted).max() < 1e-5


def _blobs(shape: tuple[int, int], blur: float = 4) -> np.ndarray:
    noise = np.random.default_rng(3).random(shape, dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), blur)
    return np.clip((smooth - smooth.mean()) / (smooth.std() + 1e-6) + 0.5, 0, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (7, 7), (120, 150)])
def test_distances_are_those_of_opencv(shape):
    alpha = _blobs(shape)
    inside = alpha > 0.5
    to_inside = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 3)
    to_outside = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
    away, crossed = band.to_other_side(alpha)
    assert crossed == (inside.any() and not inside.all())
    if crossed:
        assert np.abs(away / PIXEL - (to_inside + to_outside)).max() < 1e-3
    sure = np.float32(0.05)
    for levels, there in (((-sure, 1 - sure), alpha > 0.95), ((sure, 1 + sure), alpha < 0.05)):
        if there.any():
            wanted = cv2.distanceTransform((~there).astype(np.uint8), cv2.DIST_L2, 3)
            assert np.abs(band.to_sure(alpha, *levels) / PIXEL - wanted).max() < 1e-3


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_without_a_contour_there_is_no_band(alpha):
    free, crossed = band.band(*2 * [np.full((20, 30), alpha, np.float32)], 0)
    assert not crossed and not free.any()


def test_distances_at_half_the_size_give_nearly_the_same_band():
    alpha = _blobs((700, 900), blur=40)
    small = halved(alpha[..., None])[..., 0]
    fine, coarse = band.band(alpha, alpha, 0)[0], band.band(alpha, small, 1)[0]
    assert (fine != coarse).mean() < 0.03
