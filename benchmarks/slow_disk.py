"""A folder full of photos at once on a disk that takes little, or answers late.

The kernel slows the disk for a control group, which takes root and the controller of block devices. It answers late
because the daemon sleeps before each flush: nothing else in it knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import photos
from benchmarks.service import Service, running, write_config
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.throughput import DISK, QUIET_S, flood

TITLE = "A disk that takes little"
MODEL = "benchfigure"
SPEEDS_MB = (10, 20, 40)
FLUSHES_MS = (0, 10, 30, 100)
WARM = 8
_LATE = """
import os, sys, time
if "watcher" in sys.orig_argv:
    flush = os.fsync
    def late(place):
        time.sleep({seconds})
        return flush(place)
    os.fsync = late
"""
_GROUPS = Path("/sys/fs/cgroup")


def run(setting: Setting) -> list[Table]:
    return [*_little(setting), _later(setting)]


def _little(setting: Setting) -> list[Table]:
    rows: list[tuple[Cell, ...]] = []
    count = WARM + setting.count(150, quick=8)
    with setting.folder("slow-disk") as folder:
        made = photos.make(setting.photos, folder / "photos", count=count)
        try:
            for speed in SPEEDS_MB:
                place = folder / str(speed)
                place.mkdir()
                with running(write_config(place, model=MODEL, quiet_s=QUIET_S)) as service:
                    rows.append((speed, *_row(made, service, speed)))
                made = [service.hot / path.name for path in made]
        except OSError as error:
            print(f"   left out: the disk cannot be slowed here ({error})", flush=True)
            return []
    columns = (
        "the disk takes, MB a second",
        "photos a second",
        "disk alone",
        "% of that",
        "cores busy",
        "CPU ms a photo",
    )
    notes = (
        (
            f"{count - WARM} JPEGs of 1080p renamed into the hot folder at once, cutout and matte, default settings, the fake engine with an"
            " alpha like that of a portrait. The disk is slowed by its control group, for the daemon and for who measures the disk."
        ),
        DISK,
    )
    return [Table(TITLE, columns, tuple(rows), notes)]


def _later(setting: Setting) -> Table:
    rows: list[tuple[Cell, ...]] = []
    count = WARM + setting.count(100, quick=8)
    with setting.folder("late-disk") as folder:
        made = photos.make(setting.photos, folder / "photos", count=count)
        for flush in FLUSHES_MS:
            place = folder / str(flush)
            place.mkdir()
            with (
                _late(place / "late", flush / 1000),
                running(write_config(place, model=MODEL, quiet_s=QUIET_S)) as service,
            ):
                flood(made[:WARM], service)
                flooded = flood(made[WARM:], service, before=WARM)
            made = [service.hot / path.name for path in made]
            pace = flooded.count / flooded.wall_s
            rows.append((flush, pace, flooded.used * pace / 1000))
    notes = (
        (
            f"{count - WARM} JPEGs of 1080p at once, as above, on a disk that answers each flush so much later, as a share does. A photo takes"
            " seven: cutout, matte, sidecar, and their folder four times."
        ),
    )
    return Table(
        "A disk that answers late",
        ("each flush later by, ms", "photos a second", "cores busy"),
        tuple(rows),
        notes,
    )


@contextmanager
def _late(place: Path, seconds: float) -> Iterator[None]:
    """What starts meanwhile finds a module that Python imports by itself."""
    place.mkdir()
    (place / "sitecustomize.py").write_text(_LATE.format(seconds=seconds), encoding="utf-8")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(place), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _row(made: list[Path], service: Service, speed: float) -> tuple[Cell, ...]:
    flood(made[:WARM], service)
    with _slowed(service.hot, speed, [service.pid, os.getpid()]):
        flooded = flood(made[WARM:], service, before=WARM)
    pace = flooded.count / flooded.wall_s
    busy = flooded.used * pace / 1000
    return pace, flooded.disk.pace, 100 * pace / flooded.disk.pace, busy, flooded.used


@contextmanager
def _slowed(place: Path, mb: float, pids: list[int]) -> Iterator[None]:
    """The disk that `place` is on takes `mb` megabytes a second of all that these processes write. Raises OSError."""
    group, limit, members = _group(_device(place), round(mb * 1e6))
    group.mkdir()
    try:
        (group / limit[0]).write_text(limit[1], encoding="ascii")
        for pid in pids:
            (group / members).write_text(str(pid), encoding="ascii")
        yield
    finally:
        for pid in pids:
            (group.parent / members).write_text(str(pid), encoding="ascii")
        group.rmdir()


def _group(device: str, speed: int) -> tuple[Path, tuple[str, str], str]:
    """A group to make, the file and text that slow it, and the file for its members: cgroups(7), both versions."""
    if (_GROUPS / "cgroup.controllers").exists():
        return _GROUPS / "hotmatte-slow", ("io.max", f"{device} wbps={speed}"), "cgroup.procs"
    group = _GROUPS / "blkio" / "hotmatte-slow"
    return group, ("blkio.throttle.write_bps_device", f"{device} {speed}"), "cgroup.procs"


def _device(place: Path) -> str:
    """Major and minor number of the whole disk, of which `place` may be on a partition."""
    number = place.stat().st_dev
    node = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve(strict=True)
    whole = node.parent if (node / "partition").exists() else node
    return (whole / "dev").read_text(encoding="ascii").strip()
