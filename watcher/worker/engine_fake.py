"""A deterministic engine for tests and benchmarks: alpha is luminance. Python 3.7 syntax.

Options: `latency_s`, the time a batch takes at least, as a GPU of a known speed would;
`most_pixels`, of a batch, above which memory runs out; `gpu`, a file: whoever holds its lock computes for
`latency_s`, so that workers share one simulated GPU, while they prepare and convert side by side; `figure`: alpha
is an oval with a soft edge, as large and as sure as that of a portrait, whatever the image.
"""

import contextlib
import fcntl
import functools
import time

import numpy as np


class Session:
    def __init__(self, options):
        self._latency = float(options.get("latency_s", 0.0))
        self._most_pixels = float(options.get("most_pixels", "inf"))
        self._gpu = open(options["gpu"], "ab") if options.get("gpu") else None
        self._figure = bool(options.get("figure", False))
        self.about = {"engine": "fake", "framework": "numpy " + np.__version__, "device": "cpu"}

    def infer(self, images):
        if sum(image.shape[0] * image.shape[1] for image in images) > self._most_pixels:
            raise MemoryError("more than {:g} pixels".format(self._most_pixels))
        began = time.monotonic()
        alphas = [_figure(*image.shape[:2]) if self._figure else _luminance(image) for image in images]
        if self._gpu:
            with _locked(self._gpu):
                time.sleep(self._latency)
        elif self._latency:
            time.sleep(max(0.0, began + self._latency - time.monotonic()))
        return alphas


@contextlib.contextmanager
def _locked(file):
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _luminance(image):
    # A third of the time of mean(axis=2): the simulated GPU must not wait for us.
    total = image[..., 0].astype(np.float32)
    total += image[..., 1]
    total += image[..., 2]
    total *= np.float32(1 / 765)
    return total


@functools.lru_cache(maxsize=8)
def _figure(height, width):
    # Four fifths of the height, half the width; the edge as wide as a hundredth of the short side.
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height - 0.5
    x = (np.arange(width, dtype=np.float32) + 0.5) / width - 0.5
    inside = 1 - np.hypot(y / 0.4, x / 0.25)
    softness = 0.012 * min(height, width) / (0.4 * height)
    return np.clip(inside / softness + 0.5, 0, 1).astype(np.float32)


def load(model, device, options):
    if device.startswith("cuda"):
        raise RuntimeError("the fake engine has no use for a GPU; ask for auto or cpu")
    return Session(options)
