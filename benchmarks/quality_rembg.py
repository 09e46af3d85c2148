"""Mattes beside rembg's: the same photos, the same weights, each with its own way around them."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pairs import Pair
from benchmarks.quality import Bench, matte, pairs_of
from benchmarks.rembg import MODEL, VERSION, command_of, same_weights
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import spent_by
from watcher.metrics import Scores, scores

TITLE = "Quality beside rembg"


def run(setting: Setting) -> list[Table]:
    with setting.folder("quality-rembg") as folder:
        given = pairs_of(setting)
        same_weights(folder)
        bench = Bench(folder)
        ours, _ = bench.results([pair.image for pair in given], "small")
        theirs = _rembg(given, folder)
        found = {
            "rembg": [scores(matte(theirs / f"{pair.name}.png"), pair.truth) for pair in given],
            "hotmatte": [scores(matte(ours / f"{pair.name}.matte.png"), pair.truth) for pair in given],
        }
    return [_table(given, found)]


def _rembg(given: Sequence[Pair], folder: Path) -> Path:
    photos, made = folder / "photos", folder / "made"
    photos.mkdir()
    for pair in given:
        shutil.copyfile(pair.image, photos / pair.image.name)
    env = {**os.environ, "U2NET_HOME": str(folder / "weights")}
    command = [str(command_of()), "p", "-m", MODEL, str(photos), str(made)]
    spent_by(command, env=env, log=folder / "rembg.txt", cores=os.sched_getaffinity(0))
    return made


def _table(given: Sequence[Pair], found: dict[str, list[Scores]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for number, pair in enumerate(given):
        rows += [(pair.name, who, *_figures([of[number]])) for who, of in found.items()]
    rows += [("mean", who, *_figures(of)) for who, of in found.items()]
    return Table(
        TITLE,
        ("photo", "by", "SAD", "MSE x1e-3", "Grad"),
        tuple(rows),
        (
            f"{MODEL} with the same weights: `rembg p` {VERSION}; hotmatte with a profile that only names the model.",
        ),
    )


def _figures(of: Sequence[Scores]) -> tuple[float, float, float]:
    sad, mse, grad = (statistics.fmean(getattr(one, name) for one in of) for name in ("sad", "mse", "grad"))
    return sad, 1000 * mse, grad
