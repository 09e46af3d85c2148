"""Many thousand photos at once: each is done exactly once, in bounded memory.

`HOTMATTE_FAULTS=full` (which `make faults` sets) makes it 20 000.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from daemonrig import DaemonRig, check_set, drop, jpeg, sha256

from watcher.domain import JobState

FULL = os.environ.get("HOTMATTE_FAULTS") == "full"
COUNT = 20_000 if FULL else 500
# What a daemon of this size may take at most, whatever the number of photos: it is near
# 300 MB before the first of them, for numpy, numba, OpenCV and the decoders.
MOST_MB = 600.0

FOLDERS: dict[str, dict[str, object]] = {
    "studio": {},
    "events": {"source": "archive", "tree": "flatten"},
    "press": {"observer": "polling", "poll_interval_s": 1},
    "export": {"source": "delete"},
}
# Where within a hot folder the photos go.
PLACES = ("", "day 1", "day 1/morning", "día 2/a/b/c")


@pytest.mark.timeout(1800)
def test_every_photo_of_a_flood_is_done_exactly_once(rig: Callable[..., DaemonRig], tmp_path: Path) -> None:
    flood = rig(folders=FOLDERS, card="tiny")
    flood.start()
    photos = _photos()
    trees = _stage_trees(photos, tmp_path / "staged")
    began = time.monotonic()
    _drop_all(photos, flood)
    for (name, place), tree in trees.items():
        tree.rename(flood.hot(name) / f"moved {place.replace('/', ' ')}")
    dropped = time.monotonic() - began
    flood.wait(lambda: _ended(flood) >= COUNT, timeout=1500, every=0.25)
    seconds = time.monotonic() - began
    peak = flood.peak_rss_mb()
    print(
        f"\nflood: {COUNT} photos dropped in {dropped:.1f} s, done in {seconds:.1f} s "
        f"({COUNT / seconds:.0f}/s), peak memory of the daemon {peak:.0f} MB"
    )
    assert flood.stop() == 0
    _check_journal(flood)
    _check_outputs(flood, {sha256(content) for content in photos.values()})
    _check_sources(flood, Counter(name for name, _, _ in photos))
    assert flood.leftovers() == []
    assert peak < MOST_MB


Photos = dict[tuple[str, str, int], bytes]


def _photos() -> Photos:
    """(hot folder, sub-folder, number) -> content, evenly spread."""
    spread = itertools.cycle(itertools.product(FOLDERS, PLACES))
    return {(*next(spread), number): jpeg(number) for number in range(COUNT)}


def _name(number: int) -> str:
    return f"IMG_{number:05d}.jpg"


def _stage_trees(photos: Photos, staged: Path) -> dict[tuple[str, str], Path]:
    """A fourth of the photos comes as whole folders, each moved into place in one step."""
    trees: dict[tuple[str, str], Path] = {}
    for (name, place, number), content in photos.items():
        if _way(number) == "tree":
            tree = trees.setdefault((name, place), staged / name / place.replace("/", " ") / "x")
            drop(tree / f"part {number % 3}" / _name(number), content, how="write")
    return trees


def _way(number: int) -> str:
    """How a photo arrives; not in step with where it goes."""
    return ("rename", "write", "write", "tree")[number // 16 % 4]


def _drop_all(photos: Photos, flood: DaemonRig) -> None:
    for (name, place, number), content in photos.items():
        if (way := _way(number)) != "tree":
            drop(flood.hot(name) / place / _name(number), content, how=way)


def _ended(flood: DaemonRig) -> int:
    status = flood.status()
    return int(status["done"]) + int(status["quarantined"])


def _check_journal(flood: DaemonRig) -> None:
    """One row each, done, at the first attempt, by the only claim; and one log line each."""
    with flood.journal() as journal:
        records = journal.records(JobState.DONE, limit=2 * COUNT)
        counts = journal.counts()
    assert len(records) == COUNT
    assert {state for states in counts.values() for state in states} == {"done"}, counts
    assert {(record.job.attempts, record.job.fence, record.job.crashes) for record in records} == {(1, 1, 0)}
    assert len({(record.job.source.folder, record.job.source.relpath) for record in records}) == COUNT
    said = Counter(re.findall(r" INFO done job=(\d+) ", flood.log()))
    assert len(said) == COUNT and set(said.values()) == {1}


def _check_outputs(flood: DaemonRig, digests: set[str]) -> None:
    """One sidecar for each content, and nothing but what the sidecars list."""
    seen: list[str] = []
    for name in FOLDERS:
        sidecars = flood.sidecars(name)
        for path, content in sidecars.items():
            check_set(path, content, flood.out(name))
            seen.append(content["source"]["sha256"])
        files = [path for path in flood.out(name).rglob("*") if path.is_file()]
        listed = sum(len(content["outputs"]) for content in sidecars.values())
        assert len(files) == len(sidecars) + listed
    assert len(seen) == COUNT
    assert set(seen) == digests


def _check_sources(flood: DaemonRig, dropped: Counter[str]) -> None:
    """Left, archived, deleted: as each hot folder says."""
    found = {name: _files(flood.hot(name)) for name in FOLDERS}
    assert found == {"studio": dropped["studio"], "press": dropped["press"], "events": 0, "export": 0}
    assert _files(flood.archive("events")) == dropped["events"]


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
