"""Copy photos into a hot folder and admit them at once.

The answer is as good as the matte: when this command returns, the photo is on disk in the
hot folder and in the journal, whether or not a daemon runs at the moment.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
from pathlib import Path

from watcher.commands.shared import known_folder
from watcher.config import Folder, Settings
from watcher.domain import Source, Stamp, printable
from watcher.errors import HostError
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
    if folder.create:
        folder.path.mkdir(parents=True, exist_ok=True)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    rules, refused = Rules(folder), 0
    with Journal(settings.state_dir / JOURNAL) as journal:
        for file in args.files:
            problem = _unfit(file, rules)
            if problem:
                refused += 1
                print(f"hotmatte: {printable(str(file))}: {problem}", file=sys.stderr)
                continue
            placed = place(file, folder)
            stamp = Stamp.of(placed.stat())
            journal.admit(Source(name, placed.name, stamp))
            print(f"{printable(str(file))} -> {printable(str(placed))}")
    return SOME_FAILED if refused else OK


def _unfit(file: Path, rules: Rules) -> str | None:
    if not file.is_file():
        return "not a file; nothing was copied"
    if not rules.wants(file.name):
        return "its name is not one the hot folder takes (see include and ignore); nothing was copied"
    return None


def place(file: Path, folder: Folder) -> Path:
    """Copy `file` into the hot folder under a name of its own, whole or not at all.

    Never overwrites: where the name is taken, a number is added. Raises HostError.
    """
    temporary = folder.path / f".{file.name[:50]}.{os.getpid()}.submit.tmp"
    try:
        with file.open("rb") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        target_path = _reserve(folder.path, file.name)
        temporary.replace(target_path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise HostError(f"cannot copy {file} into {folder.path}: {error.strerror}") from error
    return target_path


def _reserve(folder: Path, name: str) -> Path:
    """An empty file under a free name: what is empty is never taken for a photo."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (Path would not keep odd names)
    for number in range(1, 10_000):
        target = folder / (name if number == 1 else f"{stem}_{number}{suffix}")
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return target
    raise OSError(errno.EEXIST, "too many files of this name")
