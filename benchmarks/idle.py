"""What a daemon costs that has nothing to do: 10 000 photos, all done, nothing arriving."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks.service import FAKE, Service, running, write_config
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import cpu_seconds, resident_mb, wakeups
from watcher.domain import Source, Stamp
from watcher.journal import Journal

TITLE = "Idle daemon"
A_FOLDER = 100
# After "ready" the status is written once more and everyone goes to sleep.
SETTLE_S = 5.0
LISTING_S = 5.0


def run(setting: Setting) -> list[Table]:
    files, seconds = setting.count(10_000, quick=500), setting.count(60, quick=5)
    rows: list[tuple[Cell, ...]] = []
    for observer in ("native", "polling"):
        with setting.folder("idle") as folder:
            _fill(folder, files)
            with running(write_config(folder, model=FAKE, observer=observer)) as service:
                time.sleep(SETTLE_S)
                rows.append((observer, *_idle(service, seconds), *_listing(service)))
    columns = (
        "observer",
        "daemon, % of a core",
        "worker, % of a core",
        "wake-ups a second",
        "daemon RSS, MB",
        "worker RSS, MB",
        "one listing, CPU ms",
    )
    notes = (
        f"{files} files in {files // A_FOLDER} folders, default settings, {seconds} s of doing nothing.",
        (
            "A whole listing comes every 300 s beside a native observer; a polling one lists every 5 s,"
            " less often once that takes long."
        ),
    )
    return [Table(TITLE, columns, tuple(rows), notes)]


def _fill(folder: Path, files: int) -> None:
    """Photos, and a journal that calls them all done; their results are nobody's business any more."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    content = simplejpeg.encode_jpeg(pixels, 90, "RGB", "420")
    sources = []
    for number in range(files):
        relpath = f"{number // A_FOLDER:03d}/{number:05d}.jpg"
        path = folder / "hot" / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sources.append(Source("hot", relpath, Stamp.of(path.stat())))
    (folder / "state").mkdir()
    place = folder / "state" / "journal.sqlite"
    with Journal(place) as journal:
        journal.admit_many(sources)
    # One statement instead of 10 000 claims and as many waits for the disk.
    with sqlite3.connect(place) as db:
        db.execute(
            "UPDATE job SET state = 'done', attempts = 1, fence = 1, outcome = '{}', ended_at = ?",
            (time.time(),),
        )
    db.close()


def _idle(service: Service, seconds: float) -> tuple[Cell, ...]:
    pids = (service.pid, service.worker)
    woken = sum(map(wakeups, pids))
    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(seconds)
    shares = [100 * (cpu_seconds(pid) - was) / seconds for pid, was in zip(pids, before, strict=True)]
    often = (sum(map(wakeups, pids)) - woken) / seconds
    return (*shares, often, *(resident_mb(pid) for pid in pids))


def _listing(service: Service) -> tuple[Cell, ...]:
    """What a scan costs, with the new observer that comes with one that was asked for."""
    before = cpu_seconds(service.pid)
    os.kill(service.pid, signal.SIGUSR1)
    time.sleep(LISTING_S)
    return (1000 * (cpu_seconds(service.pid) - before),)
