"""Copy photos into a hot folder and admit them at once.

The answer is as good as the matte: when this command returns, the photo is on disk in the
hot folder and in the journal, whether or not a daemon runs at the moment.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from watcher.bell import ring
from watcher.commands.shared import known_folder
from watcher.config import Settings
from watcher.domain import Source, Stamp, printable
from watcher.drop import check_known, place
from watcher.exits import OK, SOME_FAILED
from watcher.health import JOURNAL
from watcher.intake.names import Rules
from watcher.journal import Journal


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="photos to copy")
    parser.add_argument("--folder", metavar="NAME", help="into which hot folder, where there are several")


def run(args: argparse.Namespace, settings: Settings) -> int:
    name = known_folder(settings, args.folder)
    folder = settings.folders[name]
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    rules, refused = Rules(folder), 0
    with Journal(settings.state_dir / JOURNAL) as journal:
        check_known(name, folder.path, journal.folder_identity(name))
        if folder.create:
            folder.path.mkdir(parents=True, exist_ok=True)
        for file in args.files:
            problem = _unfit(file, rules)
            if problem:
                refused += 1
                print(f"hotmatte: {printable(str(file))}: {problem}", file=sys.stderr)
                continue
            try:
                content = file.open("rb")
            except OSError as error:
                refused += 1
                words = f"cannot be read: {error.strerror or error}; nothing was copied"
                print(f"hotmatte: {printable(str(file))}: {words}", file=sys.stderr)
                continue
            with content:
                placed = place(content, folder.path, file.name)
            # Gone already: a daemon found it by itself, and did it.
            with suppress(FileNotFoundError):
                journal.admit_placed([Source(name, placed.name, Stamp.of(placed.stat()))])
            print(f"{printable(str(file))} -> {printable(str(placed))}")
    ring(settings.state_dir)
    return SOME_FAILED if refused else OK


def _unfit(file: Path, rules: Rules) -> str | None:
    if not file.is_file():
        return "not a file; nothing was copied"
    if not file.stat().st_size:
        return "it is empty; nothing was copied"
    if not rules.wants(file.name):
        return "its name is not one the hot folder takes (see include and ignore); nothing was copied"
    return None
