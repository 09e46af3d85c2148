"""What the disk alone lets through: results that are there already, published again with nothing else to do."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from watcher.pipeline import publish
from watcher.pipeline.sidecar import SIDECAR

# So many sets of results are read before the clock runs.
_SETS = 16


@dataclass(frozen=True, slots=True)
class Disk:
    """Photos a second that could be made durable, and megabytes of one, its sidecar included."""

    pace: float
    photo_mb: float


@dataclass(frozen=True, slots=True)
class _Set:
    """The results of one photo; `size` in bytes."""

    files: list[tuple[str, bytes]]
    sidecar: bytes

    @classmethod
    def of(cls, sidecar: Path) -> _Set:
        base = sidecar.name.removesuffix(SIDECAR)
        paths = [path for path in sidecar.parent.glob(f"{base}.*") if path != sidecar]
        return cls(
            [(path.name.removeprefix(base), path.read_bytes()) for path in paths], sidecar.read_bytes()
        )

    @property
    def size(self) -> int:
        return len(self.sidecar) + sum(len(content) for _, content in self.files)


def measure(mattes: Path, *, seconds: float) -> Disk:
    """Publish sets of results that lie in `mattes`, again and again, by a thread for each core, on the same disk."""
    sets = [_Set.of(path) for path in sorted(mattes.glob(f"*{SIDECAR}"))[:_SETS]]
    place = mattes.parent / "again"
    numbers, cores = itertools.count(1), len(os.sched_getaffinity(0))
    began = time.perf_counter()

    def work(_: int) -> None:
        while time.perf_counter() - began < seconds:
            number = next(numbers)
            one = sets[number % len(sets)]
            publish.publish_all(place, f"photo-{number}", one.files, sidecar=one.sidecar, job_id=number)

    try:
        with ThreadPoolExecutor(cores) as threads:
            list(threads.map(work, range(cores)))
        took = time.perf_counter() - began
        count = sum(1 for _ in place.glob(f"*{SIDECAR}"))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return Disk(count / took, sum(one.size for one in sets) / len(sets) / 1e6)
