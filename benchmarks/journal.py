"""The journal: how many jobs a second may come, be taken and end; and whether a long queue slows it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from watcher.domain import Source, Stamp
from watcher.journal import Journal
from watcher.mounts import mount_of

TITLE = "Journal"
# As the intake admits them: see watcher/intake/admit.py.
BATCH = 512
LEASE_S = 120.0

_Result = TypeVar("_Result")


class _Clock:
    """Adds up the wall and CPU time of pieces of work."""

    def __init__(self) -> None:
        self._walls: list[float] = []
        self._cpu = 0.0

    def time(self, work: Callable[[], _Result]) -> _Result:
        cpu, began = time.process_time(), time.perf_counter()
        result = work()
        self._walls.append(time.perf_counter() - began)
        self._cpu += time.process_time() - cpu
        return result

    def row(self, what: str, waiting: int | None, *, each: int = 1) -> tuple[Cell, ...]:
        """`each`: how many things one piece of work is."""
        count = len(self._walls) * each
        slowest = 1000 * max(self._walls)
        return (
            what,
            waiting,
            count / sum(self._walls),
            1000 * statistics.median(self._walls) / each,
            slowest / each,
            1000 * self._cpu / count,
        )


def run(setting: Setting) -> list[Table]:
    times = setting.count(500, quick=20)
    rows: list[tuple[Cell, ...]] = []
    with setting.folder("journal") as folder:
        kind = mount_of(folder).kind
        for waiting in (10, 1000, setting.count(100_000, quick=2000)):
            with Journal(folder / f"{waiting}.sqlite") as journal:
                rows += _rows(journal, waiting, times)
        rows.append(_floor(folder / "floor.bin", times))
    columns = ("what", "waiting jobs", "a second", "median ms", "slowest ms", "CPU ms")
    notes = (
        (
            f"On {kind}. Each is one transaction that is on the disk when it returns; admissions in batches"
            f" share one among {BATCH}. The milliseconds are for one job."
        ),
        "`count all` and `list all` are what the status and a scan of the hot folder ask.",
    )
    return [Table(TITLE, columns, tuple(rows), notes)]


def _rows(journal: Journal, waiting: int, times: int) -> list[tuple[Cell, ...]]:
    """Jobs come and go one by one, so that `waiting` of them wait all the while."""
    batches, admit, claim, finish, count, listing = (_Clock() for _ in range(6))
    fill = [_source("fill", number) for number in range(waiting)]
    whole = waiting // BATCH * BATCH
    for start in range(0, whole, BATCH):
        part = fill[start : start + BATCH]
        batches.time(lambda part=part: journal.admit_many(part))  # type: ignore[misc]
    journal.admit_many(fill[whole:])
    for number in range(times):
        source = _source("single", number)
        admit.time(lambda source=source: journal.admit(source))  # type: ignore[misc]
        (job,) = claim.time(lambda: journal.claim(["hot"], limit=1, now=time.time(), lease=LEASE_S))
        finish.time(lambda job=job: journal.finish(job, "{}"))  # type: ignore[misc]
    for _ in range(5):
        count.time(journal.counts)
        listing.time(lambda: journal.known("hot"))
    rows = [
        admit.row("admit one", waiting),
        claim.row("claim one", waiting),
        finish.row("finish one", waiting),
        count.row("count all", waiting),
        listing.row("list all", waiting),
    ]
    return [batches.row("admit in batches", waiting, each=BATCH), *rows] if waiting >= BATCH else rows


def _source(prefix: str, number: int) -> Source:
    return Source("hot", f"{prefix}/{number:06d}.jpg", Stamp(number, number))


def _floor(path: Path, times: int) -> tuple[Cell, ...]:
    """The least a durable transaction can be: one page appended and synced."""
    clock, page = _Clock(), bytes(4096)
    place = os.open(path, os.O_WRONLY | os.O_CREAT)

    def append() -> None:
        os.write(place, page)
        os.fsync(place)

    try:
        for _ in range(times):
            clock.time(append)
    finally:
        os.close(place)
    return clock.row("floor: append 4 kB, fsync", None)
