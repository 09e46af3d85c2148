"""Does memory grow? A long stream of photos through one daemon, memory noted all the way."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import photos
from benchmarks.service import FAKE, REAL, Service, running, write_config
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import cpu_seconds, resident_mb

TITLE = "Memory over a long run"
DIFFERENT = 20
# Enough that the daemon never waits for us, few enough that the disk does not fill.
AHEAD = 50
LOOK_S = 0.1
STALLED_S = 120.0


@dataclass(frozen=True, slots=True)
class Point:
    """Megabytes after so many photos."""

    done: int
    daemon: float
    worker: float


def run(setting: Setting) -> list[Table]:
    rows: list[tuple[Cell, ...]] = []
    curves = {}
    for model, count in ((FAKE, setting.count(1000, quick=60)), (REAL, setting.count(300, quick=12))):
        with setting.folder("growth") as folder:
            made = photos.make(setting.photos, folder / "photos", count=DIFFERENT)
            with running(write_config(folder, model=model, quiet_s=0.2)) as service:
                began, before = time.monotonic(), cpu_seconds(service.pid) + cpu_seconds(service.worker)
                curve = list(_stream(service, made, count))
                seconds = time.monotonic() - began
                cpu = cpu_seconds(service.pid) + cpu_seconds(service.worker) - before
        rows += _rows(model, count, curve, (count / seconds, 1000 * cpu / count))
        curves[model] = [[point.done, round(point.daemon), round(point.worker)] for point in curve]
    columns = (
        "engine",
        "process",
        "photos",
        "RSS after the first tenth, MB",
        "RSS at the end, MB",
        "growth, %",
        "largest, MB",
        "photos a second",
        "CPU ms a photo",
    )
    notes = (
        (
            "1080p JPEGs, cutout and matte, default settings. RSS swings with what is in flight: medians over the"
            " second and over the last tenth of the photos."
        ),
        "CPU and photos a second are those of both processes together, feeding included in the time.",
        "The memory that daemon and worker share for pixels counts in both.",
        f"The alpha of {FAKE} is luminance: soft everywhere, which is the dearest there is to refine and encode.",
    )
    return [Table(TITLE, columns, tuple(rows), notes, curves), _curve(curves)]


def _stream(service: Service, made: list[Path], count: int) -> Iterator[Point]:
    """Feed `count` photos, take results away as they come, note memory."""
    fed = done = 0
    progress = time.monotonic()
    while done < count:
        while fed < min(count, done + AHEAD):
            shutil.copyfile(made[fed % len(made)], service.hot / f"{fed:05d}.jpg")
            fed += 1
        came = _taken_away(service)
        done += came
        if came:
            progress = time.monotonic()
        elif time.monotonic() - progress > STALLED_S:
            raise RuntimeError(f"nothing was done for {STALLED_S:g} s after {done} photos")
        yield Point(done, resident_mb(service.pid), resident_mb(service.worker))
        time.sleep(LOOK_S)


def _taken_away(service: Service) -> int:
    """Delete finished photos with all that belongs to them; how many there were."""
    sidecars = list(service.mattes.glob("*.matte.json")) if service.mattes.exists() else []
    for sidecar in sidecars:
        name = sidecar.name.removesuffix(".matte.json")
        for path in (*service.mattes.glob(f"{name}.*"), service.hot / f"{name}.jpg"):
            path.unlink()
    return len(sidecars)


def _rows(
    model: str, count: int, curve: list[Point], pace: tuple[float, float]
) -> Iterator[tuple[Cell, ...]]:
    tenth = count // 10
    early = [point for point in curve if tenth <= point.done <= 2 * tenth]
    late = [point for point in curve if point.done >= count - tenth]
    for name in ("daemon", "worker"):
        first, last = (statistics.median(getattr(point, name) for point in part) for part in (early, late))
        largest = max(getattr(point, name) for point in curve)
        yield model, name, count, first, last, 100 * (last / first - 1), largest, *pace


def _curve(curves: dict[str, list[list[int]]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for model, points in curves.items():
        last = points[-1][0]
        for share in range(11):
            done, daemon, worker = min(points, key=lambda point: abs(point[0] - last * share / 10))
            rows.append((model, done, daemon, worker))
    return Table("The curve", ("engine", "photos done", "daemon RSS, MB", "worker RSS, MB"), tuple(rows))
