"""Opens the journal; sets a damaged file aside, so that a new one can be begun. Never deletes what was in use."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from watcher.errors import HostError
from watcher.journal import Journal
from watcher.journal_file import JournalCorrupt
from watcher.log import event

ASIDE = "journal.corrupt-"


def open_sound(path: Path, *, lost: bool = False) -> Journal:
    """The journal at `path`; in place of a damaged one a new one, which `lacks` what had ended.

    `lost`: there was one a moment ago. Raises HostError, or ConfigError for a file of a newer version.
    """
    if path.exists() and not path.stat().st_size:
        # What is left when the power fails before a file reaches the disk; SQLite takes it for a new one.
        _set_aside(path, f"the journal {path} is empty")
    if not path.exists() and (lost or any(path.parent.glob(ASIDE + "*"))):
        _begin_anew(path)
    is_first = not path.exists()
    try:
        return _checked(path)
    except JournalCorrupt as error:
        _set_aside(path, str(error))
        _begin_anew(path)
        return _checked(path)
    except HostError:
        if is_first:
            # A stub, made here just now on a disk without room: nothing was ever in it.
            with suppress(OSError):
                _remove(path)
        raise


def _checked(path: Path) -> Journal:
    journal = Journal(path)
    try:
        journal.check()
    except HostError:
        journal.close()
        raise
    return journal


def _begin_anew(path: Path) -> None:
    """Under its name only once it knows that it is not the first."""
    new = path.with_name(f"{path.stem}.new{path.suffix}")
    try:
        _remove(new)
        with Journal(new) as journal:
            journal.begin_anew(int(time.time()))
        _remove(path)  # the log of another file would be taken for its own
        new.replace(path)
    except OSError as error:
        raise HostError(f"cannot begin a new journal {path}: {error.strerror or error}") from error


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)


def _set_aside(path: Path, why: str) -> None:
    """Move the file, and what SQLite keeps beside it, to names that say so."""
    aside = path.with_name(f"{ASIDE}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
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
