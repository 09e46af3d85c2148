"""Accept what lies under a hot folder now as the right thing.

A hot folder whose disk or share is another one than last time goes offline, so that an
unmounted share is not taken for an empty folder. If the change was meant, say so here.
What was its output, archive or quarantine folder before is left out of it; from the next
`hotmatte reload` on that ends, too.
"""

from __future__ import annotations

import argparse

from watcher.commands.shared import known_folder, open_journal
from watcher.config import Settings
from watcher.exits import OK


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the hot folder's name in the configuration")


def run(args: argparse.Namespace, settings: Settings) -> int:
    name = known_folder(settings, args.folder)
    if journal := open_journal(settings):
        with journal:
            journal.forget_folder(name)
    print(f"{name}: {settings.folders[name].path} will be accepted as it is")
    return OK
