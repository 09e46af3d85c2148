"""Bytes by key on disk: bounded, the least recently used go first. Knows nothing of what they mean.

Several processes may share one folder. Nothing here is worth an error: what cannot be kept is not
kept, what is damaged is not there.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from watcher.log import event

_MAGIC = b"hotmatte1\n"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size
_TEMPORARY = ".tmp"
# Cleared down to this share of the bound, so that not every photo counts everything.
_ROOM = 0.9
# Others write here, too: everything is counted again after so many entries of our own.
_RECOUNT = 256
# What an entry takes on disk beyond its bytes, about.
BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Contents:
    """How much lies there. `size` in bytes, as disks count them."""

    entries: int
    size: int


class Cache:
    """`most` bounds the bytes; 0 keeps nothing. May be used from any thread."""

    def __init__(self, folder: Path, *, most: int) -> None:
        self._folder = folder
        self._most = most
        self._lock = threading.Lock()
        self._serial = itertools.count()
        self._known = Contents(0, 0)
        self._fresh = 0
        self._broken = False
        if most:
            self._sweep()
            self._recount()

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def most(self) -> int:
        return self._most

    @property
    def contents(self) -> Contents:
        """As of the last count, and what came since."""
        return self._known

    def find(self, key: str) -> bytes | None:
        """What was kept under `key`; from now on it counts as just used."""
        if not self._most:
            return None
        path = self._folder / key
        try:
            content = path.read_bytes()
        except OSError:
            return None
        body = content[_HEAD:]
        if content[:_HEAD] != _MAGIC + hashlib.sha256(body).digest():
            event(logging.WARNING, "an entry of the cache is damaged and is left out", path=str(path))
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return body

    def keep(self, key: str, body: bytes) -> None:
        """Whole or not at all, also where this process is killed. Not synced: it can be had again."""
        size = _on_disk(_HEAD + len(body))
        if size > self._most:
            return
        temporary = self._folder / f".{key}.{os.getpid()}.{next(self._serial)}{_TEMPORARY}"
        try:
            file = self._made(temporary)
            try:
                head, rest = memoryview(_MAGIC + hashlib.sha256(body).digest()), memoryview(body)
                while head or rest:
                    count = os.writev(file, [head, rest])
                    head, rest = head[count:], rest[max(0, count - len(head)) :]
            finally:
                os.close(file)
            temporary.replace(self._folder / key)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            self._complain(error)
            return
        with self._lock:
            self._fresh += 1
            self._known = Contents(self._known.entries + 1, self._known.size + size)
            if self._known.size > self._most or self._fresh >= _RECOUNT:
                self._recount()

    def _made(self, path: Path) -> int:
        """A new file, and the folder where that is missing."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with suppress(FileNotFoundError):
            return os.open(path, flags, 0o666)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, flags, 0o666)

    def clear(self) -> Contents:
        """Forget everything; returns what there was."""
        gone = Contents(0, 0)
        for path, status in self._listed():
            with suppress(OSError):
                Path(path).unlink()
                gone = Contents(gone.entries + 1, gone.size + _on_disk(status.st_size))
        self._sweep()
        self._known = Contents(0, 0)
        return gone

    def count(self) -> Contents:
        """What lies there now."""
        sizes = [_on_disk(status.st_size) for _, status in self._listed()]
        return Contents(len(sizes), sum(sizes))

    def _recount(self) -> None:
        """Count, and take away what was not used for longest where there is too much."""
        found = sorted(self._listed(), key=lambda item: item[1].st_mtime_ns)
        entries, size = len(found), sum(_on_disk(status.st_size) for _, status in found)
        if size > self._most:
            for path, status in found:
                if size <= self._most * _ROOM:
                    break
                with suppress(OSError):
                    Path(path).unlink()
                entries, size = entries - 1, size - _on_disk(status.st_size)
        self._known, self._fresh = Contents(entries, size), 0

    def _listed(self) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(self._folder) as items:
                for item in items:
                    if not item.name.startswith("."):
                        with suppress(OSError):
                            yield item.path, item.stat(follow_symlinks=False)
        except OSError:
            return

    def _sweep(self) -> None:
        """Temporaries whose writer is gone. Taking away a living one's costs that entry, no more."""
        with suppress(OSError), os.scandir(self._folder) as items:
            for item in items:
                pid = item.name.removesuffix(_TEMPORARY).split(".")[-2:-1]
                if item.name.startswith(".") and item.name.endswith(_TEMPORARY) and not _lives(pid):
                    with suppress(OSError):
                        Path(item.path).unlink()

    def _complain(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            words = f"nothing can be kept in the cache {self._folder}: {error.strerror or error}"
            event(logging.WARNING, words, remedy="Free space, or set cache.size_mb: 0; work goes on without.")


def _on_disk(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _lives(pid: list[str]) -> bool:
    if not pid or not pid[0].isdigit():
        return False
    try:
        os.kill(int(pid[0]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
