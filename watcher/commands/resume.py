"""Go on with a hot folder that was paused by hand.

hotmatte resume inbox

A folder that is offline, or waits because of an error, goes on by itself when the reason is
gone; `hotmatte rescan` makes it try at once.
"""

from __future__ import annotations

import argparse

from watcher.bell import ring
from watcher.commands.shared import known_folder, open_journal
from watcher.config import Settings
from watcher.desk import Desk
from watcher.exits import OK


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the hot folder's name in the configuration")


def run(args: argparse.Namespace, settings: Settings) -> int:
    name = known_folder(settings, args.folder)
    released = False
    if journal := open_journal(settings):
        with journal:
            released = Desk(journal).release(name)
    ring(settings.state_dir)
    print(f"{name}: goes on" if released else f"{name}: was not paused by hand")
    return OK
