"""How good the mattes are: SAD, MSE and Grad against the truth, for each profile and what it costs."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks import pairs, photos
from benchmarks.pairs import Pair
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import Spent, spent_by
from watcher.metrics import Scores, scores

TITLE = "Quality"
# What MODNet's reference does: one look at 512, plain interpolation.
PLAIN = {"looks": "one", "refine": "bilinear", "edges": []}
PROFILES = ("plain", "fast", "portrait", "best")
OUTPUTS = [{"kind": "cutout", "suffix": ".cutout.png"}, {"kind": "matte", "suffix": ".matte.png"}]
# The soft band of a matte, where the colours of a cutout have to be estimated.
SOFT = (0.02, 0.98)
SIZES = {"24 MP": (6000, 4000), "45 MP": (8256, 5504)}
# Single passes differ by a third: all profiles in turn, so often.
ROUNDS = 3
# What medium format delivers: `best` alone, for its memory.
HUGE = {"100 MP": (11648, 8736), "151 MP": (14204, 10652)}


@dataclass(frozen=True, slots=True)
class Run:
    """`scores` by pair; `cpu` seconds of one more photo, a round each; `peak_mb` of a run over all."""

    scores: dict[str, Scores]
    fringe: dict[str, float]
    cpu: list[float]
    peak_mb: float


def run(setting: Setting) -> list[Table]:
    with setting.folder("quality") as folder:
        given = pairs_of(setting)
        composites = pairs.compose(given, folder / "composites")
        bench = Bench(folder)
        bench.results([given[0].image], "best")  # unmeasured: whatever is compiled is compiled now
        rounds = setting.count(ROUNDS, quick=1)
        tables = [_table("Against the truth", bench, given, rounds)]
        # These cost what the same people cost before their own backgrounds.
        tables.append(_table("Composites with known foreground", bench, composites, 0))
        tables.append(_table("Groups", bench, pairs.groups(given, folder / "groups"), rounds))
        tables.append(_sizes(bench, setting))
    return tables


def pairs_of(setting: Setting) -> list[Pair]:
    """Those of the folders that were named, or of the tests."""
    given = [pair for root in setting.pairs or (photos.TESTS / "pairs",) for pair in pairs.read(root)]
    return given[: setting.count(len(given), quick=1)]


class Bench:
    """Runs `hotmatte matte` with each profile, on one photo and on all."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._config = folder / "hotmatte.yaml"
        settings = {
            "folders": {"hot": {"path": "hot", "output": "mattes"}},
            "profiles": {
                "plain": PLAIN | {"outputs": OUTPUTS},
                "small": {"model": "u2netp", "outputs": OUTPUTS},
            },
        }
        self._config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self._runs = 0

    def results(self, images: Sequence[Path], profile: str) -> tuple[Path, Spent]:
        """Where the mattes of `images` lie, and what they cost."""
        self._runs += 1
        made = self._folder / f"run-{self._runs}"
        words = [
            "matte",
            "--fresh",
            "--config",
            str(self._config),
            "--profile",
            profile,
            "--device",
            "cpu",
            "--quiet",
        ]
        command = [sys.executable, "-m", "watcher", *words, "-d", str(made), *map(str, images)]
        cores = frozenset(os.sched_getaffinity(0))
        return made, spent_by(command, env=os.environ, log=self._folder / "log.txt", cores=cores)

    def run(self, found: Sequence[Pair], profile: str) -> Run:
        made, every = self.results([pair.image for pair in found], profile)
        measured, fringe = {}, {}
        for pair in found:
            measured[pair.name] = scores(matte(made / f"{pair.name}.matte.png"), pair.truth)
            if pair.front is not None:
                fringe[pair.name] = _fringe(made / f"{pair.name}.cutout.png", pair)
        return Run(measured, fringe, [], every.peak_mb)

    def costs(self, images: Sequence[Path], profile: str) -> float:
        """CPU seconds of one more photo, the mean of `images`: what they take beside another one, less what that takes."""
        other = photos.SHIPPED[0]
        _, alone = self.results([other], profile)
        _, every = self.results([other, *images], profile)
        return (every.cpu - alone.cpu) / len(images)


def matte(path: Path) -> NDArray[np.float32]:
    """The alpha in a picture, 0..1: its alpha channel, or its grey levels."""
    levels = pairs.levels(path)
    return levels[..., 3] if levels.ndim == 3 else levels


def _fringe(path: Path, pair: Pair) -> float:
    """Mean difference of the cutout's colours to the true ones in the soft band, weighted by alpha."""
    cutout = pairs.levels(path)
    assert pair.front is not None
    front, both = cutout[..., 2::-1], np.minimum(pair.truth, cutout[..., 3])
    band = (pair.truth > SOFT[0]) & (pair.truth < SOFT[1]) & (both > SOFT[0])
    weight = both[band]
    difference = np.abs(front - pair.front).mean(-1)[band]
    return float(255 * (weight * difference).sum() / weight.sum())


def _table(title: str, bench: Bench, found: Sequence[Pair], rounds: int) -> Table:
    runs = {profile: bench.run(found, profile) for profile in PROFILES}
    for _ in range(rounds):
        for profile, one in runs.items():
            one.cpu.append(bench.costs([pair.image for pair in found], profile))
    rows: list[tuple[Cell, ...]] = []
    for pair in found:
        for profile, one in runs.items():
            of = one.scores[pair.name]
            rows.append(
                (pair.name, profile, of.sad, 1000 * of.mse, of.grad, one.fringe.get(pair.name), *[None] * 3)
            )
    for profile, one in runs.items():
        means = [
            statistics.fmean(getattr(of, name) for of in one.scores.values())
            for name in ("sad", "mse", "grad")
        ]
        fringe = statistics.fmean(one.fringe.values()) if one.fringe else None
        cpu = statistics.median(one.cpu) if rounds else None
        rows.append(
            (
                "mean",
                profile,
                means[0],
                1000 * means[1],
                means[2],
                fringe,
                cpu,
                _times(one, runs["plain"]),
                one.peak_mb,
            )
        )
    return Table(
        title,
        (
            "photo",
            "profile",
            "SAD",
            "MSE x1e-3",
            "Grad",
            "fringe, levels",
            "CPU s a photo",
            "x plain's",
            "peak MB",
        ),
        tuple(rows),
        (
            "`plain`: one look at 512, bilinear upsampling, as MODNet's reference does it. All with MODNet's weights.",
            (
                "CPU s: user and system time of one photo more, the worker's included, and how many times plain's:"
                f" medians of {rounds} rounds in turn. "
                if rounds
                else ""
            )
            + "Peak: the largest sum over all processes of proportional set size, several photos in flight.",
            "fringe: the cutout's colours against the true ones in the soft band, weighted by alpha, 8-bit levels.",
        ),
        {"CPU s a photo": [[profile, one.cpu] for profile, one in runs.items()]} if rounds else {},
    )


def _times(one: Run, plain: Run) -> float | None:
    """How many times the CPU time of `plain`: the median of what it was in each round."""
    ratios = [cost / base for cost, base in zip(one.cpu, plain.cpu, strict=True)]
    return statistics.median(ratios) if ratios else None


def _sizes(bench: Bench, setting: Setting) -> Table:
    rows: list[tuple[Cell, ...]] = []
    with setting.folder("quality-sizes") as folder:
        every: list[tuple[str, tuple[int, int], tuple[str, ...]]] = []
        every += [(label, size, PROFILES) for label, size in SIZES.items()]
        every += [(label, size, ("best",)) for label, size in HUGE.items()]
        for label, size, profiles in every[: setting.count(len(every), quick=1)]:
            (photo,) = photos.make(photos.SHIPPED[2:3], folder / label.replace(" ", ""), count=1, size=size)
            for profile in profiles:
                _, spent = bench.results([photo], profile)
                rows.append((label, profile, spent.wall, spent.cpu, spent.peak_mb))
    return Table(
        "Large photos",
        ("photo", "profile", "wall s", "CPU s", "peak MB"),
        tuple(rows),
        (
            "Whole processes from start to end, one JPEG each: interpreter, model and reader included.",
            "Peak: the largest sum over all processes of proportional set size.",
        ),
    )
