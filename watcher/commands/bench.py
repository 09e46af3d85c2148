"""Measure every model that is installed, on every device there is, beside BSHM's published figures.

hotmatte bench                             all of them; a minute for each at most, and each size
hotmatte bench --cards modnet --runs 50    one, more closely
hotmatte bench --photo portrait.jpg        with a photo of yours instead of a drawn one

Fetches nothing: `hotmatte models pull` does. What was not measured is listed with the reason.
The exit status is 0 if anything was measured, and 69 if nothing could be.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watcher import __version__, log
from watcher.commands import bench_photos, shared
from watcher.commands.bench_engines import Effort, Measured, Missing, devices_of, measure, obstacles
from watcher.commands.doctor_engines import graphics_cards
from watcher.config import Settings
from watcher.cores import cores
from watcher.domain import as_json, printable
from watcher.engine import weights
from watcher.engine.card import Card, card_folders, list_cards, load_card
from watcher.errors import InputError
from watcher.exits import OK, SOME_FAILED, UNAVAILABLE
from watcher.pipeline.finish import warm_up
from watcher.wording import by_hand


@dataclass(frozen=True, slots=True)
class Published:
    """A figure of others, from another machine: milliseconds, and megabytes of GPU memory."""

    model: str
    machine: str
    photo: tuple[int, int]
    median_ms: float
    gpu_mb: float


# TensorFlow 1.15.5 with CUDA 11.3. How often and what exactly was timed is not published.
PUBLISHED = tuple(
    Published("BSHM, published", "RTX 4090", photo, median_ms, 2980.0)
    for photo, median_ms in zip(bench_photos.SIZES, (132.0, 158.0), strict=True)
)

HEAD = ("MODEL", "DEVICE", "RUNTIME", "PHOTO", "PROXY", "RUNS", "MEDIAN", "P95", "END TO END", "HOST", "GPU")
NOTES = """\
MEDIAN, P95: ms for the inference of one proxy in a warm worker. END TO END: ms from file to encoded
results, once, nothing published. HOST, GPU: MB of memory of the worker (host: its peak; GPU: after the runs).
published: by others, on another machine; to be compared with care."""
SHARED = "*: the driver does not know the worker, so this is the rise in what all processes hold."


def configure(parser: argparse.ArgumentParser) -> None:
    default = Effort()
    parser.add_argument("--cards", nargs="+", metavar="NAME", help="only these models; default: every one")
    parser.add_argument(
        "--device", type=shared.device, metavar="DEVICE", help="auto, cpu, cuda or cuda:N; default: each kind"
    )
    parser.add_argument(
        "--runs", type=_count, default=default.runs, metavar="N", help=f"that count ({default.runs})"
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=default.seconds,
        metavar="S",
        help=f"begin no run after so long, for each model, device and size ({default.seconds:g})",
    )
    parser.add_argument(
        "--photo", type=Path, metavar="FILE", help="cropped to both sizes; default: a drawing"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 1")
    return int(word)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of seconds")
    return seconds


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Raises ConfigError where a card that was asked for is not there or wrong."""
    log.set_up("text", "error")
    cards, problems = _cards(args.cards, settings)
    for problem in problems:
        _tell(f"hotmatte: {problem}")
    measured: list[Measured] = []
    missing: list[Missing] = []
    gpus = [gpu.name for gpu in graphics_cards()]
    with tempfile.TemporaryDirectory(prefix="hotmatte-") as aside:
        try:
            photos = bench_photos.prepared(Path(aside), args.photo)
        except InputError as error:
            _tell(f"hotmatte: {printable(str(args.photo))}: {error}. {by_hand(error.remedy)}")
            return SOME_FAILED
        cache = weights.cache_folder(settings.models.cache)
        warm_up(cache)
        for result in _results(cards, args, photos, cache, gpus):
            if isinstance(result, Measured):
                measured.append(result)
            else:
                missing.append(result)
    if args.json:
        print(json.dumps(_facts(measured, missing, problems, gpus), indent=2, ensure_ascii=False))
    else:
        print(words(measured, missing))
    return OK if measured else UNAVAILABLE


def _cards(names: list[str] | None, settings: Settings) -> tuple[list[Card], list[str]]:
    folders = card_folders(settings.models.cards)
    return ([load_card(name, folders) for name in names], []) if names else list_cards(folders)


def _results(
    cards: Sequence[Card],
    args: argparse.Namespace,
    photos: Sequence[Path],
    cache: Path,
    gpus: Sequence[str],
) -> Iterator[Measured | Missing]:
    effort = Effort(args.runs, args.seconds)
    for card in cards:
        lacking = list(obstacles(card, cache))
        yield from lacking
        for device in () if lacking else devices_of(card, args.device):
            _tell(f"{card.name} on {device} ...")
            yield from measure(card, device, photos, cache=cache, effort=effort, gpus=gpus)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _facts(
    measured: Sequence[Measured], missing: Sequence[Missing], problems: Sequence[str], gpus: Sequence[str]
) -> dict[str, Any]:
    machine = {
        "hotmatte": __version__,
        "processor": _processor(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2),
        "gpus": list(gpus),
    }
    return {
        "machine": machine,
        "measured": as_json(measured),
        "missing": as_json(missing),
        "unreadable": list(problems),
        "published": as_json(PUBLISHED),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def words(measured: Sequence[Measured], missing: Sequence[Missing]) -> str:
    """The table, for each size what was measured and what is published, then what was not measured."""
    lines = [*_table(measured), "", NOTES]
    if any(one.gpu_shared for one in measured):
        lines.append(SHARED)
    lines += ["", "not measured:"] if missing else []
    for one in missing:
        where = "" if one.device is None else f" on {one.device}"
        # Reasons quote workers, whose last words are many lines.
        lines.append(f"  {one.model}{where}: " + "\n    ".join(map(printable, one.reason.splitlines())))
        lines.append(f"    {printable(one.remedy)}")
    return "\n".join(lines)


def _table(measured: Sequence[Measured]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [HEAD]
    for size in bench_photos.SIZES:
        rows += [_row(one) for one in measured if one.photo == size]
        rows += [_published_row(one) for one in PUBLISHED if one.photo == size]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        # Words to the left, numbers to the right.
        cells = [
            cell.ljust(width) if place < 5 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _row(one: Measured) -> tuple[str, ...]:
    times = (one.median_ms, one.p95_ms, one.end_to_end_ms)
    return (
        one.model,
        one.device,
        one.framework,
        _sides(one.photo),
        _sides(one.proxy),
        str(one.runs),
        *(f"{time:.1f}" for time in times),
        "-" if one.host_mb is None else f"{one.host_mb:.0f}",
        "-" if one.gpu_mb is None else f"{one.gpu_mb:.0f}" + ("*" if one.gpu_shared else ""),
    )


def _published_row(one: Published) -> tuple[str, ...]:
    return (
        one.model,
        one.machine,
        "tensorflow 1.15.5",
        _sides(one.photo),
        *("-",) * 2,
        f"{one.median_ms:.0f}",
        *("-",) * 3,
        f"{one.gpu_mb:.0f}",
    )


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
