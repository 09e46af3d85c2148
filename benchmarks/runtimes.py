"""A hot folder full of photos at once, by each runtime for CPUs: one worker on all cores, and a crew that shares them."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import mean

import yaml

from benchmarks import photos
from benchmarks.service import running, write_config
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.throughput import QUIET_S, Flood, flood
from watcher.engine.card import card_folders

TITLE = "Runtimes and workers on a CPU"
# What a row is called: the card, and what is changed in it.
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "modnet": ("modnet", {}),
    "modnet, ONNX Runtime": ("modnet", {"engine_cpu": None}),
    "modnet-openvino": ("modnet-openvino", {}),
    "modnet-bf16": ("modnet-bf16", {}),
}
CORES = len(os.sched_getaffinity(0))
# `workers_cpu` of the card.
WORKERS = 1, CORES


def run(setting: Setting) -> list[Table]:
    ways = [(model, workers) for model in MODELS for workers in WORKERS]
    count = setting.count(40, quick=14)
    floods: dict[tuple[str, int], list[Flood]] = {way: [] for way in ways}
    with setting.folder("runtimes") as folder:
        made = photos.make(setting.photos, folder / "photos", count=count, size=photos.FULL_HD)
        # There and back, so that a machine that gets slower or faster meanwhile is in all of them.
        for turn, way in enumerate([*ways, *reversed(ways)]):
            with running(_config(folder / str(turn), *way)) as service:
                floods[way].append(flood(made, service))
                made = [service.hot / path.name for path in made]
    slowest = min(_pace(measured) for measured in floods.values())
    rows: list[tuple[Cell, ...]] = [
        (
            model,
            "each a core" if workers == CORES else workers,
            _pace(measured),
            _pace(measured) / slowest,
            mean(one.used for one in measured),
            max(one.all_mb for one in measured),
        )
        for (model, workers), measured in floods.items()
    ]
    columns = (
        "model",
        "workers",
        "photos a second",
        "to the least",
        "CPU ms a photo",
        "all processes, peak MB",
    )
    notes = (
        (
            f"{2 * count} photos of 1080p for each row, in two floods of {count} that begin with one worker: forward"
            " through the rows, then back. Cutout and matte, default settings, every file on the disk at the end."
        ),
        f"{CORES} cores. CPU time is that of all processes, the start of further workers included.",
    )
    return [Table(TITLE, columns, tuple(rows), notes)]


def _pace(measured: list[Flood]) -> float:
    return sum(one.count for one in measured) / sum(one.wall_s for one in measured)


def _config(folder: Path, label: str, workers: int) -> Path:
    model, changes = MODELS[label]
    cards = folder / "cards"
    cards.mkdir(parents=True)
    card = yaml.safe_load((card_folders(None)[0] / f"{model}.yaml").read_text(encoding="utf-8"))
    card |= {"workers_cpu": workers, **changes}
    (cards / f"{model}.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    return write_config(folder, model=model, cards=cards, quiet_s=QUIET_S)
