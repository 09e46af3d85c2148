"""Who works on a folder: locks that die with their holder, so that no two daemons share one.

A local folder is locked itself, which leaves nothing lying about and needs no permission to
write. On a share a file is locked, because only locks on files reach the file server.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from watcher.config import Folder
from watcher.errors import HostError
from watcher.log import event
from watcher.mounts import mount_of
from watcher.places import own_places

LOCK = ".hotmatte.lock"
LOCKS = Path("/proc/locks")


class FolderOccupied(HostError):
    """Another daemon works on this folder."""

    remedy = "Stop the other one, or give this one a folder of its own; work begins by itself then."


@dataclass(slots=True)
class _Held:
    number: int
    holders: set[Guard] = field(default_factory=set)


# flock(2) knows descriptors, not processes: hot folders of one daemon may share an output folder.
_mutex = threading.Lock()
_held: dict[tuple[int, int], _Held] = {}


class Guard:
    """The locks of one hot folder. May hang on a dead share: for that folder's own thread."""

    def __init__(self, name: str, folder: Folder) -> None:
        self._name = name
        self._places = [place for _, place in own_places(folder)]
        # Any number may read the photos of a folder, but only one take them away. Nor is a memory
        # card kept from being ejected by somebody who only reads it.
        if folder.source != "leave":
            self._places.append(folder.path)
        self._warned: set[Path] = set()

    def take(self) -> None:
        """Lock what is there and not locked yet. Raises FolderOccupied."""
        for path in self._places:
            try:
                self._take(path)
            except FileNotFoundError:
                continue  # made with the first result, and locked when it is looked at next
            except OSError as error:
                self._warn(path, error)

    def release(self) -> None:
        with _mutex:
            for key, held in list(_held.items()):
                held.holders.discard(self)
                if not held.holders:
                    del _held[key]
                    with suppress(OSError):
                        os.close(held.number)

    def _take(self, path: Path) -> None:
        number = _open(path)
        status = os.fstat(number)
        key = status.st_dev, status.st_ino
        with _mutex:
            held = _held.get(key)
            try:
                if held is None:
                    _lock(number, path, key)
                    held, number = _Held(number), -1
                    _held[key] = held
                held.holders.add(self)
            finally:
                if number >= 0:
                    os.close(number)

    def _warn(self, path: Path, error: OSError) -> None:
        if path not in self._warned:
            self._warned.add(path)
            words = (
                f"{path} cannot be locked ({error.strerror or error}): a second hotmatte there goes unnoticed"
            )
            event(logging.WARNING, words, folder=self._name)


def _open(path: Path) -> int:
    if mount_of(Path(os.path.realpath(path))).is_network:
        return os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _lock(number: int, path: Path, key: tuple[int, int]) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise FolderOccupied(f"another hotmatte{_holder(*key)} works on {path}") from error


def _holder(device: int, inode: int) -> str:
    """Which process it is, where the kernel lets us know; see proc(5)."""
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    with suppress(OSError):
        for line in LOCKS.read_text(encoding="ascii").splitlines():
            if match := re.search(rf"FLOCK .* (\d+) {place} ", line):
                return f" (process {match[1]})"
    return ""
