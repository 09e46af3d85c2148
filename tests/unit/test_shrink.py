"""Area averages, held against their definition and against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from watcher.pipeline.scale import resized
from watcher.pipeline.shrink import shrunk

# (width, height): whole multiples, odd ratios, one side as it is, a line, a single pixel.
SIZES = [
    ((96, 64), (48, 32)),
    ((97, 61), (40, 33)),
    ((64, 90), (64, 7)),
    ((300, 1), (7, 1)),
    ((1, 300), (1, 299)),
    ((50, 40), (50, 40)),
    ((33, 35), (1, 1)),
]


def picture(size, dtype):
    width, height = size
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


def overlaps(length, wanted):
    """wanted x length: which share of each sample lies under which of the wanted ones, by definition."""
    edges = np.arange(wanted + 1) * length / wanted
    low, high = (
        np.maximum.outer(edges[:-1], np.arange(length)),
        np.minimum.outer(edges[1:], np.arange(length) + 1),
    )
    return np.maximum(0, high - low) * wanted / length


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_each_level_is_the_average_of_what_lies_under_it(size, wanted, dtype):
    pixels = picture(size, dtype)
    found = shrunk(pixels, wanted)
    true = np.einsum(
        "yv,xu,vuc->yxc", overlaps(size[1], wanted[1]), overlaps(size[0], wanted[0]), pixels.astype(float)
    )
    assert found.dtype == dtype and found.shape == (wanted[1], wanted[0], 3)
    # Half a level of rounding, and what single precision makes of 16 bits.
    assert np.abs(found - true).max() <= (0.501 if dtype == np.uint8 else 0.52)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_differs_from_opencv_by_rounding_only(dtype):
    pixels = picture((640, 427), dtype)
    theirs = cv2.resize(pixels, (300, 200), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk(pixels, (300, 200)).astype(int) - theirs).max() <= 1


def test_a_photo_that_has_to_grow_and_a_part_of_one_are_opencv_s():
    pixels = picture((40, 30), np.uint8)
    for given, size in ((pixels, (80, 60)), (pixels, (80, 20)), (pixels[3:20, 4:30], (10, 9))):
        np.testing.assert_array_equal(shrunk(given, size), resized(given, size))
