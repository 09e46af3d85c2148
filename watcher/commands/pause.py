"""Pause a hot folder: its photos are still noted, and wait.

hotmatte pause inbox      until `hotmatte resume inbox`, restarts included

What runs at the moment is finished. Works whether or not a daemon runs.
"""

from __future__ import annotations

import argparse

from watcher.bell import ring
from watcher.commands.shared import known_folder
from watcher.config import Settings
from watcher.desk import Desk
from watcher.exits import OK
from watcher.health import JOURNAL
from watcher.journal import Journal


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the hot folder's name in the configuration")


def run(args: argparse.Namespace, settings: Settings) -> int:
    name = known_folder(settings, args.folder)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with Journal(settings.state_dir / JOURNAL) as journal:
        Desk(journal).hold(name)
    ring(settings.state_dir)
    print(f"{name}: paused; `hotmatte resume {name}` goes on")
    return OK
