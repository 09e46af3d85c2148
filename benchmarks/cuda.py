"""A GPU of NVIDIA: what a model itself could do there, what the way to it lets through, and all stages together."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks import cores, photos
from benchmarks.cores import Least
from benchmarks.gpu import PROXY, through
from benchmarks.service import REAL, running, write_config
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.throughput import DISK, QUIET_S, Flood, flood
from benchmarks.usage import GpuUse
from watcher.engine import weights
from watcher.engine.card import Card, card_folders, load_card
from watcher.engine.launch import prepare
from watcher.errors import EngineUnavailable

DEVICE = "cuda"
HALF = f"{REAL}-fp16"
# (photos in a batch, workers)
WAYS = ((1, 1), (1, 2), (1, 3), (4, 2))
# ... and who renders.
FLOODS = (
    (REAL, 1, 2, "threads"),
    (REAL, 1, 1, "processes"),
    (REAL, 1, 2, "processes"),
    (REAL, 1, 3, "processes"),
    (HALF, 1, 2, "processes"),
)
# Of the photos of a flood, the share that goes before it: for each shape of picture a worker prepares once.
FIRST = 5
# Photos whose alphas are computed before, and how often each core takes the next of them.
TOLD, TURNS = 48, 4
# Batches that wait or are under way, for each worker.
DEEP = 3


@dataclass(frozen=True, slots=True)
class Model:
    """A card, its weights, and milliseconds an image that the GPU itself takes, by the photos in a batch."""

    card: Card
    graph: Path
    ceilings: dict[int, float]


def run(setting: Setting) -> list[Table]:
    gpu = _name()
    if gpu is None:
        print("   left out: there is no GPU that nvidia-smi knows", flush=True)
        return []
    models = [model for name in (REAL, HALF) if (model := _model(name, setting)) is not None]
    return [_way(setting, gpu, models), _stages(setting, gpu, models)]


def _name() -> str | None:
    try:
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _model(name: str, setting: Setting) -> Model | None:
    """None where its weights are not at hand, as those that are made here."""
    card = load_card(name, card_folders(None))
    try:
        graph = weights.ensure(card, weights.cache_folder(None))
    except EngineUnavailable as error:
        print(f"   {name} left out: {error}", flush=True)
        return None
    assert graph is not None
    times = setting.count(100, quick=5)
    return Model(
        card, graph, {batch: _ceiling(graph, batch, times) for batch in sorted({b for b, _ in WAYS})}
    )


def _ceiling(graph: Path, batch: int, times: int) -> float:
    command = [sys.executable, "-m", "benchmarks.ceiling", graph, *PROXY, batch, times]
    return float(subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout)


def _way(setting: Setting, gpu: str, models: list[Model]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    count = setting.count(1500, quick=60)
    for model in models:
        for batch, workers in WAYS:
            # An engine computes together what fills a batch of the card, and all else one by one.
            launch = prepare(model.card.model_copy(update={"max_batch": batch}), model.graph, device=DEVICE)
            used = GpuUse()
            in_flight = DEEP * batch * workers
            wall, cpu = through(launch, count, batch, workers, model.card.max_delay_ms / 1000, in_flight)
            ceiling, busy = model.ceilings[batch], used.stop()
            rows.append(
                (
                    model.card.name,
                    batch,
                    workers,
                    count / wall,
                    1000 / ceiling,
                    100 * count * ceiling / 1000 / wall,
                    busy,
                    1000 * cpu / count,
                )
            )
    columns = (
        "model",
        "in batches of",
        "workers",
        "images a second",
        "the model's own ceiling",
        "% of the ceiling",
        "GPU busy, %",
        "CPU ms an image",
    )
    notes = (
        f"{gpu}; {count} images of {PROXY[1]}x{PROXY[0]}, one look, {DEEP} batches a worker waiting or under way.",
        (
            "Decoding and refining are left out, so that there is always work: what remains is the way from the"
            " runner to the worker, the GPU, and back."
        ),
        "The model's own ceiling: one batch after the other, input and alpha stay on the GPU (median).",
        (
            "GPU busy: median of what nvidia-smi says ten times a second, the part of the time in which it did"
            " anything at all. Workers can compute at one time, and so be above the ceiling."
        ),
    )
    return Table("The way to a GPU", columns, tuple(rows), notes)


def _stages(setting: Setting, gpu: str, models: list[Model]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    count = setting.count(500, quick=20)
    by_name = {model.card.name: model for model in models}
    with setting.folder("cuda") as folder:
        made = photos.make(setting.photos, folder / "photos", count=count)
        rest = _rest(made[: setting.count(TOLD, quick=4)], folder, setting.count(TURNS, quick=1))
        for name, batch, workers, rendering in FLOODS:
            if name not in by_name:
                continue
            place = folder / f"{name}-{batch}-{workers}-{rendering}"
            first, others = made[::FIRST], [path for number, path in enumerate(made) if number % FIRST]
            with running(_config(place, name, batch, workers, rendering)) as service:
                began = flood(first, service)
                used = GpuUse()
                flooded = flood(others, service, before=len(first))
                busy = used.stop()
            made = [service.hot / path.name for path in made]
            pace = began.count / began.wall_s
            rows.append(
                (
                    name,
                    batch,
                    workers,
                    rendering,
                    pace,
                    *_row(flooded, rest, by_name[name].ceilings[batch], busy),
                )
            )
    columns = (
        "model",
        "in batches of",
        "workers",
        "rendering in",
        "photos a second, the first",
        "the rest",
        "the model's own ceiling",
        "GPU busy, %",
        "bound of the cores",
        "% of that",
        "cores busy",
        "CPU ms a photo",
        "CPU ms outside the engine",
        "least outside it",
        "with one core",
        "written, MB a second",
        "disk alone, photos a second",
        "daemon, peak MB",
        "all processes, peak MB",
    )
    notes = (
        f"{gpu}; {cores.count()} cores; {count} JPEGs of 1080p renamed into the hot folder at once, cutout and matte, default settings.",
        f"The first are a {FIRST}th of them: for these each worker prepares itself once for each shape of picture.",
        f"The clock runs from the end of the quiet period ({QUIET_S:g} s) until the last sidecar.",
        "The model's own ceiling: looks of one size, one a photo. Photos in doubt are looked at again.",
        (
            "Least outside the engine: photos one after the other on each core, all cores at one time, each by itself, with"
            " alphas that lie there. Bound of the cores: that, and what the engine takes of them. With one core: the same with"
            " nothing on the others; what a photo then takes less, cores take from each other (a core may be half of one)."
        ),
        DISK,
    )
    return Table("Throughput of run with a GPU", columns, tuple(rows), notes)


def _rest(made: list[Path], folder: Path, turns: int) -> tuple[float, float]:
    """CPU milliseconds outside the engine: all cores at one time, and one core by itself."""
    told = cores.tell(made, folder)
    beside = cores.beside(made * turns, folder / "beside", told=told)
    alone = cores.alone(made[::4], folder / "alone", told=told)
    return Least.of(beside).rest, Least.of(alone).rest


def _row(flooded: Flood, rest: tuple[float, float], ceiling: float, busy: float) -> tuple[Cell, ...]:
    pace = flooded.count / flooded.wall_s
    bound = 1000 * cores.count() / (flooded.inside + rest[0])
    return (
        pace,
        1000 / ceiling,
        busy,
        bound,
        100 * pace / bound,
        flooded.used * pace / 1000,
        flooded.used,
        flooded.used - flooded.inside,
        *rest,
        flooded.disk.photo_mb * pace,
        flooded.disk.pace,
        flooded.daemon_mb,
        flooded.all_mb,
    )


def _config(folder: Path, name: str, batch: int, workers: int, rendering: str) -> Path:
    cards = folder / "cards"
    cards.mkdir(parents=True)
    card = yaml.safe_load((card_folders(None)[0] / f"{name}.yaml").read_text(encoding="utf-8"))
    changed = card | {"max_batch": batch, "workers": workers}
    (cards / f"{name}.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    profile, limits = {"device": DEVICE}, {"rendering": rendering}
    return write_config(folder, model=name, cards=cards, profile=profile, limits=limits, quiet_s=QUIET_S)
