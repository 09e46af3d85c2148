"""Copy the journal to a file, while the daemon runs or not.

With the copy and the configuration a lost state folder is made good: `hotmatte restore`.
Photos, results and weights are not in it. The file is replaced as a whole, never half written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from watcher.commands.shared import is_there
from watcher.config import Settings
from watcher.domain import printable
from watcher.errors import ConfigError
from watcher.exits import OK
from watcher.health import JOURNAL
from watcher.journal_backup import save


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="where the copy goes; an older copy there is replaced"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    journal = settings.state_dir / JOURNAL
    if not is_there(journal):
        raise ConfigError(
            [f"there is no journal in {settings.state_dir}"], remedy="Nothing was ever done there."
        )
    jobs = save(journal, args.file)
    print(f"{printable(str(args.file))}: {jobs} jobs, {args.file.stat().st_size / 1e3:.0f} kB")
    return OK
