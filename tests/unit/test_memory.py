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


# --- What there is ---------------------------------------------------------------------------


def machine(root, *, groups, ours="/system.slice/hotmatte.service", free_mb=8000):
    """A kernel's files: `groups` are path -> {file: content}."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: 99999999 kB\nMemAvailable: {free_mb * 1000000 // 1024} kB\n"
    )
    (root / "proc/self/cgroup").write_text(f"0::{ours}\n")
    for path, files in groups.items():
        folder = root / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(f"{content}\n")
    return memory.available_mb(root=root)


def group(limit, used, *, cached=0, high="max"):
    return {
        "memory.max": limit,
        "memory.high": high,
        "memory.current": used,
        "memory.stat": f"anon 5\ninactive_file {cached}",
    }


def test_memory_that_may_be_used_is_that_of_the_machine_or_of_the_narrowest_group_around_us(tmp_path):
    ours = "system.slice/hotmatte.service"
    assert machine(tmp_path / "a", groups={}) == pytest.approx(8000, abs=0.01)
    roomy = {ours: group("max", 10**9)}
    assert machine(tmp_path / "b", groups=roomy) == pytest.approx(8000, abs=0.01)
    limited = {ours: group(2 * 10**9, 15 * 10**8, cached=2 * 10**8)}
    assert machine(tmp_path / "c", groups=limited) == 700
    outer = {ours: group("max", 10**9), "system.slice": group(3 * 10**9, 25 * 10**8)}
    assert machine(tmp_path / "d", groups=outer) == 500
    slowed = {ours: group(4 * 10**9, 10**9, high=12 * 10**8)}
    assert machine(tmp_path / "e", groups=slowed) == 200
    # As a container sees itself.
    inside = {".": group(10**9, 4 * 10**8)}
    assert machine(tmp_path / "f", groups=inside, ours="/") == 600


def test_groups_of_the_first_version_bound_memory_as_well(tmp_path):
    def group(limit, used, cached):
        return {
            "memory.limit_in_bytes": limit,
            "memory.usage_in_bytes": used,
            "memory.stat": f"inactive_file 7\ntotal_inactive_file {cached}",
        }

    def left(name, lines, groups):
        machine(tmp_path / name, groups=groups)
        (tmp_path / name / "proc/self/cgroup").write_text(lines)
        return memory.available_mb(root=tmp_path / name)

    lines = "12:pids:/docker/ab\n4:memory:/docker/ab\n1:name=systemd:/docker/ab\n0::/\n"
    tight, free = group(2 * 10**9, 15 * 10**8, 2 * 10**8), group(9223372036854771712, 10**9, 0)
    assert left("a", lines, {"memory/docker/ab": tight, "memory": free}) == 700
    # In a container whose own group is what is mounted there.
    assert left("b", lines, {"memory": tight}) == 700
    assert left("c", lines, {"memory/docker/ab": free}) == pytest.approx(8000, abs=0.01)


def test_a_kernel_that_says_nothing_of_memory_sets_no_bound(tmp_path):
    assert memory.available_mb(root=tmp_path) is None
    here = memory.available_mb()
    assert here is not None
    assert here > 0
