"""A deterministic engine for tests and benchmarks: alpha is luminance. Python 3.7 syntax.

Options: `latency_s`, the time a batch takes at least, as a GPU of a known speed would;
`most_pixels`, of a batch, above which memory runs out; `gpu`, a file: whoever holds its lock computes for
`latency_s`, so that workers share one simulated GPU, while they prepare and convert side by side.
"""

import contextlib
import fcntl
import time

import numpy as np


class Session:
    def __init__(self, options):
        self._latency = float(options.get("latency_s", 0.0))
        self._most_pixels = float(options.get("most_pixels", "inf"))
        self._gpu = open(options["gpu"], "ab") if options.get("gpu") else None
        self.about = {"engine": "fake", "framework": "numpy " + np.__version__, "device": "cpu"}

    def infer(self, images):
        if sum(image.shape[0] * image.shape[1] for image in images) > self._most_pixels:
            raise MemoryError("more than {:g} pixels".format(self._most_pixels))
        began = time.monotonic()
        alphas = [_luminance(image) for image in images]
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


def load(model, device, options):
    if device.startswith("cuda"):
        raise RuntimeError("the fake engine has no use for a GPU; ask for auto or cpu")
    return Session(options)
