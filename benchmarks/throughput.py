"""A hot folder full of photos at once: how near `run` comes to the best that the stages' own CPU times allow."""

from __future__ import annotations

import itertools
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks import cores, disk, photos
from benchmarks.cores import Least
from benchmarks.service import REAL, Service, running, write_config
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import Peak, children, cpu_seconds, peak_mb, tree_cpu_seconds, works_on_photos
from watcher.engine import weights
from watcher.engine.card import card_folders
from watcher.pipeline.finish import warm_up

TITLE = "Throughput of run"
DISK = (
    "Disk alone: the same results published again with nothing else to do, by a thread for each core. Where that is less"
    " than the bound, it is the bound."
)
QUIET_S = 0.5
LOOK_AT_MEMORY_S = 5.0
DISK_S = 4.0


@dataclass(frozen=True, slots=True)
class Flood:
    """CPU milliseconds a photo, in the workers and in all; peaks in megabytes."""

    count: int
    wall_s: float
    used: float
    inside: float
    daemon_mb: float
    all_mb: float
    disk: disk.Disk

    def share(self, least: Least) -> float:
        """Percent of the bound."""
        return 100 * self.count / self.wall_s / _bound(least)

    def row(self, beside: Least, alone: Least) -> tuple[Cell, ...]:
        pace = self.count / self.wall_s
        return (
            pace,
            _bound(beside),
            self.share(beside),
            _bound(alone),
            self.share(alone),
            self.used * pace / 1000,
            self.used,
            beside.sum,
            alone.sum,
            self.used - self.inside,
            self.disk.photo_mb * pace,
            self.disk.pace,
            self.daemon_mb,
            self.all_mb,
        )


def _bound(least: Least) -> float:
    """Photos a second on all cores."""
    return 1000 * cores.count() / least.sum


def run(setting: Setting) -> list[Table]:
    loads = (
        ("1080p", photos.FULL_HD, setting.count(200, quick=6), 1),
        ("24 MP", photos.LARGE, setting.count(40, quick=4), setting.count(3, quick=1)),
    )
    warm_up(weights.cache_folder(None))  # or the first daemon compiles its loops in the middle of a flood
    rows: list[tuple[Cell, ...]] = []
    for name, size, count, times in loads:
        with setting.folder("throughput") as folder:
            made = photos.make(setting.photos, folder / "photos", count=count, size=size)
            before = cores.alone(made[::2], folder / "alone")
            made, firsts, later = _floods(made, folder, times)
            alone = Least.of([*before, *cores.alone(made[1::2], folder / "alone")])
            for named, floods in ((name, later), (f"{name}, first after the start", firsts)):
                flooded, beside = sorted(floods, key=lambda found: found[0].share(found[1]))[len(floods) // 2]
                shares = ", ".join(f"{one.share(least):.1f}" for one, least in floods)
                rows.append((named, count, *flooded.row(beside, alone), shares))
            if size == photos.FULL_HD:
                made = made[: setting.count(count // 2, quick=count)]
                with running(_one_worker(folder / "one")) as service:
                    row = flood(made, service).row(beside, alone)
                rows.append((f"{name}, one worker", len(made), *row, None))
    columns = (
        "JPEGs of",
        "photos",
        "photos a second",
        "bound",
        "% of the bound",
        "bound, one core",
        "% of that",
        "cores busy",
        "CPU ms a photo",
        "least CPU ms",
        "with one core",
        "CPU ms outside the engine",
        "written, MB a second",
        "disk alone, photos a second",
        "daemon, peak MB",
        "all processes, peak MB",
        "% of the bound, each flood",
    )
    notes = (
        "MODNet on the CPU, cutout and matte, default settings, every file and the journal on the disk at the end.",
        (
            "Least: the same photos one after the other on each core, each core by itself: a worker with one thread,"
            " a process that reads, no daemon, as many looks as the daemon takes; CPU time of all processes. Bound:"
            f" {cores.count()} cores through that. Half of the photos right before a flood and half right after, since machines"
            " change their pace. Of several floods the row is the one in the middle."
        ),
        (
            "With one core: the same with nothing on the others, half of the photos before all floods and half after. What"
            " a photo then takes less, cores take from each other (memory, caches, a core that is two): no daemon can help it."
        ),
        (
            "The daemon has done the same photos before, under other names, and no answer is kept. First after the start:"
            " two workers are booted meanwhile, and all memory is asked of the kernel for the first time; where the machine"
            " is a virtual one that gives free memory back to its host, that alone takes 2 to 3 ms of CPU a megabyte instead of 0.1."
        ),
        (
            f"All photos are renamed into the hot folder at once. The clock runs from the end of the quiet period"
            f" ({QUIET_S:g} s) until the last sidecar."
        ),
        (
            f"Cores busy below {cores.count()} with photos waiting: somebody else had them, or they were left idle. CPU time"
            " a photo above the least: work that running side by side adds."
        ),
        DISK,
        "One worker: `workers_cpu: 1` in the card; half of the photos, right after the others.",
        "Peak of the daemon is its VmHWM, memory shared with the worker in full; of all, proportional set sizes.",
    )
    return [Table(TITLE, columns, tuple(rows), notes)]


def _floods(
    made: list[Path], folder: Path, times: int
) -> tuple[list[Path], list[tuple[Flood, Least]], list[tuple[Flood, Least]]]:
    """Where `made` lie in the end, and the floods of so many daemons, each with what the photos took right before and after.

    First those right after the start, then those of the same photos once more, which find workers that have been at work.
    """
    beside, firsts, later = [cores.beside(made[::2], folder / "alone")], [], []
    for number in range(times):
        place = folder / f"flood-{number}"
        (place / "copies").mkdir(parents=True)
        with running(write_config(place, model=REAL, quiet_s=QUIET_S)) as service:
            firsts.append(flood(made, service))
            made = [service.hot / path.name for path in made]
            beside.append(cores.beside(made[1::2], folder / "alone"))
            copies = [Path(shutil.copy(path, place / "copies" / f"again-{path.name}")) for path in made]
            later.append(flood(copies, service, before=len(made)))
        beside.append(cores.beside(made[::2], folder / "alone"))
    least = [Least.of([*before, *after]) for before, after in itertools.pairwise(beside)]
    return made, list(zip(firsts, least[::2], strict=True)), list(zip(later, least[1::2], strict=True))


def _one_worker(folder: Path) -> Path:
    """A configuration whose worker computes one photo after the other, each on all cores."""
    cards = folder / "cards"
    cards.mkdir(parents=True)
    card = yaml.safe_load((card_folders(None)[0] / f"{REAL}.yaml").read_text(encoding="utf-8"))
    (cards / f"{REAL}.yaml").write_text(yaml.safe_dump(card | {"workers_cpu": 1}), encoding="utf-8")
    return write_config(folder, model=REAL, cards=cards, quiet_s=QUIET_S)


def flood(made: list[Path], service: Service, *, before: int = 0) -> Flood:
    """All of `made` renamed into the hot folder at once, and what it took until the last was done.

    `before`: so many photos were done before.
    """
    count = len(made)
    cpu, engine = tree_cpu_seconds(service.pid), _in_workers(service)
    peak = Peak(service.pid, every=LOOK_AT_MEMORY_S)
    for path in made:
        path.rename(service.hot / path.name)
    began = time.time() + QUIET_S
    service.await_done(before + count)
    # Not when we saw it, which is up to a quarter of a second later.
    wall = max(path.stat().st_mtime for path in service.mattes.glob("*.matte.json")) - began
    used = 1000 * (tree_cpu_seconds(service.pid) - cpu) / count
    inside = 1000 * (_in_workers(service) - engine) / count
    most, of_all = peak_mb(service.pid), peak.stop()
    return Flood(count, wall, used, inside, most, of_all, disk.measure(service.mattes, seconds=DISK_S))


def _in_workers(service: Service) -> float:
    """CPU seconds of the workers there are by now, their start included."""
    return sum(cpu_seconds(child) for child in children(service.pid) if not works_on_photos(child))
