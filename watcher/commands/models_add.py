"""`hotmatte models add`: look at an ONNX file, ask for what no graph tells, prove it, write its card."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from watcher.commands.models_options import three
from watcher.config import Settings
from watcher.engine import adopt, weights
from watcher.engine.adopt import Findings
from watcher.engine.card import Card, card_folders, list_cards, own_cards
from watcher.errors import ConfigError, WatcherError
from watcher.exits import OK, USAGE

Ask = Callable[[str], str]
HALF = (0.5, 0.5, 0.5)


def run(args: argparse.Namespace, settings: Settings, *, ask: Ask | None = None) -> int:
    """Exit status. `ask` puts a question to a person and gives the answer; None where there is nobody."""
    if not args.file.is_file():
        raise ConfigError([f"{args.file}: there is no such file"], remedy="Name an ONNX file.")
    asker = None if args.yes else ask or (input if sys.stdin.isatty() else None)
    folder = own_cards(settings.models.cards)
    name = args.name or _plain(args.file.stem)
    _check_name(name, settings, replace=args.replace)
    print(f"{args.file}: looking at it in a worker ...", flush=True)
    findings = adopt.look_at(args.file, mean=args.mean or HALF, std=args.std or HALF)
    print("\n".join(_told(findings, args.output)))
    answers, missing = _answers(args, name, asker)
    if missing:
        print(f"hotmatte models add: not said: {', '.join(missing)}", file=sys.stderr)
        return USAGE
    card = adopt.drafted(findings, answers, args.file)
    path = _adopted(card, args.file, folder, weights.cache_folder(settings.models.cache))
    print(f"{card.name}: card {path}\nUse it as `model: {card.name}` in a profile.")
    return OK


def _plain(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._").lower()[:64] or "model"


def _check_name(name: str, settings: Settings, *, replace: bool) -> None:
    cards, _ = list_cards(card_folders(settings.models.cards))
    if not replace and name in {card.name for card in cards}:
        raise ConfigError(
            [f"there is a model {name!r} already"], remedy="Give it another with --name, or say --replace."
        )


def _told(findings: Findings, output: str | None) -> list[str]:
    """What was found, a line each."""
    image, alpha = findings.image, findings.alpha(output)
    sides = (
        f"{findings.size[1]} x {findings.size[0]} only"
        if findings.size
        else f"any size, sides multiples of {image['multiple']}"
    )
    lines = [
        f"  opset     {findings.opset or 'unknown'}",
        f"  picture   {image['name']}, {image['layout']}, {sides}",
        f"  alpha     {alpha['name']}, values {alpha['lowest']:.3g} .. {alpha['highest']:.3g}"
        + (": the sigmoid is missing" if adopt.kind_of(alpha) == "logits" else ""),
    ]
    others = [one["name"] for one in findings.alphas if one["name"] != alpha["name"]]
    if others:
        lines.append(f"  or        {', '.join(others)} (--output)")
    if findings.states:
        lines.append(f"  states    {', '.join(findings.states)}, begun at zero for each photo")
    if findings.downsample:
        lines.append(f"  reduced   by {findings.downsample['input']} to a long side of 512 inside")
    if adopt.crowded(alpha):
        lines.append("  WARNING   it takes a plain grey picture for somebody: is the normalisation right?")
    return lines


def _answers(args: argparse.Namespace, name: str, ask: Ask | None) -> tuple[dict[str, Any], list[str]]:
    """What was said or asked, and the options that are still missing."""
    licence = args.licence or _asked(ask, "Licence of the weights (such as MIT): ")
    commercial = args.commercial
    if commercial is None and ask is not None:
        commercial = _asked(ask, "May it be used commercially? [y/N] ").lower().startswith("y")
    url = args.url or _asked(ask, "Where it comes from (URL): ")
    missing = [
        option
        for option, said in (
            ("--licence", licence),
            ("--commercial or --no-commercial", commercial),
            ("--url", url),
        )
        if said in (None, "")
    ]
    mean = args.mean or _numbers(ask, "Mean, after division by 255 [0.5,0.5,0.5]: ")
    std = args.std or _numbers(ask, "Standard deviation [0.5,0.5,0.5]: ")
    rights = {"weights": licence, "code": licence, "commercial": bool(commercial), "url": url}
    return {
        "name": name,
        "title": args.title or _asked(ask, "One line about it: ") or args.file.stem,
        "licence": {**rights, "attribution": args.attribution or url},
        "mean": mean,
        "std": std,
        "output": args.output,
        "short_side": args.short_side,
    }, missing


def _asked(ask: Ask | None, question: str) -> str:
    return ask(question).strip() if ask is not None else ""


def _numbers(ask: Ask | None, question: str) -> tuple[float, ...]:
    said = _asked(ask, question)
    try:
        return three(said) if said else HALF
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ConfigError([f"{said!r}: {error}"], remedy="One number, or three with commas.") from error


def _adopted(card: Card, file: Path, folder: Path, cache: Path) -> Path:
    """Copy, prove, and only then write the card; returns where."""
    place = weights.place(card, cache)
    known = place is not None and place.exists()
    copy = adopt.keep(card, file, cache)
    try:
        alpha = adopt.prove(card, copy)
        print(f"{card.name}: proved: alpha of {alpha.shape[1]} x {alpha.shape[0]}, mean {np.mean(alpha):.3f}")
        print(f"{card.name}: sha256 {card.weights.sha256 if card.weights else ''}")
        return adopt.save(card, folder)
    except WatcherError:
        if not known:
            copy.unlink(missing_ok=True)
        raise
