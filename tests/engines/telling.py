"""An engine that answers with the number of threads it was told to use, in hundredths.

Red 200 takes until another worker is asked for red 201: they meet at the file that the model is called.
Python 3.7 syntax: it runs wherever a worker does.
"""

import os
import time

import numpy as np

LONG, RELEASE = 200, 201


class Session:
    about = {"engine": "telling", "framework": "none", "device": "cpu"}  # noqa: RUF012

    def __init__(self, meeting):
        self._meeting, self._threads = meeting, 0

    def limit(self, threads):
        self._threads = threads

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
    return Session(model)
