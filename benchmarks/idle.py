"""What a daemon costs that has nothing to do: 10 000 and 100 000 photos, all done, nothing arriving."""

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
from watcher.mounts import mount_of

TITLE = "Idle daemon"
A_FOLDER = 100
# After "ready" the status is written once more and everyone goes to sleep.
SETTLE_S = 5.0
LISTING_S = 5.0


def run(setting: Setting) -> list[Table]:
    seconds = setting.count(60, quick=5)
    trees = (setting.count(10_000, quick=500), setting.count(100_000, quick=1000))
    rows: list[tuple[Cell, ...]] = []
    for files in trees:
        with setting.folder("idle") as folder:
            _fill(folder, files)
            for observer in ("native", "polling"):
                with running(write_config(folder, model=FAKE, observer=observer)) as service:
                    time.sleep(SETTLE_S)
                    rows.append((files, observer, *_idle(service, seconds), *_listing(service)))
    columns = (
        "files",
        "observer",
        "daemon, % of a core",
        "worker, % of a core",
        "wake-ups a second",
        "daemon RSS, MB",
        "worker RSS, MB",
        "one listing, CPU ms",
    )
    notes = (
        (
            f"{A_FOLDER} files to a folder, on {mount_of(setting.scratch).kind}, default settings; {seconds} s of"
            " doing nothing."
        ),
        "A whole listing, compared with the journal, comes every 300 s. What it costs is the last column.",
        (
            "Polling looks every 5 s at each folder's times, and lists what changed; the whole is listed so often that"
            " it takes 2 % of a core. On a share only the whole is listed."
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
