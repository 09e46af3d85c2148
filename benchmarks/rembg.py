"""Side by side with rembg: the same photos, weights, threads and kind of result; whole runs in turn."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from benchmarks import photos
from benchmarks.service import write_config
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import Spent, spent_by
from watcher.engine import weights
from watcher.engine.card import card_folders, load_card

TITLE = "Beside rembg"
REQUIREMENT, VERSION = "rembg[cpu,cli]", "2.0.86"
MODEL = "u2netp"
PLAIN, CLEAN = "plain cutout", "clean edges"
LIKE, USUAL, SAME = "hotmatte", "hotmatte, contour redrawn", "hotmatte, by ONNX Runtime"


@dataclass(frozen=True, slots=True)
class Contender:
    """`command` makes RGBA PNGs of every photo in its first folder, in its second."""

    name: str
    command: Callable[[Path, Path], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Run:
    """The same command on one photo and on all: the difference is without the start."""

    one: Spent
    every: Spent


def run(setting: Setting) -> list[Table]:
    count, rounds = setting.count(40, quick=4), setting.count(2, quick=1)
    cores = sorted(os.sched_getaffinity(0))
    tables: list[Table] = []
    with setting.folder("rembg") as folder:
        photos.make(setting.photos, folder / "photos", count=count)
        photos.make(setting.photos, folder / "one", count=1)
        cards = same_weights(folder)
        race = _Race(folder, frozenset(cores), count)
        tables.append(_table(race, (PLAIN, CLEAN), rounds, f"{len(cores)} core(s)", cards, runtimes=True))
        few = setting.count(4, quick=2)
        for name, number in (("photos", few), ("one", 1)):
            shutil.rmtree(folder / name)
            photos.make(setting.photos, folder / name, count=number, size=photos.LARGE)
        race = _Race(folder, frozenset(cores), few, size=photos.LARGE)
        tables.append(_table(race, (CLEAN,), 1, f"24 MP, {len(cores)} core(s)", cards))
    return tables


def _table(
    race: _Race, kinds: Sequence[str], rounds: int, what: str, peer: str, *, runtimes: bool = False
) -> Table:
    rows: list[tuple[Cell, ...]] = []
    samples = {}
    for kind in kinds:
        spent = race.run(_contenders(race.folder, clean=kind == CLEAN, runtimes=runtimes), rounds)
        figures = {who: _figures(runs, race.count) for who, runs in spent.items()}
        rows += [(kind, who, *found) for who, found in figures.items()]
        for who in list(figures)[1:]:
            each = zip(figures["rembg"], figures[who], strict=True)
            # Photos a second are better when more, all else when less.
            ratios = [b / a if column == 5 else a / b for column, (a, b) in enumerate(each)]
            rows.append((kind, f"rembg / {who}", *ratios))
        for who, runs in spent.items():
            lines = [[run.one.cpu, run.every.cpu, run.every.wall, run.every.peak_mb] for run in runs]
            samples[f"{kind}, {who}"] = lines
    columns = (
        "result",
        "who",
        "CPU s",
        "CPU ms of one photo alone",
        "CPU ms of each further one",
        "wall s",
        "wall ms of each further one",
        "photos a second",
        "peak MB",
    )
    return Table(f"{TITLE}, {what}", columns, tuple(rows), _notes(race, rounds, peer), samples)


def _notes(race: _Race, rounds: int, peer: str) -> tuple[str, ...]:
    width, height = race.size
    return (
        f"{race.count} JPEGs of {width}x{height}, {MODEL} with the same weights, {rounds} run(s) each in turn, medians; {peer}.",
        "The last rows say how many times better hotmatte is.",
        (
            f"Both are held to {race.cores} core(s) by affinity, with as many inference threads: OMP_NUM_THREADS for"
            " rembg, and hotmatte counts the cores it may use. Everything else is as each comes: rembg computes by"
            " ONNX Runtime, whose waiting threads spin, hotmatte by MNN, in the same single precision."
        ),
        (
            "`plain cutout`: `rembg p` against a profile with `decontaminate: false`. `clean edges`: `rembg p -dc`"
            " against `decontaminate: true`. Both write one RGBA PNG for each photo; hotmatte also syncs each file to"
            " the disk and writes its sidecar."
        ),
        (
            f"`{LIKE}`: the alpha interpolated to full size, as rembg does it (`refine: bilinear`). `{USUAL}`: what"
            f" the profile `portrait` does besides. `{SAME}`: as `{LIKE}`, but with `engine_cpu: null` in the card."
        ),
        (
            "Whole processes from start to end, children included; one photo before, unmeasured, so that both have"
            " compiled what they compile. Peak: the largest sum over all processes of proportional set size."
        ),
    )


def _figures(runs: list[Run], count: int) -> tuple[float, ...]:
    """The columns of the table after the names."""
    one, alone = (statistics.median(getattr(run.one, name) for run in runs) for name in ("cpu", "wall"))
    cpu, wall, peak = (
        statistics.median(getattr(run.every, name) for run in runs) for name in ("cpu", "wall", "peak_mb")
    )
    further = [1000 * (every - first) / (count - 1) for every, first in ((cpu, one), (wall, alone))]
    return cpu, 1000 * one, further[0], wall, further[1], count / wall, peak


class _Race:
    """Runs contenders in turn, so that a busy machine is unfair to all alike."""

    def __init__(
        self, folder: Path, cores: frozenset[int], count: int, *, size: tuple[int, int] = photos.FULL_HD
    ) -> None:
        self.folder = folder
        self.count = count
        self.size = size
        self._cores = cores
        threads = str(len(cores))
        self._env = {**os.environ, "OMP_NUM_THREADS": threads, "U2NET_HOME": str(folder / "weights")}

    @property
    def cores(self) -> int:
        return len(self._cores)

    def run(self, contenders: Sequence[Contender], rounds: int) -> dict[str, list[Run]]:
        spent: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
        for contender in contenders:
            self._once(contender, self.folder / "one", expected=1)
        for _ in range(rounds):
            for contender in contenders:
                one = self._once(contender, self.folder / "one", expected=1)
                every = self._once(contender, self.folder / "photos", expected=self.count)
                spent[contender.name].append(Run(one, every))
        return spent

    def _once(self, contender: Contender, inputs: Path, *, expected: int) -> Spent:
        outputs = self.folder / "outputs"
        outputs.mkdir()
        spent = spent_by(
            contender.command(inputs, outputs),
            env=self._env,
            log=self.folder / "log.txt",
            cores=self._cores,
        )
        made = len(list(outputs.rglob("*.png")))
        shutil.rmtree(outputs)
        if made != expected:
            raise RuntimeError(f"{contender.name} made {made} cutouts of {expected} photos")
        return spent


# --- The contenders ------------------------------------------------------------------------


def _contenders(folder: Path, *, clean: bool, runtimes: bool) -> list[Contender]:
    def rembg(inputs: Path, made: Path) -> list[str]:
        return [str(command_of()), "p", "-m", MODEL, *(["-dc"] if clean else []), str(inputs), str(made)]

    def hotmatte(name: str, *, engine_cpu: str | None = "mnn", **profile: str) -> Contender:
        own = folder / f"{'clean' if clean else 'plain'}-{name}"
        (own / "cards").mkdir(parents=True, exist_ok=True)
        card = yaml.safe_load((card_folders(None)[0] / f"{MODEL}.yaml").read_text(encoding="utf-8"))
        text = yaml.safe_dump(card | {"engine_cpu": engine_cpu})
        (own / "cards" / f"{MODEL}.yaml").write_text(text, encoding="utf-8")
        outputs = [{"kind": "cutout", "suffix": ".png"}]
        settings = {"decontaminate": clean, "outputs": outputs, **profile}
        config = write_config(own, model=MODEL, cards=own / "cards", profile=settings)

        def command(inputs: Path, made: Path) -> list[str]:
            words = ["matte", "--fresh", "--config", str(config), "--quiet", "-d", str(made), str(inputs)]
            return [sys.executable, "-m", "watcher", *words]

        return Contender(name, command)

    contenders = [Contender("rembg", rembg), hotmatte(LIKE, refine="bilinear"), hotmatte(USUAL)]
    if runtimes:
        contenders.append(hotmatte(SAME, engine_cpu=None, refine="bilinear"))
    return contenders


def same_weights(folder: Path) -> str:
    """The same file for both, where rembg looks for it; returns what rembg is."""
    command = [sys.executable, "-m", "watcher", "models", "pull", MODEL]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    path = weights.place(load_card(MODEL, card_folders(None)), weights.cache_folder(None))
    assert path is not None
    (folder / "weights").mkdir()
    shutil.copyfile(path, folder / "weights" / f"{MODEL}.onnx")
    python = command_of().with_name("python")
    ask = "from importlib.metadata import version; print(version('rembg'), version('onnxruntime'))"
    said = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.split()
    return f"rembg {said[0]} (ONNX Runtime {said[1]}, ours {version('onnxruntime')}, MNN {version('MNN')})"


def command_of() -> Path:
    """rembg in an environment of its own, made when it is first asked for."""
    home = weights.cache_folder(None) / "benchmarks" / f"rembg-{VERSION}"
    command = home / "bin" / "rembg"
    if not command.exists():
        venv.create(home, with_pip=True)
        wanted = REQUIREMENT + "==" + VERSION
        subprocess.run([home / "bin" / "pip", "install", "--quiet", wanted], check=True)
    return command
