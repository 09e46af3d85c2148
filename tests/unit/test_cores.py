"""How many cores there are for us: by what the kernel writes of affinity and quotas."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from watcher.cores import cores

OURS = "system.slice/hotmatte.service"


@pytest.fixture(autouse=True)
def _sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def counted(root: Path, files: dict[str, str], said: str = f"0::/{OURS}") -> int:
    files = {"proc/self/cgroup": said, **{f"sys/fs/cgroup/{path}": text for path, text in files.items()}}
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n", encoding="utf-8")
    return cores(root=root)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({f"{OURS}/cpu.max": "max 100000"}, 16),
        ({f"{OURS}/cpu.max": "200000 100000"}, 2),
        ({f"{OURS}/cpu.max": "250000 100000"}, 3),
        ({f"{OURS}/cpu.max": "5000 100000"}, 1),
        ({f"{OURS}/cpu.max": "9900000 100000"}, 16),
        # A limit of all services together, and one of ours that is wider.
        ({f"{OURS}/cpu.max": "800000 100000", "system.slice/cpu.max": "400000 100000"}, 4),
        ({f"{OURS}/cpu.max": "nonsense"}, 16),
    ],
)
def test_a_quota_bounds_what_affinity_allows(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert counted(tmp_path, files) == expected


def test_a_container_sees_its_own_quota_at_the_top(tmp_path: Path) -> None:
    assert counted(tmp_path, {"cpu.max": "150000 100000"}, "0::/") == 2


@pytest.mark.parametrize("controllers", ["cpu,cpuacct", "cpuacct,cpu", "cpu"])
@pytest.mark.parametrize(("quota", "expected"), [("-1", 16), ("300000", 3)])
def test_groups_of_the_first_version_count_as_well(
    controllers: str, quota: str, expected: int, tmp_path: Path
) -> None:
    place = f"{controllers}/docker/ab"
    files = {f"{place}/cpu.cfs_quota_us": quota, f"{place}/cpu.cfs_period_us": "100000"}
    assert counted(tmp_path, files, f"4:{controllers}:/docker/ab\n0::/") == expected


def test_a_kernel_that_says_nothing_of_groups_sets_no_bound(tmp_path: Path) -> None:
    assert cores(root=tmp_path) == 16
