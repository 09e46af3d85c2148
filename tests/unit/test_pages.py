"""Memory of large arrays goes from one photo to the next, never while somebody looks at it, and back when all is done."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from watcher.pipeline import refine
from watcher.pipeline.pages import KEPT_BYTES, Blocks

LARGE = (KEPT_BYTES // 4096 + 2, 1024, 4)


@pytest.fixture
def blocks() -> Blocks:
    return Blocks(4)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_the_next_array_gets_the_memory_of_one_that_is_gone(blocks):
    one = blocks.empty(LARGE, np.uint8)
    assert one.shape == LARGE
    assert one.flags.writeable
    assert one.flags.c_contiguous
    place = address(one)
    del one
    assert address(blocks.empty(LARGE, np.uint8)) == place
    # Somewhat smaller, of another type.
    assert address(blocks.empty((LARGE[0] - 1, 1024), np.float32)) == place


def test_a_view_of_an_array_keeps_its_memory(blocks):
    one = blocks.empty(LARGE, np.uint8)
    one[...] = 7
    alpha = one[..., 3]
    del one
    other = blocks.empty(LARGE, np.uint8)
    other[...] = 0
    assert (alpha == 7).all()


def test_memory_that_is_much_too_large_or_too_small_is_not_held(blocks):
    small, large = blocks.empty(LARGE, np.uint8), blocks.empty((3 * LARGE[0], *LARGE[1:]), np.uint8)
    places = address(small), address(large)
    del small, large
    fitting = blocks.empty(LARGE, np.uint8)
    assert address(fitting) == places[0]
    kept = [fitting, *(blocks.empty(LARGE, np.uint8) for _ in range(2))]
    assert places[1] not in map(address, kept)
    assert len(blocks._spare) == 0


def test_small_arrays_are_the_c_librarys(blocks):
    assert blocks.empty((4, 4), np.uint16).base is None
    assert len(blocks._spare) == 0


def test_what_is_forgotten_goes_back_to_the_system(blocks):
    process = psutil.Process()
    one = blocks.empty((4 * LARGE[0], *LARGE[1:]), np.uint8)
    one[...] = 1
    size = one.nbytes
    del one
    before = process.memory_info().rss
    blocks.forget()
    assert process.memory_info().rss < before - 0.9 * size


def test_no_two_threads_have_one_block(blocks):
    def work(number: int) -> bool:
        for _ in range(50):
            array = blocks.empty(LARGE, np.uint8)
            array[::64, ::64] = number
            if not (array[::64, ::64] == number).all():
                return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(work, range(6)))
    assert len(blocks._spare) == 4, "no more are kept, however many were in use"


def test_more_than_there_is_is_a_memory_error(blocks):
    with pytest.raises(MemoryError, match="pixels"):
        blocks.empty((1 << 24, 1 << 24), np.uint16)


def test_a_cutout_in_used_memory_is_the_same(frame_of):
    """Large enough for a block: what the photo before left there must not shine through."""
    height, width = 2500, 3600
    alpha = np.zeros((64, 96), np.float32)
    alpha[16:48, 30:60] = 1
    alpha[10:16, 30:60] = 0.5
    found: list[bytes] = []
    for turn in range(3):
        colours = np.random.default_rng(turn % 2).integers(0, 256, (height, width, 3), np.uint8)
        refined = refine.refine(frame_of(colours), alpha, method="guided", decontaminate=True)
        found.append(refined.cutout.tobytes())
        del refined
    assert found[0] == found[2]
    assert found[0] != found[1]
