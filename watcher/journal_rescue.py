"""Opens the journal; sets a damaged file aside, so that a new one can be begun. Never deletes it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from watcher.errors import HostError
from watcher.journal import Journal, JournalCorrupt
from watcher.log import event


def open_sound(path: Path) -> tuple[Journal, bool]:
    """The journal at `path`, and whether it is a new one in place of a damaged one.

    Raises HostError, or ConfigError for a file of a newer version.
    """
    lost = False
    if path.exists() and not path.stat().st_size:
        # What is left when the power fails before a file reaches the disk; SQLite takes it for a new one.
        lost = _set_aside(path, f"the journal {path} is empty")
    try:
        journal = Journal(path)
        try:
            journal.check()
        except HostError:
            journal.close()
            raise
    except JournalCorrupt as error:
        lost = _set_aside(path, str(error))
        journal = Journal(path)
    if lost:
        journal.number_from(int(time.time()))
    return journal, lost


def _set_aside(path: Path, why: str) -> bool:
    """Move the file, and what SQLite keeps beside it, to names that say so."""
    aside = path.with_name(f"journal.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    try:
        # The file last: should we die in between, it is still found to be damaged.
        for end in ("-wal", "-shm", ""):
            part = path.with_name(path.name + end)
            if part.exists():
                part.replace(f"{aside}{end}")
    except OSError as error:
        raise HostError(f"{why}, and it cannot be moved aside: {error.strerror or error}") from error
    event(
        logging.ERROR,
        f"{why}. It is set aside as {aside} and built anew from the sidecars",
        remedy="Check the disk under state_dir. Nothing that has its sidecar is done again.",
    )
    return True
