from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from watcher.config import Profile
from watcher.pipeline import edges

ALPHAS = arrays(
    np.float32,
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    elements=st.sampled_from([0.0, 0.04, 0.25, 0.5, 0.75, 1.0]),
)


def disc(size=64, radius=24, level=1.0):
    alpha = np.zeros((size, size), np.float32)
    cv2.circle(alpha, (size // 2, size // 2), radius, level, -1)
    return alpha


@pytest.mark.parametrize("step", ["close", "reconstruct"])
def test_a_pinhole_is_filled(step):
    alpha = disc()
    alpha[32, 32] = 0.2
    assert np.array_equal(edges.clean(alpha, [step]), disc())


def test_a_gap_between_two_strands_is_closed_by_close_alone():
    alpha = np.zeros((40, 40), np.float32)
    alpha[5:35, 10] = alpha[5:35, 12] = 1.0  # open at both ends
    assert edges.close(alpha)[20, 11] == 1.0
    assert np.array_equal(edges.reconstruct(alpha), alpha)


def test_a_speck_goes_and_a_second_person_stays():
    alpha = disc(200, 60)
    alpha[5:7, 5:7] = 0.9
    child = alpha.copy()
    child[150:165, 150:165] = 0.9
    assert np.array_equal(edges.islands(alpha), disc(200, 60))
    cleaned = edges.islands(child)
    assert cleaned[155, 155] == np.float32(0.9)
    assert cleaned[5, 5] == 0.0


def test_a_strand_near_a_head_stays_and_a_faint_cloud_far_away_goes():
    alpha = disc(200, 60)
    alpha[36:38, 100:103] = 0.3  # two pixels above the disc
    alpha[5:12, 5:12] = 0.3
    cleaned = edges.islands(alpha)
    assert cleaned[36, 100] == np.float32(0.3)
    assert not cleaned[:20, :20].any()


def test_people_side_by_side_all_stay_however_doubtful():
    alpha = np.zeros((100, 300), np.float32)
    for left, level in ((10, 1.0), (110, 0.4), (210, 0.2)):
        alpha[20:, left : left + 70] = level
    assert np.array_equal(edges.islands(alpha), alpha)


def test_nothing_to_clean_stays_nothing():
    for level in (0.0, 1.0):
        flat = np.full((9, 7), level, np.float32)
        assert np.array_equal(edges.clean(flat, ["close", "reconstruct", "islands"]), flat)


@given(ALPHAS)
def test_closing_only_adds_and_adds_nothing_the_second_time(alpha):
    for step in (edges.close, edges.reconstruct):
        once = step(alpha)
        assert (once >= alpha).all()
        assert once.max(initial=0) <= alpha.max(initial=0)
        assert np.array_equal(step(once), once)
    assert (edges.reconstruct(alpha) <= edges.close(alpha)).all()


@given(ALPHAS)
def test_islands_only_takes_away_and_never_the_largest(alpha):
    cleaned = edges.islands(alpha)
    assert ((cleaned == alpha) | (cleaned == 0)).all()
    if alpha.max(initial=0) > 0.05:
        assert cleaned.max() > 0.05


def by_opencv(alpha):
    """`islands` by its definition: OpenCV's labels and distances, NumPy's sums."""
    count, labels = cv2.connectedComponents((alpha > 0.05).astype(np.uint8))
    weighed = np.where(alpha > 0.5, alpha, alpha * np.float32(0.2))
    weights = np.bincount(labels.ravel(), weighed.ravel(), count)
    weights[0] = 0
    kept = weights >= 0.002 * weights.max()
    kept[0] = True
    land = kept[labels] & (labels > 0)
    if land.any():
        shore = cv2.distanceTransform((~land).astype(np.uint8), cv2.DIST_L2, 3)
        kept[np.unique(labels[shore <= 0.02 * min(alpha.shape)])] = True
    return np.where(kept[labels], alpha, np.float32(0))


@given(ALPHAS)
def test_islands_are_those_of_opencv(alpha):
    np.testing.assert_array_equal(edges.islands(alpha), by_opencv(alpha))


@given(
    st.integers(0, 10**6),
    st.sampled_from([(120, 200), (200, 133), (1, 900), (900, 1), (64, 64)]),
    st.sampled_from([0, 3, 40, 400]),
)
def test_specks_around_somebody_are_those_of_opencv(seed, shape, specks):
    chance = np.random.default_rng(seed)
    height, width = shape
    alpha = np.zeros(shape, np.float32)
    cv2.ellipse(alpha, (width // 2, height), (width // 5, height // 2), 0, 0, 360, 1.0, -1)
    for _ in range(specks):
        y, x, side = chance.integers(height), chance.integers(width), chance.integers(1, 4)
        alpha[y : y + side, x : x + side] = chance.choice([0.04, 0.06, 0.3, 0.7])
    for laid in (alpha, np.asfortranarray(alpha), alpha[::-1, ::2]):
        np.testing.assert_array_equal(edges.islands(laid), by_opencv(laid))


def test_lone_pixels_in_every_place_are_many_islands():
    alpha = np.zeros((41, 67), np.float32)
    alpha[::2, ::2] = 1.0
    assert np.array_equal(edges.islands(alpha), alpha)
    alpha[20:, :] = 1.0  # so heavy that those above are specks; the nearest touches it
    np.testing.assert_array_equal(edges.islands(alpha), by_opencv(alpha))


def test_what_nothing_has_to_go_from_is_given_back_itself():
    alpha = disc(200, 60)
    assert edges.islands(alpha) is alpha


def test_every_step_a_profile_may_name_exists():
    assert Profile(edges=tuple(edges.STEPS)).edges == tuple(edges.STEPS)
