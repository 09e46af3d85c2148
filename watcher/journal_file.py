"""The journal as a file: opened, checked, read and written in transactions. Knows no jobs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from watcher.errors import ConfigError, HostError
from watcher.journal_schema import CHECKS, SCHEMA, VERSION

# See https://www.sqlite.org/rescode.html: the file is not, or no longer, a sound database.
_UNSOUND = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class JournalCorrupt(HostError):
    """The file is damaged."""

    remedy = "The daemon sets the file aside and builds a new one from the sidecars."


class JournalFile:
    """One connection, for all threads. Raises HostError, or ConfigError for a newer version's file.

    `corrupt`: how the file was found to be damaged; from then on nothing works any more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.corrupt: str | None = None
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        except sqlite3.DatabaseError as error:
            raise self._translated(error, "open") from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            # FULL: what was called done must still be done after a power cut.
            self._db.execute("PRAGMA synchronous = FULL")
            self._migrate()
            self._place = path.stat()
        except sqlite3.DatabaseError as error:
            self.close()
            raise self._translated(error, "open") from error
        except OSError as error:
            self.close()
            raise HostError(f"cannot open the journal {path}: {error.strerror or error}") from error

    def look(self) -> None:
        """Notice that the file was taken away or replaced: what is written here would be lost with us."""
        try:
            there = os.path.samestat(self._path.stat(), self._place)
        except FileNotFoundError:
            there = False
        except OSError:
            return  # nothing can be said of it
        if not there and self.corrupt is None:
            self.corrupt = f"the journal {self._path} was removed or replaced while in use"

    def _translated(self, error: sqlite3.DatabaseError, doing: str) -> Exception:
        words = f"cannot {doing} the journal {self._path}: {error}"
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNSOUND:
            self.corrupt = words
            return JournalCorrupt(words)
        # Anything else is a bug of ours.
        return HostError(words) if isinstance(error, sqlite3.OperationalError) else error

    def check(self) -> None:
        """Read all of the file. Raises JournalCorrupt where something in it does not add up."""
        for sql in CHECKS:
            ((found,),) = self._read(sql)
            if found != "ok":
                self.corrupt = f"the journal {self._path} is damaged: {found}"
                raise JournalCorrupt(self.corrupt)

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise ConfigError(
                [f"{self._path} was written by a newer hotmatte (journal version {version})"],
                remedy="Install that version again, or name another state_dir.",
            )
        if version < VERSION:  # whoever only looks must not need room to write
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    # A full disk may have rolled back by itself.
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.DatabaseError as error:
                raise self._translated(error, "write") from error

    def _read(self, sql: str, args: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(sql, args).fetchall()
            except sqlite3.DatabaseError as error:
                raise self._translated(error, "read") from error

    # For desk.py, which says what people ask and decide.
    writing, rows = _write, _read
