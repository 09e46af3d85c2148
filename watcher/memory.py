"""What memory there is, and keeping the C library from holding on to what nobody uses.

The latter does nothing where the library is not glibc.

glibc gives threads arenas of their own, eight for each core, and each keeps what its busiest moment took.
Threads come and go here with reloads and shares, so that one arena after the other swells: half
of what a daemon held after some hours of faults was free, and none of it came back.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from watcher import control_groups

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


def available_mb(*, root: Path = Path("/")) -> float | None:
    """Megabytes that may still be used here: by the machine, and by every control group around us.

    What only caches files counts as free. None where the kernel does not say.
    """
    found = [_machine_mb(root), *_groups_mb(root)]
    known = [mb for mb in found if mb is not None]
    return min(known, default=None)


def _machine_mb(root: Path) -> float | None:
    kib = control_groups.fields(root / "proc/meminfo").get("MemAvailable:")
    return None if kib is None else kib * 1024 / 1e6


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """Where a version of control groups writes what: cgroups(7) and the kernel's cgroup-v1/memory.rst."""

    controllers: str  # as /proc/self/cgroup has them
    top: str
    limits: tuple[str, ...]
    used: str
    cached: str  # in memory.stat


# `memory.high` is what slows us down. Version 1 is what older NAS and container hosts have.
_HIERARCHIES = (
    _Hierarchy("", "sys/fs/cgroup", ("memory.max", "memory.high"), "memory.current", "inactive_file"),
    _Hierarchy(
        "memory",
        "sys/fs/cgroup/memory",
        ("memory.limit_in_bytes",),
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def _groups_mb(root: Path) -> list[float]:
    """What is left below each limit."""
    return [left for kind in _HIERARCHIES for left in _left_mb(kind, root)]


def _left_mb(kind: _Hierarchy, root: Path) -> Iterator[float]:
    for group in control_groups.around(root, kind.controllers, kind.top):
        limits = [number for name in kind.limits for number in control_groups.numbers(group / name)]
        bounds = [limit for limit in limits if limit is not None]
        used = next(iter(control_groups.numbers(group / kind.used)), None)
        if used is not None and bounds:
            cached = control_groups.fields(group / "memory.stat").get(kind.cached, 0)
            yield (min(bounds) - used + cached) / 1e6
