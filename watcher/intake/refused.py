"""Files and sub-folders that the system does not let us read: who they belong to, and what to do.

Says each once in the log, and all that are left whenever it is asked. A file of another user is
never reported as damaged: nobody has seen what is in it.
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
from collections.abc import Collection

from watcher.domain import printable
from watcher.log import event

# So many at a time are named in the log; of the others it says how many there are.
MOST_NAMED = 5


class Refused:
    """Of the hot folder `name` at `root`."""

    def __init__(self, name: str, root: str) -> None:
        self._name = name
        self._root = root
        self._files: dict[str, None] = {}
        self._folders: tuple[str, ...] = ()
        self._told: dict[str, str] = {}  # what was said, and why it is so

    def __contains__(self, relpath: str) -> bool:
        return relpath in self._files

    def note(self, relpath: str) -> None:
        self._files[relpath] = None

    def forget(self, relpath: str) -> None:
        """It can be read, or is no longer there: should it be refused once more, that is news."""
        if self._files.pop(relpath, self) is None:
            self._told.pop(relpath, None)

    def listed(self, folders: Collection[str]) -> None:
        """These sub-folders could not be listed, and no others."""
        for relpath in set(self._folders).difference(folders):
            self._told.pop(relpath, None)
        self._folders = tuple(folders)

    def tell(self) -> None:
        """Log what has not been said yet."""
        news = [relpath for relpath in (*self._files, *self._folders) if relpath not in self._told]
        for relpath in news:
            self._told[relpath] = self._whose(relpath)
        for relpath in news[:MOST_NAMED]:
            words = f"no permission to read: {self._told[relpath]}"
            event(logging.WARNING, words, folder=self._name, file=relpath, remedy=_remedy())
        if len(news) > MOST_NAMED:
            words = f"no permission to read {len(news) - MOST_NAMED} more files and folders"
            event(logging.WARNING, words, folder=self._name, remedy=_remedy())

    def report(self) -> tuple[str, str]:
        """What is refused now, in a sentence without its stop, and what to do. Empty if nothing is."""
        if not self._told:
            return "", ""
        relpath, whose = next(iter(self._told.items()))
        which = f"{len(self._told)} files and folders, such as " if len(self._told) > 1 else ""
        return f"no permission to read {which}{printable(relpath)} ({whose})", _remedy()

    def _whose(self, relpath: str) -> str:
        try:
            status = os.lstat(f"{self._root}/{relpath}")
        except OSError:
            return f"hotmatte runs as {_user(os.geteuid())}"
        mode = stat.S_IMODE(status.st_mode)
        return (
            f"it is {_user(status.st_uid)}'s with mode {mode:04o}, and hotmatte runs as {_user(os.geteuid())}"
        )


def _remedy() -> str:
    return (
        f"Give {_user(os.geteuid())} read access (group, mode or ACL; on a server, what it gives to new files). "
        "Work goes on by itself within a minute."
    )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
