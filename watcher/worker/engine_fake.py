"""A deterministic engine for tests and benchmarks: alpha is luminance. Python 3.7 syntax.

Options: `latency_s`, the time a batch takes at least, as a GPU of a known speed would;
`most_pixels`, of a batch, above which memory runs out.
"""

import time

import numpy as np


class Session:
    def __init__(self, options):
        self._latency = float(options.get("latency_s", 0.0))
        self._most_pixels = float(options.get("most_pixels", "inf"))
        self.about = {"engine": "fake", "framework": "numpy " + np.__version__, "device": "cpu"}

    def infer(self, images):
        if sum(image.shape[0] * image.shape[1] for image in images) > self._most_pixels:
            raise MemoryError("more than {:g} pixels".format(self._most_pixels))
        if self._latency:
            time.sleep(self._latency)
        return [image.astype(np.float32).mean(axis=2) / 255.0 for image in images]


def load(model, device, options):
    if device.startswith("cuda"):
        raise RuntimeError("the fake engine has no use for a GPU; ask for auto or cpu")
    return Session(options)
