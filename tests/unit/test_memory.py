"""What is free goes back, and threads do not each keep memory of their own: asked of the C library itself."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from watcher import memory

# Chunks that are too small to be mapped by themselves and too large for Python's own pools. Every hundredth
# stays, so that nothing is free at the end of the heap, where it would go back anyway.
CROWD = """
import ctypes, json, os, re, threading
from watcher import memory

def info():
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    libc.open_memstream.restype = ctypes.c_void_p
    text, size = ctypes.c_char_p(), ctypes.c_size_t()
    file = ctypes.c_void_p(libc.open_memstream(ctypes.byref(text), ctypes.byref(size)))
    libc.malloc_info(0, file)
    libc.fclose(file)
    return text.value.decode()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

memory.limit_arenas()
together, kept = threading.Barrier(24), []

def work():
    together.wait()
    chunks = [bytearray(2000) for _ in range(2000)]
    together.wait()
    kept.append(chunks[::100])

threads = [threading.Thread(target=work) for _ in range(24)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
before = resident()
memory.give_back()
print(json.dumps({"arenas": info().count("<heap nr="), "given back": before - resident()}))
"""
Crowd = Callable[..., dict[str, int]]


@pytest.fixture
def crowd(real_part) -> Crowd:
    real_part("glibc", hasattr(ctypes.CDLL(None), "malloc_trim"), "another C library has no arenas")

    def crowd(**env: str) -> dict[str, int]:
        """Twenty-four threads that are there at once, and what is left of them."""
        inherited = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
        command = [sys.executable, "-c", CROWD]
        said = subprocess.run(command, env={**inherited, **env}, capture_output=True, text=True, check=True)
        found: dict[str, int] = json.loads(said.stdout)
        return found

    return crowd


def test_many_threads_share_few_arenas_and_what_they_leave_goes_back(crowd):
    found = crowd()
    assert found["arenas"] <= memory.ARENAS
    # Of the 96 MB that they had; whole pages only.
    assert found["given back"] > 40_000_000


def test_an_operator_who_sets_the_number_of_arenas_has_it(crowd):
    assert memory.ARENAS < crowd(MALLOC_ARENA_MAX="9")["arenas"] <= 9
