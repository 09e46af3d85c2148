"""How long a command takes to answer, and a daemon to be ready."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.service import FAKE, REAL, running, write_config
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import cpu_seconds, spent_by
from watcher.cli import COMMANDS

TITLE = "Start-up"
CACHE = "NUMBA_CACHE_DIR"


def run(setting: Setting) -> list[Table]:
    return [_helps(setting), _daemons(setting)]


def _helps(setting: Setting) -> Table:
    times = setting.count(5, quick=1)
    rows: list[tuple[Cell, ...]] = []
    with setting.folder("startup") as folder:
        for words in ([], *([command] for command in COMMANDS)):
            command = [sys.executable, "-m", "watcher", *words, "--help"]
            spent = [
                spent_by(command, env=os.environ, log=folder / "log", cores=os.sched_getaffinity(0))
                for _ in range(times)
            ]
            name = " ".join(["hotmatte", *words, "--help"])
            cpu, wall = (
                1000 * statistics.median(getattr(one, kind) for one in spent) for kind in ("cpu", "wall")
            )
            rows.append((name, cpu, wall, 1000 * min(one.wall for one in spent)))
    columns = ("command", "CPU ms", "wall ms", "wall, least ms")
    notes = (f"Medians of {times}, Python's own start in them. Meant to be below 150 ms for the first.",)
    return Table("Help", columns, tuple(rows), notes)


def _daemons(setting: Setting) -> Table:
    times = setting.count(5, quick=1)
    rows: list[tuple[Cell, ...]] = []
    with setting.folder("startup") as folder:
        for model, words in ((FAKE, "without a model"), (REAL, "MODNet on the CPU")):
            for kept in (False, True):
                found = [_ready(folder / f"{model}-{kept}-{one}", model, kept=kept) for one in range(times)]
                walls, cpus = zip(*found, strict=True)
                row = (statistics.median(walls), min(walls), statistics.median(cpus))
                rows.append((words, "kept" if kept else "to be made", *row))
    columns = ("engine", "compiled loops", "ready after, median s", "least s", "daemon CPU s")
    notes = (
        f"From the start of `hotmatte run` until it says ready; {times} times, empty hot folder.",
        "Loops are compiled at the first start and kept for all others; READY does not wait for them, the first photo does.",
        "Meant to be below 2 s plus the model's own start.",
    )
    return Table("A daemon until it is ready", columns, tuple(rows), notes)


def _ready(folder: Path, model: str, *, kept: bool) -> tuple[float, float]:
    """Wall and CPU seconds of the daemon's start."""
    folder.mkdir()
    config = write_config(folder, model=model)
    with _cache(None if kept else folder / "compiled"):
        began = time.perf_counter()
        with running(config) as service:
            return time.perf_counter() - began, cpu_seconds(service.pid)


@contextmanager
def _cache(folder: Path | None) -> Iterator[None]:
    """With an empty cache of compiled loops in `folder`; None: with the one that is there."""
    before = os.environ.get(CACHE)
    if folder is not None:
        os.environ[CACHE] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(CACHE, None)
        if before is not None:
            os.environ[CACHE] = before
