"""What is serial in the daemon, whatever the number of cores: how many photos a second it lets through at most.

All is real but the inference, which takes no time. Cores can be added; the interpreter's lock (GIL), the
thread that records, the journal and the folder's thread cannot.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import photos, spy
from benchmarks.service import CARDS, Service, running, write_config
from benchmarks.setting import Setting
from benchmarks.spy import Samples, Stack, runs
from benchmarks.table import Cell, Table
from benchmarks.usage import cpu_seconds, scheduled, tree_cpu_seconds

TITLE = "What is serial"
MODEL, PACED, TINY = "benchfigure", "benchpaced", "benchtiny"
CORES = 16
WANTED = 150
SMALL = 16, 16
QUIET_S, LOOK_S = 0.5, 0.05
WARM = 8
# A photo comes so much later than the one before as this machine's cores would take: some are free at any time.
EASE = 1.6


@dataclass(frozen=True, slots=True)
class Pass:
    """What a folder full of photos took; milliseconds of one photo. `core_share`: of the time that threads wanted one."""

    count: int
    wall_s: float
    daemon: float
    all_: float
    engine: float
    core_share: float
    samples: Samples = field(default_factory=Samples)

    @property
    def pace(self) -> float:
        """Photos a second."""
        return self.count / self.wall_s

    @property
    def outside(self) -> float:
        """CPU of all processes but the engine's."""
        return self.all_ - self.engine

    def took(self, wanted: Callable[[Stack], bool] = lambda _: True) -> float:
        """Milliseconds of a photo in stacks that are `wanted`."""
        return 1000 * self.samples.seconds(wanted) / self.count


@dataclass(frozen=True, slots=True)
class _Place:
    """Where it all happens; compiled code and cards are the same for all passes."""

    folder: Path
    photos: dict[tuple[int, int], list[Path]]

    def through(
        self, name: str, size: tuple[int, int], *, model: str = MODEL, only_gil: bool | None = None
    ) -> Pass:
        """All photos of `size` through a new daemon. `only_gil`: see spy.recording; None: nobody looks."""
        home = self.folder / name
        shutil.rmtree(self.folder / "cache" / "answers", ignore_errors=True)
        made = [Path(shutil.copy(path, _made(home / "photos"))) for path in self.photos[size]]
        config = write_config(
            home, model=model, quiet_s=QUIET_S, cards=self.folder / "cards", cache=self.folder / "cache"
        )
        with running(config) as service:
            _drop(made[:WARM], service)
            looks = (
                nullcontext(Samples())
                if only_gil is None
                else spy.recording(service.pid, home / "samples", only_gil=only_gil)
            )
            with looks as samples:
                return _measured(made[WARM:], service, samples)


def run(setting: Setting) -> list[Table]:
    counts = {photos.FULL_HD: setting.count(200, quick=8), SMALL: setting.count(1500, quick=30)}
    with setting.folder("serial") as folder:
        made = {
            size: photos.make(setting.photos, folder / f"{size[0]}", count=WARM + count, size=size)
            for size, count in counts.items()
        }
        place = _Place(folder, made)
        shutil.copytree(CARDS, folder / "cards")
        flood = place.through("flood", photos.FULL_HD)
        _write_paced(folder / "cards", latency=EASE / flood.pace)
        gil = place.through("gil", photos.FULL_HD, model=PACED, only_gil=True)
        threads = place.through("threads", photos.FULL_HD, model=PACED, only_gil=False)
        small = place.through("small", SMALL, model=TINY)
        serial = place.through("serial", SMALL, model=TINY, only_gil=False)
    return [_ceilings(flood, gil, threads, serial), _floods(flood, small)]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_paced(cards: Path, *, latency: float) -> None:
    card = (CARDS / f"{MODEL}.yaml").read_text(encoding="utf-8").replace(f"name: {MODEL}", f"name: {PACED}")
    (cards / f"{PACED}.yaml").write_text(f"{card}latency_s: {latency:.4f}\n", encoding="utf-8")


# --- One pass ------------------------------------------------------------------------------


def _drop(made: list[Path], service: Service) -> None:
    """All at once into the hot folder; returns when the last one is done."""
    wanted = sum(1 for _ in service.mattes.glob("*.matte.json")) + len(made)
    for path in made:
        path.rename(service.hot / path.name)
    service.await_done(wanted, every=LOOK_S)


def _measured(made: list[Path], service: Service, samples: Samples) -> Pass:
    daemon, all_ = cpu_seconds(service.pid), tree_cpu_seconds(service.pid)
    engine, (ran, waited) = cpu_seconds(service.worker), scheduled(service.pid)
    began = time.perf_counter()
    _drop(made, service)
    wall = time.perf_counter() - began - QUIET_S
    ran, waited = (now - before for now, before in zip(scheduled(service.pid), (ran, waited), strict=True))
    each = 1000 / len(made)
    return Pass(
        len(made),
        wall,
        each * (cpu_seconds(service.pid) - daemon),
        each * (tree_cpu_seconds(service.pid) - all_),
        each * (cpu_seconds(service.worker) - engine),
        ran / max(1e-9, ran + waited),
        samples,
    )


# --- Who is where --------------------------------------------------------------------------


def _records(stack: Stack) -> bool:
    """The dispatcher's thread, unless it waits for a word."""
    return runs(stack, "Dispatcher._loop", "dispatch.py") and not runs(
        stack, "Dispatcher._listen", "dispatch.py"
    )


def _in_journal(stack: Stack) -> bool:
    """In a transaction, its commit and the wait for the disk included, or waiting for another thread's."""
    return any("/journal_file.py:" in call for call in stack)


def _takes_in(stack: Stack) -> bool:
    """The hot folder's thread, unless it waits for hints."""
    return runs(stack, "FolderWatch._turn", "watch.py") and not runs(stack, "Inbox.take", "inbox.py")


def _decodes(stack: Stack) -> bool:
    return runs(stack, "Runner._decode", "runner.py")


def _finishes(stack: Stack) -> bool:
    return runs(stack, "Runner._go_on", "runner.py")


def _syncs(stack: Stack) -> bool:
    return _finishes(stack) and any(stack[-1].startswith(f"{name} (") for name in ("_fill", "_sync"))


# --- Tables --------------------------------------------------------------------------------


def _ceilings(flood: Pass, gil: Pass, threads: Pass, serial: Pass) -> Table:
    def row(what: str, took: float, seen: Pass, *, side_by_side: int = 1) -> tuple[Cell, ...]:
        return what, took, side_by_side, 1000 * side_by_side / took if took else None, seen.pace

    held = gil.took()
    rows = (
        row("CPU of all processes, the engine's left out", flood.outside, flood, side_by_side=CORES),
        row("threads that decode", threads.took(_decodes), threads, side_by_side=CORES),
        row("threads that refine, encode and publish", threads.took(_finishes), threads, side_by_side=CORES),
        row("of these, waiting for the disk", threads.took(_syncs), threads, side_by_side=CORES),
        row("the GIL of the daemon", held, gil),
        row("the GIL, less waiting for a core", held * gil.core_share, gil),
        row("the thread that claims and records", serial.took(_records), serial),
        row("of this, in the journal", serial.took(lambda s: _records(s) and _in_journal(s)), serial),
        row("the hot folder's thread", serial.took(_takes_in), serial),
    )
    notes = (
        (
            f"1080p JPEGs (the last three rows: {SMALL[0]} x {SMALL[1]}), cutout and matte, default settings, the fake"
            " engine with an alpha like that of a portrait, one look. CPU counts as the kernel books it, the rest"
            f" are samples of py-spy, {spy.RATE} a second, from outside."
        ),
        (
            f"Side by side: on {CORES} cores, where the daemon has so many threads of each kind; calculated, not run."
            " Of what is serial there is one, however many cores."
        ),
        (
            "The GIL and the threads: the engine sets a pace at which a core is free as a rule. A thread that holds"
            f" the GIL and waits for a core counts in the first of the two rows; threads had one {100 * gil.core_share:.0f} %"
            " of the time that they wanted one."
        ),
        "One transaction takes all that is done by then: at a higher pace the journal costs a photo less.",
    )
    columns = ("what", "ms a photo", "side by side", "photos a second, at most", "seen at, photos a second")
    return Table(TITLE, columns, rows, notes)


def _floods(flood: Pass, small: Pass) -> Table:
    rows = tuple(
        (f"{size[0]} x {size[1]}", seen.count, seen.pace, seen.daemon, seen.outside, seen.engine)
        for size, seen in ((photos.FULL_HD, flood), (SMALL, small))
    )
    cores = len(os.sched_getaffinity(0))
    columns = (
        "JPEGs of",
        "photos",
        "photos a second",
        "daemon, CPU ms",
        "outside the engine, CPU ms",
        "engine",
    )
    notes = (
        f"All dropped at once, nobody samples; {cores} cores, which also run the engine.",
        "What does not depend on the size of a photo went at the pace of the small ones: journal, threads, files.",
    )
    return Table("Dropped at once", columns, rows, notes)
