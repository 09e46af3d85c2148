"""Put a copy that `hotmatte backup` made in the place of the journal. The daemon must not run.

The journal that is there now is kept beside it (journal.sqlite.replaced, the next one
journal.sqlite.replaced.2, and so on). What was done since the copy was made is done again where
photos were left in place: with the same results, under the same names. Nothing is deleted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from watcher.config import Settings
from watcher.errors import ConfigError
from watcher.exits import OK
from watcher.health import JOURNAL, holder
from watcher.journal_backup import restore


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the copy")


def run(args: argparse.Namespace, settings: Settings) -> int:
    pid = holder(settings.state_dir)
    if pid is not None:
        raise ConfigError(
            [f"the daemon runs on {settings.state_dir} (process {pid})"],
            remedy="Stop it first, such as by systemctl stop hotmatte.",
        )
    if not args.file.is_file():
        raise ConfigError([f"{args.file} is not there"], remedy="Name a file that `hotmatte backup` made.")
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    jobs = restore(args.file, settings.state_dir / JOURNAL)
    print(f"{settings.state_dir / JOURNAL}: {jobs} jobs")
    return OK
