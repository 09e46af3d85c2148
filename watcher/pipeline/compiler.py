"""Compiles kernels in a process of its own: `python -m watcher.pipeline.compiler PARENT < NUMBERS`.

Each byte of its input is the number of a part, and others read from there, too. Writes nothing but the cache.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

from watcher.pipeline import amounts, apart, closed_form, encode, foreground, refine, shrink, specks

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
# Models that are loaded meanwhile come first, or READY would come later.
_NICE = 10


def call_each_kernel() -> None:
    for part in PARTS:
        part()


def main(argv: list[str]) -> int:
    apart.begin()
    if os.getppid() != int(argv[1]):  # had it died before, nobody would tell us
        return 1
    os.nice(_NICE)
    # A seventh of the time goes into looking for what may go, and all of it goes soon.
    gc.disable()
    while number := os.read(0, 1):
        PARTS[number[0]]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
