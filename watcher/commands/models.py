"""`hotmatte models`: which models there are, fetch their weights, check and convert them, add your own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from watcher.commands.models_options import configure_add, configure_convert
from watcher.config import BUILT_IN, Settings
from watcher.engine import fetch, weights
from watcher.engine.card import Card, card_folders, list_cards, load_card
from watcher.engine.weights import State
from watcher.errors import EngineUnavailable, WatcherError

OK, UNAVAILABLE = 0, 69


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands to `hotmatte models`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, words: str) -> argparse.ArgumentParser:
        own = actions.add_parser(name, help=words)
        # Also behind the action, where people write it.
        own.add_argument("--config", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return own

    listing = action("list", "the models there are, their licences, what is fetched")
    listing.add_argument("--json", action="store_true", help="for programs")
    pull = action("pull", "fetch and verify weights")
    pull.add_argument("names", nargs="*", metavar="NAME", help="default: those the profiles use")
    configure_convert(action("convert", "make ONNX of TensorFlow's weights, or half precision of ONNX"))
    configure_add(action("add", "write a card for an ONNX file of your own"))
    verify = action("verify", "recompute the sha256 of what was fetched")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: every model")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit status: 0, or 69 where weights are missing or damaged. Raises ConfigError, HostError."""
    folders = card_folders(settings.models.cards)
    cache = weights.cache_folder(settings.models.cache)
    match args.action:
        case "list":
            return _list(folders, cache, as_json=args.json)
        case "pull":
            names = args.names or sorted(_named(settings))
            return _pull([load_card(name, folders) for name in names], cache, settings.models.offline)
        case "convert":
            from watcher.commands import models_convert

            return models_convert.run(args, settings)
        case "add":
            from watcher.commands import models_add

            return models_add.run(args, settings)
        case _:
            return _verify(args.names, folders, cache)


def _named(settings: Settings) -> set[str]:
    """The models of the profiles that are written down or that a hot folder uses; not of every built-in one."""
    used = {folder.profile for folder in settings.folders.values()}
    written = {name for name, profile in settings.profiles.items() if profile != BUILT_IN.get(name)}
    return {settings.profiles[name].model for name in used | written}


def _list(folders: list[Path], cache: Path, *, as_json: bool) -> int:
    cards, problems = list_cards(folders)
    _complain(problems)
    if as_json:
        print(json.dumps([_record(card, cache) for card in cards], indent=2, ensure_ascii=False))
        return OK
    rows: list[tuple[str, ...]] = [("NAME", "WEIGHTS", "SIZE", "LICENCE", "COMMERCIAL", "TITLE")]
    rows += [_row(card, cache) for card in cards]
    print("\n".join(_aligned(rows)))
    return OK


def _record(card: Card, cache: Path) -> dict[str, object]:
    state, path = weights.looked_up(card, cache)
    return {
        "name": card.name,
        "title": card.title,
        "engine": card.engine,
        "engine_cpu": card.engine_cpu or card.engine,
        "licence": card.licence.model_dump(),
        "size": _size(card, path) or 0,
        "sha256": weights.expected_sha256(card, cache) if state is not State.DAMAGED else None,
        "state": state.value,
        "path": str(path) if path else None,
    }


def _row(card: Card, cache: Path) -> tuple[str, ...]:
    size = f"{known / 1e6:.1f} MB" if (known := _size(card, weights.place(card, cache))) else "-"
    commercial = "yes" if card.licence.commercial else "ask first"
    state = weights.state(card, cache).value
    return card.name, state, size, card.licence.weights, commercial, card.title


def _size(card: Card, path: Path | None) -> int | None:
    """Bytes of the weights: as the card says, or else as they lie there."""
    if card.weights is not None and card.weights.size is not None:
        return card.weights.size
    return path.stat().st_size if path is not None and path.exists() else None


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _pull(cards: list[Card], cache: Path, offline: bool) -> int:
    status = OK
    for card in cards:
        try:
            news = weights.expected_sha256(card, cache) is None
            with _progress(card.name) as progress:
                path = weights.ensure(card, cache, offline=offline, progress=progress)
        except EngineUnavailable as error:
            explain(error)
            status = UNAVAILABLE
        else:
            print(f"{card.name}: ok {path}" if path else f"{card.name}: needs no weights")
            if path and news:
                sha256 = weights.expected_sha256(card, cache)
                print(f"{card.name}: sha256 {sha256} recorded, will be verified from now on")
    return status


def pull_missing(cards: list[Card], settings: Settings) -> None:
    """Fetch the weights that are not there yet, and say so. Raises EngineUnavailable, HostError."""
    cache = weights.cache_folder(settings.models.cache)
    for card in cards:
        with _progress(card.name) as progress:
            weights.ensure(card, cache, offline=settings.models.offline, progress=progress)


def _verify(names: list[str], folders: list[Path], cache: Path) -> int:
    if names:
        cards = [load_card(name, folders) for name in names]
    else:
        cards, problems = list_cards(folders)
        _complain(problems)
    status = OK
    for card in cards:
        state, path = weights.looked_up(card, cache)
        print(f"{card.name}: {state.value} {path or ''}".rstrip())
        # Not to have fetched a model that nobody asked about is no fault.
        if state is State.DAMAGED or (state is State.MISSING and names):
            status = UNAVAILABLE
    if status:
        print("Run `hotmatte models pull` with the name to fetch it again.", file=sys.stderr)
    return status


@contextmanager
def _progress(name: str) -> Iterator[fetch.Progress]:
    """A bar where a person watches, one line where a log does."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _once(f"{name}: fetching")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _once(line: str) -> fetch.Progress:
    """Prints `line` when the first bytes are asked for, so that a cached model stays silent."""
    said = False

    def report(done: int, total: int | None) -> None:
        nonlocal said
        if not said:
            print(line, file=sys.stderr, flush=True)
        said = True

    return report


def _complain(problems: list[str]) -> None:
    for problem in problems:
        print(f"hotmatte: {problem}", file=sys.stderr)


def explain(error: WatcherError) -> None:
    print(f"hotmatte: {error}\n  {error.remedy}", file=sys.stderr)
