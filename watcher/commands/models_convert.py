"""`hotmatte models convert`: other weights of a model, compared with the original before they are kept."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from watcher.commands.bench_photos import read_as
from watcher.commands.models import OK, UNAVAILABLE, explain
from watcher.config import Settings
from watcher.domain import printable
from watcher.engine import adopt, parity, weights
from watcher.engine.card import Card, card_folders, list_cards, load_card, own_cards, sizes_of
from watcher.engine.convert import convert, origin_of, target_of
from watcher.engine.halve import half_card, halve
from watcher.engine.provenance import Provenance
from watcher.errors import ConfigError, EngineUnavailable, InputError, InputRejected

# Eileen Collins, by NASA: in the public domain, and she has hair.
PORTRAIT = Path(__file__).with_name("portrait.jpg")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Exit status: 0, or 69 where nothing was made. Raises ConfigError, InputError, HostError."""
    folders, cache = card_folders(settings.models.cards), weights.cache_folder(settings.models.cache)
    card, cards = load_card(args.name, folders), list_cards(folders)[0]
    offline = settings.models.offline
    try:
        if card.engine == "bshm":
            target = target_of(card, cards)
            record = convert(card, target, cache, python=args.python, offline=offline, say=_tell)
        else:
            target = _half_of(card, cards)
            pictures = _pictures(card, args.photos)
            record = halve(card, target, cache, pictures, python=args.python, offline=offline, say=_tell)
    except EngineUnavailable as error:
        explain(error)
        return UNAVAILABLE
    if target.name not in {one.name for one in cards}:
        path = adopt.save(target, own_cards(settings.models.cards), by="hotmatte models convert")
        print(f"{target.name}: card written to {path}")
    _report(target, weights.place(target, cache), record)
    return OK


def _half_of(card: Card, cards: list[Card]) -> Card:
    """The card for half precision that is there, or else the one to be written. Raises ConfigError."""
    drafted = half_card(card)
    found = next((one for one in cards if one.name == drafted.name), None)
    if found is not None and origin_of(found) != card.name:
        raise ConfigError(
            [f"there is a model card {found.name!r} already, whose weights do not come from {card.name!r}"],
            remedy=f"Rename or delete the card {found.name}.",
        )
    return found or drafted


def _pictures(card: Card, photos: list[Path]) -> list[NDArray[np.uint8]]:
    """Each photo as the model sees it, at each size it looks at photos; and one of no person, in waves."""
    pictures = [proxy for photo in [PORTRAIT, *photos] for proxy in _proxies(card, photo)]
    height, width = pictures[0].shape[:2]
    return [*pictures, parity.picture(width, height)]


def _proxies(card: Card, photo: Path) -> Iterator[NDArray[np.uint8]]:
    try:
        whole = read_as(photo, lambda width, height: (width, height))
    except InputError as error:
        raise InputRejected(f"{printable(str(photo))}: {error}", remedy=error.remedy) from error
    height, width = whole.pixels.shape[:2]
    for size in sizes_of(width, height, card)[:3]:
        if size is not None:
            yield read_as(photo, partial(_always, size)).proxy


def _always(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    return size


def _report(target: Card, place: Path | None, record: Provenance) -> None:
    assert record.converted_from is not None
    assert record.parity is not None
    print(f"{target.name}: ok {place}")
    print(f"{target.name}: sha256 {record.sha256}")
    print(f"{target.name}: from {record.converted_from.file}, sha256 {record.converted_from.sha256}")
    apart, sizes = record.parity.largest, len(record.parity.sizes)
    if record.parity.mean is None:
        print(f"{target.name}: alpha at most {apart}/255 apart at {sizes} sizes")
    else:
        print(
            f"{target.name}: alpha at most {apart}/255 apart in any pixel of {sizes} pictures, "
            f"{record.parity.mean:.3f}/255 on average in the worst"
        )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
