"""Keeps the C library from holding on to memory that nobody uses. Does nothing where that is not glibc's.

glibc gives threads arenas of their own, eight for each core, and each keeps what its busiest moment took.
Threads come and go here with reloads and shares, so that one arena after the other swells: half
of what a daemon held after some hours of faults was free, and none of it came back.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_M_ARENA_MAX = -8
# Four threads that ask at the same time are plenty beside Python's lock.
ARENAS = 4
# Seconds between two times that free pages go back; finding them takes some milliseconds.
EVERY = 60.0


def limit_arenas() -> None:
    """To be called before there are threads. What the environment says instead stands."""
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Free pages of all arenas go back to the system."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
