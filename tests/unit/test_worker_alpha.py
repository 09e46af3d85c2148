"""What the worker makes of the numbers that an engine gives, before the daemon sees them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from watcher.engine.client import ISLAND

ABOVE, TINY = np.nextafter(np.float32(1), np.float32(2)), np.finfo(np.float32).smallest_subnormal


@pytest.fixture(scope="module")
def worker():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ISLAND))
        spec = importlib.util.spec_from_file_location("worker_main", ISLAND / "__main__.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


class Says:
    def __init__(self, alpha):
        self.alpha = alpha

    def infer(self, images):
        return [self.alpha] * len(images)


def checked(worker, alpha):
    out = np.full(alpha.shape, 9, np.float32)
    worker.infer(Says(alpha), [np.zeros((*alpha.shape, 3), np.uint8)], [out])
    return out


@pytest.mark.parametrize("value", [0.0, -0.0, TINY, -TINY, 0.5, 1.0, ABOVE, -ABOVE, 3e38, -3e38])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_an_alpha_is_within_0_and_1(worker, value, kind):
    alpha = np.random.default_rng(0).random((5, 7)).astype(kind)
    alpha[3, 2] = value
    assert np.array_equal(checked(worker, alpha), alpha.clip(0, 1).astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("beside", [0.5, -3.0])
def test_what_is_not_finite_is_no_alpha(worker, value, beside):
    alpha = np.full((5, 7), beside, np.float32)
    alpha[4, 6] = value
    with pytest.raises(RuntimeError, match="not finite"):
        checked(worker, alpha)


def test_an_alpha_may_lie_in_memory_as_it_likes(worker):
    whole = np.random.default_rng(1).random((7, 10)).astype(np.float32)
    for alpha in (whole.T, whole[:, ::2], whole[::-1], whole.astype(np.float16)):
        assert np.array_equal(checked(worker, alpha), alpha)
