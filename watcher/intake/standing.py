"""How a hot folder stands, for whoever asks. Written by the folder's thread, read by any other."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Literal

from watcher.pulse import Pulse

# The file system has not answered for this long: say so, rather than "watching".
HUNG_S = 10.0


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """`observer` is `none` while offline; times are in seconds; `oldest` is a relpath.

    `reason` says why the folder is offline and what to do; `refused` what in it we may not read,
    and `remedy` what to do about that; `waiting` counts files that
    have not settled, of which `oldest` has been seen for `oldest_s`, and waits for `oldest_why`. The rest is of the
    last listing: `unreadable` names files and sub-folders nothing could be learned about.
    """

    name: str
    state: Literal["starting", "watching", "offline"] = "starting"
    reason: str = ""
    refused: str = ""
    remedy: str = ""
    observer: Literal["native", "polling", "none"] = "none"
    observer_reason: str = ""
    waiting: int = 0
    oldest: str | None = None
    oldest_s: float = 0.0
    oldest_why: str = ""
    scan_files: int = 0
    scan_s: float = 0.0
    symlinks: int = 0
    ignored: int = 0
    unreadable: tuple[str, ...] = ()


class Standing:
    def __init__(self, name: str) -> None:
        self.pulse = Pulse(f"intake-{name}")
        self._lock = threading.Lock()
        self._status = FolderStatus(name)
        self._oldest_since = 0.0
        self._busy_since: float | None = None

    def report(self, now: float) -> FolderStatus:
        with self._lock:
            status, busy = self._status, self._busy_since
            since = self._oldest_since
        if status.oldest is not None:
            status = replace(status, oldest_s=now - since)
        if busy is not None and now - busy > HUNG_S:
            reason = f"the file system has not answered for {now - busy:.0f} s. Work resumes when it does."
            status = replace(status, state="offline", reason=reason)
        return status

    def beat(self, now: float) -> None:
        """The thread is about to touch the file system."""
        self._busy_since = now
        self.pulse.beat()

    def rest(self, *, waiting: int, oldest: tuple[str, float, str] | None) -> None:
        """The thread is about to wait for hints. `oldest`: a relpath, since when it is seen, and why it waits."""
        self.pulse.beat()
        relpath, since, why = oldest or (None, 0.0, "")
        with self._lock:
            self._status = replace(self._status, waiting=waiting, oldest=relpath, oldest_why=why)
            self._oldest_since, self._busy_since = since, None

    def observed(self, kind: Literal["native", "polling"], reason: str) -> None:
        with self._lock:
            self._status = replace(self._status, observer=kind, observer_reason=reason)

    def refused(self, reason: str, remedy: str) -> None:
        with self._lock:
            self._status = replace(self._status, refused=reason, remedy=remedy)

    def listed(
        self, *, files: int, seconds: float, symlinks: int, ignored: int, unreadable: tuple[str, ...]
    ) -> None:
        with self._lock:
            self._status = replace(
                self._status,
                scan_files=files,
                scan_s=seconds,
                symlinks=symlinks,
                ignored=ignored,
                unreadable=unreadable,
            )

    def came_online(self) -> None:
        with self._lock:
            self._status = replace(self._status, state="watching", reason="")

    def went_offline(self, reason: str) -> bool:
        """False where this was known already."""
        self.pulse.beat()
        with self._lock:
            news = (self._status.state, self._status.reason) != ("offline", reason)
            self._status = replace(
                self._status, state="offline", reason=reason, observer="none", observer_reason=""
            )
            self._busy_since = None
        return news
