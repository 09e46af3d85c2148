"""One file of a hot folder: its stamp, and whether its end is there. Reads a few bytes at most."""

from __future__ import annotations

import errno
import os
import stat

from watcher.domain import Stamp
from watcher.intake.complete import Verdict, examine

# Nothing there, or vanished between two steps of ours.
GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


def look(path: str) -> Stamp | None:
    """The stamp of the regular file at `path`; None where there is none, which includes links.

    Raises OSError where nothing can be said of it.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    return Stamp.of(status) if stat.S_ISREG(status.st_mode) else None


class Spelling:
    """What is called exactly so below `root`, each folder listed once at most.

    A server that does not tell capitals finds a file under the name that it had before it was
    renamed in its capitals only.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._names: dict[str, frozenset[str]] = {}

    def is_gone(self, relpath: str) -> bool:
        """Whether there is certainly no regular file of this very name any more."""
        try:
            return look(f"{self._root}/{relpath}") is None or not self._is_spelled(relpath)
        except OSError:
            return False

    def _is_spelled(self, relpath: str) -> bool:
        folder, _, name = relpath.rpartition("/")
        if (names := self._names.get(folder)) is None:
            with os.scandir(f"{self._root}/{folder}") as entries:
                names = self._names[folder] = frozenset(entry.name for entry in entries)
        return name in names and (not folder or self._is_spelled(folder))


def judge(path: str) -> Verdict:
    """Whether the file at `path` is structurally whole.

    What cannot be opened or read is incomplete: writers release locks when they are done; and
    one bad sector must not stop a whole folder. Raises PermissionError where we may not read it.
    """
    try:
        # It may have become a pipe or a link since it was listed: neither wait nor follow.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(number, "rb", buffering=0) as file:
            regular = stat.S_ISREG(os.fstat(number).st_mode)
            return examine(file) if regular else Verdict.INCOMPLETE
    except PermissionError:
        raise
    except OSError:
        return Verdict.INCOMPLETE
