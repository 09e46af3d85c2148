"""What the tests of a worker, of its supervisor and of crews start: tests/engines/moody.py."""

from __future__ import annotations

import sys

import numpy as np
from daemonrig import MOODY

from watcher.engine.launch import Launch

HELLO = {"model": "", "device": "cpu", "options": {}, "warmup": [4, 6]}
CALM = 51


def proxy(mood=CALM, height=5, width=7):
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[0, 0, 0] = mood
    return pixels


def launch(model="", **changes):
    fields = {
        "model": "moody",
        "engine": "moody",
        "engine_file": MOODY,
        "python": sys.executable,
        "hello": dict(HELLO, model=model),
        "arena_bytes": 1 << 20,
        "boot_timeout": 20.0,
        "weights_sha256": None,
    }
    return Launch(**(fields | changes))
