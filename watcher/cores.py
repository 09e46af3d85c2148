"""How many cores there are for us: those we may run on, and no more than control groups let us use at one time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

from watcher import control_groups

# Version 1 of control groups: its controllers are mounted together on most hosts, and named in either order.
_FIRST = (
    ("cpu,cpuacct", "sys/fs/cgroup/cpu,cpuacct"),
    ("cpuacct,cpu", "sys/fs/cgroup/cpuacct,cpu"),
    ("cpu", "sys/fs/cgroup/cpu"),
)


def cores(*, root: Path = Path("/")) -> int:
    """At least 1. By affinity (taskset, a container's cpuset) and by quota (CPUQuota=, a container's cpus).

    With more threads than a quota bears, all of them stand still for the rest of each period once it is used up.
    """
    quotas = [ceil(share - 0.01) for share in _shares(root)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def _shares(root: Path) -> Iterator[float]:
    """Of a core, for each limit there is."""
    for group in control_groups.around(root, "", "sys/fs/cgroup"):
        match control_groups.numbers(group / "cpu.max"):
            case [int() as quota, int() as period] if period > 0:
                yield quota / period
    for controllers, top in _FIRST:
        for group in control_groups.around(root, controllers, top):
            files = [group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"]
            match [number for file in files for number in control_groups.numbers(file)]:
                case [int() as quota, int() as period] if quota > 0 and period > 0:
                    yield quota / period
