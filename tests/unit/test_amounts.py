"""What kernels say of alphas, held against NumPy, OpenCV and the definitions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from watcher.pipeline.amounts import differ, difference, differences, measured, mended, patched, side_of

LEVELS = [0.0, 0.05, 0.1, 0.10000001, 0.3, 0.5, 0.50000006, 0.8, 1.0]
SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
ALPHAS = arrays(np.float32, SHAPES, elements=st.sampled_from(LEVELS).map(np.float32))
MASKS = arrays(np.bool_, SHAPES)


def drawn(shape, seed=1):
    return np.clip(np.random.default_rng(seed).normal(0.5, 0.6, shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (37, 41), (512, 910)])
def test_coverage_and_uncertainty_are_means_to_the_eighth_digit(shape):
    alpha = drawn(shape)
    exact = alpha.astype(np.float64)
    fog = (exact * (1 - exact)).mean() / exact.mean()
    found = measured(alpha)
    assert (found.coverage, found.uncertain) == pytest.approx((exact.mean(), fog), abs=1e-8)
    nothing = measured(np.zeros(shape, np.float32))
    assert (nothing.coverage, nothing.uncertain, nothing.faint, nothing.half) == (0, 0, None, None)
    assert 0 <= measured((alpha > 0.5).astype(np.float32)).uncertain < 1e-12


@given(ALPHAS)
def test_boxes_and_borders_are_those_of_what_is_above(alpha):
    height, width = alpha.shape
    found = measured(alpha)
    for box, level in ((found.faint, 0.1), (found.half, 0.5)):
        rows, columns = np.nonzero(alpha > level)
        if not rows.size:
            assert box is None
            continue
        assert box == (
            columns.min() / width,
            rows.min() / height,
            (columns.max() + 1) / width,
            (rows.max() + 1) / height,
        )
    borders = (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])
    assert found.borders == tuple(np.mean(border > 0.5) for border in borders)


def test_how_an_alpha_lies_in_memory_changes_nothing():
    alpha = drawn((30, 50))
    for same in (np.asfortranarray(alpha), np.repeat(alpha, 2, axis=1)[:, ::2], alpha[::-1][::-1]):
        assert measured(same) == measured(alpha)
        assert difference(same, drawn((20, 30), 2)) == difference(alpha, drawn((20, 30), 2))


def test_what_is_no_number_is_no_box():
    alpha = np.full((4, 4), np.nan, np.float32)
    alpha[1, 2] = 0.7
    assert measured(alpha).half == (0.5, 0.25, 0.75, 0.5)


def overlaps(length, wanted):
    """wanted x length: which share of each sample lies under which of the wanted ones, by definition."""
    edges = np.arange(wanted + 1) * length / wanted
    low = np.maximum.outer(edges[:-1], np.arange(length))
    high = np.minimum.outer(edges[1:], np.arange(length) + 1)
    return np.maximum(0, high - low) * wanted / length


def averages(one, other):
    """Both at the smaller one's size, by definition."""
    size = [min(sides) for sides in zip(one.shape, other.shape, strict=True)]
    return [
        overlaps(alpha.shape[0], size[0]) @ alpha.astype(float) @ overlaps(alpha.shape[1], size[1]).T
        for alpha in (one, other)
    ]


PAIRS = [
    ((64, 48), (64, 48)),
    ((64, 48), (32, 24)),
    ((61, 97), (40, 33)),
    ((40, 97), (61, 33)),
    ((1, 1), (9, 7)),
    ((1, 50), (50, 1)),
    ((512, 896), (736, 1280)),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_difference_is_that_of_area_averages(one, other):
    one, other = drawn(one, 1), drawn(other, 2)
    a, b = averages(one, other)
    true = np.abs(a - b).mean() / max(a.mean(), b.mean())
    assert difference(one, other) == pytest.approx(true, rel=1e-5)
    assert difference(other, one) == difference(one, other)
    third = drawn((33, 35), 3)
    assert differences(one, other, third) == (
        difference(one, other),
        difference(one, third),
        difference(other, third),
    )


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("patch", [0.01, 0.1, 0.3])
def test_two_differ_where_a_whole_patch_does(one, other, patch):
    one, other = (cv2.GaussianBlur(drawn(shape, 5), (0, 0), 2) for shape in (one, other))
    a, b = averages(one, other)
    for contradicts in (0.1, 0.2, 0.35):
        there = opened(np.abs(a - b) > contradicts, side_of(patch, *a.shape)).any()
        assert differ(one, other, by=1.0, contradicts=contradicts, patch=patch) == there
    assert differ(one, other, by=0.0, contradicts=1.0, patch=patch) == (difference(one, other) > 0)


def opened(mask, side):
    """By OpenCV: what hangs together in squares, and a little around it."""
    square = np.ones((side, side), np.uint8)
    return cv2.dilate(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, square), square) > 0


@given(MASKS, st.sampled_from([1, 3, 5, 9]), st.booleans())
def test_patches_are_those_of_opencv(mask, side, coarse):
    if coarse:
        mask = np.repeat(np.repeat(mask, 4, axis=0), 4, axis=1)
    true, found = opened(mask, side), mask.copy()
    assert patched(found, side) == true.any()
    np.testing.assert_array_equal(found, true)


def doubtful(alpha):
    total = alpha.sum(dtype=np.float64)
    return 1 - np.square(alpha, dtype=np.float64).sum() / total if total else 0.0


def by_numpy(best, one, two, confused, agree, contradicts, certain, side):
    if confused:
        seen = np.maximum.reduce([best, *(other for other in (one, two) if doubtful(other) <= certain)])
        wrong = opened(seen - best > contradicts, side)
    else:
        seen = (one + two) / 2
        wrong = opened((one - best > contradicts) & (two - best > contradicts), side)
        if agree:
            wrong |= opened((best - one > contradicts) & (best - two > contradicts), side)
    return np.where(wrong, seen, best)


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([0.06, 0.4]),
)
def test_what_is_mended_is_what_the_others_say_in_patches(seed, confused, agree, side, certain):
    chance = np.random.default_rng(seed)
    height, width = chance.integers(1, 12, 2)
    best, one, two = (
        np.repeat(np.repeat(chance.choice(LEVELS, (height, width)), 4, axis=0), 4, axis=1).astype(np.float32)
        for _ in range(3)
    )
    found = mended(best, one, two, confused, agree, np.float32(0.35), certain, side)
    true = by_numpy(best, one, two, confused, agree, np.float32(0.35), certain, side)
    np.testing.assert_array_equal(found if found.size else best, true)


@pytest.mark.parametrize("foggy", [0, 1])
def test_of_confused_others_a_fog_is_not_heard(foggy):
    others = [np.zeros((20, 20), np.float32) for _ in range(2)]
    others[foggy][:8, :8] = 0.5
    others[1 - foggy][12:, 12:] = 1.0
    found = mended(np.zeros((20, 20), np.float32), *others, True, False, np.float32(0.35), 0.06, 3)
    np.testing.assert_array_equal(found, others[1 - foggy])
