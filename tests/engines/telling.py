"""An engine that answers with the number of threads it was told to use, in hundredths.

With the option `fixed` that is how many it was started with, for good. Red 200 takes until another worker is asked for red 201: they meet at the file that the model is called.
Python 3.7 syntax: it runs wherever a worker does.
"""

import os
import time

import numpy as np

LONG, RELEASE = 200, 201


class Session:
    def __init__(self, meeting, options):
        self._meeting, self._threads = meeting, options.get("threads", 0)
        self._fixed = options.get("fixed", False)
        self.about = {"engine": "telling", "framework": "none", "device": "cpu", "fixed_threads": self._fixed}

    def limit(self, threads):
        self._threads = self._threads if self._fixed else threads

    def infer(self, images):
        mood = int(images[0][0, 0, 0])
        if mood == RELEASE:
            open(self._meeting, "wb").close()
        while mood == LONG and not os.path.exists(self._meeting):
            time.sleep(0.01)
        if mood == LONG:
            os.remove(self._meeting)
        return [np.full(image.shape[:2], self._threads / 100, np.float32) for image in images]


def load(model, device, options):
    return Session(model, options)
