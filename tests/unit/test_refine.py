"""Full-size alpha and foreground: exact where they can be, close where they must be estimated."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from watcher.pipeline import foreground
from watcher.pipeline.refine import refine
from watcher.pipeline.scale import eight_bits, sane

HEIGHT, WIDTH = 240, 200


def scene(dtype=np.uint8, *, blur: float = 3.0):
    """(pixels, alpha, F): a soft red disc with a fine texture before green; exact by construction."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    alpha = cv2.GaussianBlur((np.hypot(x - 100, y - 120) < 70).astype(np.float32), (0, 0), blur)
    alpha = np.clip((alpha - 0.02) / 0.96, 0, 1)
    front = np.dstack([0.8 + 0.05 * np.sin(x), 0.3 + 0.05 * np.cos(y), np.full_like(x, 0.2)])
    back = np.dstack([np.full_like(x, 0.05), 0.3 + 0.1 * y / HEIGHT, np.full_like(x, 0.1)])
    mixed = alpha[..., None] * front + (1 - alpha[..., None]) * back
    top = np.iinfo(dtype).max
    return np.round(mixed * top).astype(dtype), alpha, front


def small(alpha: np.ndarray) -> np.ndarray:
    return cv2.resize(alpha, (100, 120), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("decontaminate", [True, False])
@pytest.mark.parametrize("method", ["closed_form", "guided", "bilinear"])
def test_full_alpha_keeps_the_sources_pixels_bit_for_bit_and_none_leaves_none(
    dtype, decontaminate, method, frame_of
):
    pixels, alpha, _ = scene(dtype)
    cutout = refine(frame_of(pixels), small(alpha), method=method, decontaminate=decontaminate).cutout
    full, none = cutout[..., 3] == np.iinfo(dtype).max, cutout[..., 3] == 0
    assert cutout.dtype == dtype and full.sum() > 5000 and none.sum() > 5000
    assert np.array_equal(cutout[full][:, :3], pixels[full])
    assert not cutout[none].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("method", ["closed_form", "guided", "bilinear"])
def test_alpha_comes_back_at_full_size(dtype, method, frame_of):
    pixels, alpha, _ = scene(dtype)
    refined = refine(frame_of(pixels), small(alpha), method=method, decontaminate=True)
    error = np.abs(refined.alpha / np.iinfo(dtype).max - alpha)
    assert error.mean() < 0.004 and error.max() < 0.2


@pytest.mark.parametrize("method", ["closed_form", "guided", "bilinear"])
@pytest.mark.parametrize("own", [None, 200])
def test_an_eight_bit_photo_has_an_alpha_of_sixteen_true_bits_where_it_is_asked_for(method, own, frame_of):
    pixels, alpha, _ = scene(blur=9.0)
    opacity = None if own is None else np.full((HEIGHT, WIDTH), own, np.uint8)
    frame = frame_of(pixels, opacity=opacity)
    plain = refine(frame, small(alpha), method=method, decontaminate=True)
    refined = refine(frame, small(alpha), method=method, decontaminate=True, deep=True)
    deep = refined.alpha_at(16)
    assert np.array_equal(plain.cutout, refined.cutout) and plain.deep is None
    assert len(np.unique(deep)) > 2000, "eight bits spread have 256 levels"
    assert np.array_equal(eight_bits(deep), refined.alpha)
    assert np.all(deep[refined.alpha == 0] == 0)
    assert int(deep.max()) == (65535 if own is None else own * 257)
    wide = refined.at(16).cutout
    assert np.array_equal(wide[..., 3], deep) and np.array_equal(eight_bits(wide), refined.cutout)


def test_the_guided_filter_finds_the_edge_again_that_the_proxy_lost(frame_of):
    pixels, alpha, _ = scene(blur=0.7)
    blurred = cv2.GaussianBlur(small(alpha), (0, 0), 1.2)
    errors = {}
    for method in ("guided", "bilinear"):
        found = refine(frame_of(pixels), blurred, method=method, decontaminate=False).alpha / 255
        errors[method] = np.abs(found - alpha).sum()
    assert errors["guided"] < 0.8 * errors["bilinear"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_decontamination_removes_the_backgrounds_colour_from_soft_edges(dtype, frame_of):
    pixels, alpha, front = scene(dtype)
    soft = (alpha > 0.1) & (alpha < 0.9)
    errors = {}
    for decontaminate in (True, False):
        frame = frame_of(pixels)
        cutout = refine(frame, small(alpha), method="bilinear", decontaminate=decontaminate).cutout
        errors[decontaminate] = np.abs(cutout[..., :3] / np.iinfo(dtype).max - front)[soft].mean()
    assert errors[True] < 0.03 and errors[False] > 0.15


def test_colours_of_strands_come_out_as_well_as_from_a_full_size_estimate(frame_of):
    chance = np.random.default_rng(1)
    shape = 240, 320

    def noise(*channels: int, sigma: float) -> np.ndarray:
        field = cv2.GaussianBlur(
            chance.standard_normal((*shape, *channels)).astype(np.float32), (0, 0), sigma
        )
        return np.clip(0.5 + field / field.std() / 4, 0, 1)

    alpha = np.clip(2 * noise(sigma=2.0) - 0.5 + (np.arange(320) - 160) / 120, 0, 1).astype(np.float32)
    front, back = noise(3, sigma=8.0) * 0.4, 0.6 + noise(3, sigma=8.0) * 0.4
    image = (alpha[..., None] * front + (1 - alpha[..., None]) * back).astype(np.float32)
    soft = (alpha > 0.02) & (alpha < 0.98)

    def error(found: np.ndarray) -> float:
        return 255 * float(np.average(np.abs(found - front).mean(-1)[soft], weights=alpha[soft]))

    frame = frame_of(np.rint(image * 255).astype(np.uint8))
    cutout = refine(frame, alpha, method="bilinear", decontaminate=True).cutout[..., :3] / 255
    full = error(foreground.estimate(image, alpha)[..., :3])
    paper = error(foreground.estimate(image, alpha, gradient_weight=1.0, sweeps=2)[..., :3])
    assert error(image) > 25
    assert error(cutout) < 1.15 * full, (error(cutout), full)
    assert full < 0.8 * paper, (full, paper)


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("method", ["closed_form", "guided"])
def test_flat_pictures_stay_flat(level, colour, method, frame_of):
    pixels = np.full((40, 60, 3), colour, np.uint8)
    refined = refine(
        frame_of(pixels), np.full((32, 48), level, np.float32), method=method, decontaminate=True
    )
    assert np.all(refined.alpha == round(255 * level))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (7, 900), (900, 7)])
@pytest.mark.parametrize("proxy", [(1, 1), (32, 32), (33, 65)])
def test_any_shape_has_a_cutout(shape, proxy, frame_of):
    chance = np.random.default_rng(3)
    pixels = chance.integers(0, 256, (*shape, 3), dtype=np.uint8)
    alpha = chance.random(proxy, dtype=np.float32)
    for method in ("closed_form", "guided"):
        refined = refine(frame_of(pixels), alpha, method=method, decontaminate=True)
        assert refined.cutout.shape == (*shape, 4)


def test_what_an_engine_must_not_say_does_no_harm(frame_of):
    alpha = np.array([[np.nan, np.inf], [-np.inf, 7]], np.float32)
    refined = refine(frame_of(np.full((2, 2, 3), 9, np.uint8)), alpha, method="bilinear", decontaminate=True)
    assert refined.alpha.tolist() == [[0, 255], [0, 255]]


def test_noise_below_one_level_is_no_veil(frame_of):
    alpha = np.full((32, 32), 0.0038, np.float32)
    refined = refine(
        frame_of(np.full((64, 64, 3), 200, np.uint16)), alpha, method="bilinear", decontaminate=True
    )
    assert not refined.cutout.any()


def test_a_sources_own_alpha_is_neither_lost_nor_doubled(frame_of):
    pixels, alpha, _ = scene()
    own = np.round(alpha * 255).astype(np.uint8)
    frame = frame_of(pixels, opacity=own)
    same = refine(frame, small(alpha), method="bilinear", decontaminate=True).cutout
    assert np.abs(same[..., 3].astype(int) - own).max() <= 12
    everything = refine(frame, np.ones((120, 100), np.float32), method="guided", decontaminate=True).cutout
    assert np.array_equal(everything[..., 3], own)
    seen = own > 0
    assert np.array_equal(everything[seen][:, :3], pixels[seen]), "straight colours are clean already"


def test_an_alpha_finer_than_the_grid_is_not_made_coarser(frame_of):
    """BSHM sees the whole photo: a thread one pixel wide must survive."""
    pixels, alpha, _ = scene()
    alpha[:, 20] = 1.0
    refined = refine(frame_of(pixels), alpha, method="closed_form", decontaminate=False, side=64)
    assert refined.alpha[:, 20].min() > 200 and refined.alpha[:, 18].max() < 60


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grid", [(120, 100), (7, 5), (300, 333)])
def test_what_is_painted_in_runs_is_what_each_pixel_would_be(dtype, grid, frame_of):
    """A source's own alpha has every pixel looked at; one that is opaque changes nothing."""
    pixels, _, _ = scene(dtype)
    steps = np.random.default_rng(5).choice(np.float32([0, 1 / 255, 0.004, 0.5, 0.996, 1]), grid)
    steps[grid[0] // 3 :, : grid[1] // 2] = 1
    steps[grid[0] // 2 :, grid[1] // 2 :] = 0
    opaque = np.full((HEIGHT, WIDTH), np.iinfo(dtype).max, dtype)
    runs, one_by_one = (
        refine(frame, steps, method="bilinear", decontaminate=False).cutout
        for frame in (frame_of(pixels), frame_of(pixels, opacity=opaque))
    )
    np.testing.assert_array_equal(runs, one_by_one)


def test_refining_twice_gives_the_same_bytes(frame_of):
    pixels, alpha, _ = scene()
    first, second = (
        refine(frame_of(pixels), small(alpha), method="closed_form", decontaminate=True).cutout.tobytes()
        for _ in range(2)
    )
    assert first == second


def test_the_estimate_explains_the_picture():
    pixels, alpha, front = scene()
    image = pixels.astype(np.float32) / 255
    colours = foreground.estimate(image, alpha)
    mixed = alpha[..., None] * colours[..., :3] + (1 - alpha[..., None]) * colours[..., 3:]
    assert np.abs(mixed - image).mean() < 0.01
    assert np.abs(colours[..., :3] - front)[alpha > 0.1].mean() < 0.02
    assert colours.min() >= 0 and colours.max() <= 1


def test_what_is_no_alpha_becomes_one():
    given = np.array([[np.nan, np.inf, -np.inf, -0.0], [0.25, 1.0, 2.0, -3.0]], np.float32)

    assert np.array_equal(sane(given), np.clip(np.nan_to_num(given, nan=0.0), 0, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 2), (97, 64), (120, 211)])
def test_each_level_of_the_colours_sees_the_pixels_that_opencv_calls_nearest(size):
    image = np.random.default_rng(5).random((*size, 3), np.float32)

    sizes, rows, columns, *_ = foreground._ladder(*size)

    assert tuple(sizes[0]) == (1, 1)
    assert tuple(sizes[-1]) == size
    y = x = 0
    for height, width in sizes:
        seen = foreground.picked(image, rows[y : y + height], columns[x : x + width])
        nearest = cv2.resize(image, (int(width), int(height)), interpolation=cv2.INTER_NEAREST_EXACT)
        assert np.array_equal(seen, nearest.reshape(seen.shape))
        y, x = y + height, x + width
