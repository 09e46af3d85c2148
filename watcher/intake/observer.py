"""watchdog -> hints. Never blocks and never stats in a callback; hints may be wrong, late or missing.

Polling has no thread here: where nothing can be observed, the folder's own thread lists
it every `poll_interval_s`, which costs a tenth of what watchdog's polling observer does.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from watcher.config import Folder
from watcher.intake.names import Rules
from watcher.log import event
from watcher.mounts import mount_of

# watchdog 7 meets new folders twice, by listing and by event, and then warns with a list of all its
# watches: harmless, but megabytes of log for a tree that is copied in.
warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
# Nor is it an error, as it says, to be stopped while it waits for events.
logging.getLogger("watchdog.observers.inotify").addFilter(
    lambda record: "when the thread is inactive" not in str(record.msg)
)

# What our own reading causes (opened, closed without writing) is not among them, nor is every
# write: a file that still grows is found out when its quiet period is over.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]
_JOIN_S = 5.0
# Descriptors: of inotify, and of a pipe that ends its thread.
_FOR_AN_OBSERVER = 4


@dataclass(frozen=True, slots=True)
class Observation:
    """How a folder is observed, and why so. `degraded`: native was meant but is not to be had."""

    kind: Literal["native", "polling"]
    reason: str
    file_system: str
    degraded: bool = False
    observer: BaseObserver | None = None

    def is_alive(self) -> bool:
        """Whether every thread that hints depend on still runs."""
        return self.observer is None or all(thread.is_alive() for thread in _threads(self.observer))

    def stop(self) -> None:
        if self.observer is not None:
            _end(self.observer)


def observe(folder: Folder, rules: Rules, on_hint: Callable[[str], None]) -> Observation:
    """Observe `folder`, which exists. `on_hint` is called in another thread and must not block.

    It gets the relpath of a file, or `""` where the folder must be listed: a sub-folder
    came, went or moved. Raises OSError where the folder cannot be observed or polled.
    """
    mount = mount_of(Path(os.path.realpath(folder.path)))
    if folder.observer == "polling":
        return Observation("polling", "as configured", mount.kind)
    if folder.observer == "auto" and mount.is_network:
        return Observation(
            "polling", f"on {mount.kind}, what other machines write raises no event", mount.kind
        )
    try:
        observer = _start(folder, _Listener(os.path.realpath(folder.path), rules, on_hint))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EMFILE) or _no_descriptor_is_left():
            raise
        reason = _limit(error.errno)
        event(logging.WARNING, f"polling: {reason}", path=folder.path)
        return Observation("polling", reason, mount.kind, degraded=True)
    reason = f"local file system ({mount.kind})" if folder.observer == "auto" else "as configured"
    if mount.is_network:
        reason += f", but on {mount.kind} what other machines write raises no event"
    return Observation("native", reason, mount.kind, observer=observer)


class _Listener(FileSystemEventHandler):
    def __init__(self, root: str, rules: Rules, on_hint: Callable[[str], None]) -> None:
        self._root = root
        self._prefix = root.rstrip("/") + "/"
        self._rules = rules
        self._on_hint = on_hint

    def dispatch(self, event: FileSystemEvent) -> None:
        for path in (event.src_path, event.dest_path):
            name = os.fsdecode(path)
            if name == self._root:
                self._on_hint("")
            elif name.startswith(self._prefix):
                self._hint(name[len(self._prefix) :], event.is_directory)

    def _hint(self, relpath: str, is_directory: bool) -> None:
        if is_directory:
            if self._rules.enters(relpath):
                self._on_hint("")
        elif self._rules.wants(relpath):
            self._on_hint(relpath)


def _start(folder: Folder, listener: _Listener) -> BaseObserver:
    # A watch on a symbolic link would see the link only.
    root = os.path.realpath(folder.path)
    observer = _observer(root, listener, recursive=folder.recursive)
    try:
        _spare_watch(root)
    except OSError:
        _end(observer)
        raise
    return observer


def _spare_watch(root: str) -> None:
    """Raises ENOSPC where no watch is left: watchdog 7 passes over sub-folders it cannot watch."""
    try:
        _end(_observer(root, FileSystemEventHandler(), recursive=False))
    except OSError as error:
        if error.errno != errno.EMFILE:  # the spare one is one instance too many: no matter
            raise


def _observer(root: str, listener: FileSystemEventHandler, *, recursive: bool) -> BaseObserver:
    observer = Observer()
    try:
        observer.schedule(listener, root, recursive=recursive, event_filter=_EVENTS)
        observer.start()
    except OSError:
        _end(observer)
        raise
    return observer


def _end(observer: BaseObserver) -> None:
    threads = list(_threads(observer))
    observer.stop()
    for thread in threads:
        if thread.is_alive():
            thread.join(_JOIN_S)


def _threads(observer: BaseObserver) -> Iterator[threading.Thread]:
    """The observer's threads and those they keep: which ones differs between watchdog 6 and 7."""
    for owner in (observer, *observer.emitters):
        yield owner
        yield from (part for part in vars(owner).values() if isinstance(part, threading.Thread))


def _no_descriptor_is_left() -> bool:
    """inotify_init says EMFILE for two limits: of instances, which polling needs none of, and of open files."""
    taken: list[int] = []
    try:
        for _ in range(_FOR_AN_OBSERVER):
            taken.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError:
        return True
    finally:
        for number in taken:
            os.close(number)
    return False


def _limit(number: int | None) -> str:
    """Which limit was met, and the command that raises it."""
    name = "max_user_watches" if number == errno.ENOSPC else "max_user_instances"
    least = 524_288 if number == errno.ENOSPC else 1024
    try:
        now = int(Path(f"/proc/sys/fs/inotify/{name}").read_text(encoding="ascii"))
    except (OSError, ValueError):
        now = 0
    return f"the limit of inotify {name[9:]} is reached: sysctl fs.inotify.{name}={max(least, 2 * now)}"
