"""Compiles kernels in a process of its own: `python -m watcher.pipeline.compiler PARENT < NUMBERS`.

Each byte of its input is the number of a part, and others read from there, too. Writes nothing but the cache.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable

from watcher.pipeline import amounts, closed_form, encode, foreground, refine, shrink, specks

# Which take longest come first: so nobody waits long for the last one. Each calls its kernels with every signature.
PARTS: tuple[Callable[[], None], ...] = (
    closed_form.warm_up,
    amounts.warm_up,
    specks.warm_up,
    refine.warm_up,
    foreground.warm_up,
    shrink.warm_up,
    *encode.WARM_UPS,
)
_PR_SET_PDEATHSIG = 1
# Models that are loaded meanwhile come first, or READY would come later.
_NICE = 10


def call_each_kernel() -> None:
    for part in PARTS:
        part()


def main(argv: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(argv[1]):  # had it died before, nobody would tell us
        return 1
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICE)
    # A seventh of the time goes into looking for what may go, and all of it goes soon.
    gc.disable()
    while number := os.read(0, 1):
        PARTS[number[0]]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
