"""Copies of the journal: taken while the daemon runs, put back while it does not.

By SQLite's own backup, page by page: a copy of the file alone would lack what is in its log.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sqlite3
from pathlib import Path

from watcher.errors import ConfigError, HostError
from watcher.journal_schema import VERSION

# SQLite finds the log of a database by its name.
COMPANIONS = ("", "-wal", "-shm")
REPLACED = ".replaced"


def save(journal: Path, target: Path) -> int:
    """Copy `journal` to `target`, whole or not at all; how many jobs it holds. Raises HostError, ConfigError.

    A file that is there is replaced if it is an older copy, and nothing else.
    """
    _require_replaceable(target, journal)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(journal, timeout=30.0)) as source:
            _copy(source, temporary)
        jobs = check(temporary)
        temporary.replace(target)
        _sync(target.parent)
    except (OSError, sqlite3.OperationalError) as error:
        raise _no_copy(journal, target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return jobs


def _no_copy(journal: Path, target: Path, error: OSError | sqlite3.OperationalError) -> HostError:
    words = f"cannot copy {journal} to {target}: {error}"
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return HostError(words, remedy="Free space there, or name a file on another disk.")
    remedy = "Name a file in a folder that is there and may be written; run it as the user of the daemon."
    return HostError(words, remedy=remedy)


def _require_replaceable(target: Path, journal: Path) -> None:
    """Raises ConfigError for what is no copy of ours: a photo, a device, the journal itself."""
    remedy = "Name another file; this one was left as it is."
    if not os.path.lexists(target):
        return
    try:
        if target.is_dir():
            raise ConfigError([f"{target} is a folder"], remedy="Name a file in it.")
        if not target.is_file():
            raise ConfigError([f"{target} is no file"], remedy=remedy)
        if journal.exists() and target.samefile(journal):
            raise ConfigError([f"{target} is the journal itself"], remedy=remedy)
        size = target.stat().st_size
    except OSError as error:
        raise _no_copy(journal, target, error) from error
    if size:
        try:
            check(target)
        except ConfigError as error:
            raise ConfigError([f"{target} is there and is no copy of a journal"], remedy=remedy) from error


def check(copy: Path) -> int:
    """How many jobs `copy` holds. Raises ConfigError if it is not a whole journal that we understand."""
    remedy = "Name another copy."
    try:
        with contextlib.closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as db:
            (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (jobs,) = db.execute("SELECT count(*) FROM job").fetchone()
    except sqlite3.DatabaseError as error:
        raise ConfigError([f"{copy} is not a journal of hotmatte: {error}"], remedy=remedy) from error
    if verdict != "ok":
        raise ConfigError([f"{copy} is damaged: {verdict}"], remedy=remedy)
    if version > VERSION:
        words = f"{copy} was written by a newer hotmatte (journal version {version})"
        raise ConfigError([words], remedy="Install that version.")
    return int(jobs)


def restore(copy: Path, journal: Path) -> int:
    """Put `copy` in the place of `journal`, which is kept beside it; how many jobs it holds.

    No daemon may run. The file belongs to whom its folder belongs to, also if root does this.
    Raises ConfigError, HostError.
    """
    jobs = check(copy)
    temporary = journal.with_name(f".{journal.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as source:
            _copy(source, temporary)
        owner = journal.parent.stat()
        if os.geteuid() == 0:
            os.chown(temporary, owner.st_uid, owner.st_gid)
        aside = _aside(journal)
        for companion in COMPANIONS:
            old = Path(f"{journal}{companion}")
            if old.exists():
                old.replace(f"{aside}{companion}")
        temporary.replace(journal)
        _sync(journal.parent)
    except (OSError, sqlite3.OperationalError) as error:
        raise HostError(f"cannot put {copy} in the place of {journal}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return jobs


def _aside(journal: Path) -> Path:
    """Where nothing lies yet, no log either: beside another journal SQLite would take it for that one's."""
    taken = {path.name for path in journal.parent.glob(f"{journal.name}{REPLACED}*")}
    for number in itertools.count(1):
        name = f"{journal.name}{REPLACED}" + (f".{number}" if number > 1 else "")
        if not taken & {f"{name}{companion}" for companion in COMPANIONS}:
            return journal.with_name(name)
    raise AssertionError("count() has no end")


def _copy(source: sqlite3.Connection, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        # One file, without a log beside it.
        copy.execute("PRAGMA journal_mode = DELETE")
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
