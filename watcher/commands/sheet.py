"""Write a contact sheet: source, matte, cutout and flags of a day's photos, as one HTML file.

  hotmatte sheet                       today's photos of the only hot folder there is
  hotmatte sheet inbox --day 2026-11-25
  hotmatte sheet results/ -o sheet.html    a folder that `hotmatte matte` wrote

The file needs no network and no script. Its thumbnails are inside; its links lead to the full files
beside it. From 481 photos on there are pages: NAME.html, NAME.2.html and so on.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from watcher.commands.shared import known_folder
from watcher.config import Settings
from watcher.domain import printable
from watcher.exits import OK, SOME_FAILED

if TYPE_CHECKING:
    from watcher.pipeline.sheet import Scope


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", metavar="FOLDER", help="a hot folder by name, or a folder of results"
    )
    parser.add_argument("--day", type=_day, metavar="YYYY-MM-DD", help="default: today")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: in the output folder")


def _day(word: str) -> date:
    try:
        return date.fromisoformat(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is no day; write it as 2026-11-25") from error


def run(args: argparse.Namespace, settings: Settings) -> int:
    # Only now: they bring what reads pictures, which --help can do without.
    from watcher.pipeline import sheet

    scope = _scope(args.folder, settings)
    day = args.day or date.today()
    pages = sheet.write(scope, day, args.output or scope.place(day))
    if not pages:
        print(f"hotmatte sheet: {scope.title} has no results of {day} in {scope.output}", file=sys.stderr)
        return SOME_FAILED
    for path in pages:
        print(printable(str(path)))
    return OK


def _scope(named: str | None, settings: Settings) -> Scope:
    from watcher.pipeline.sheet import Scope

    if named is not None and named not in settings.folders and Path(named).is_dir():
        return Scope(Path(named).absolute().name or named, None, Path(named).absolute())
    name = known_folder(
        settings, named, by=f"by its name, such as `hotmatte sheet {next(iter(settings.folders))}`"
    )
    return Scope.of(name, settings.folders[name])
