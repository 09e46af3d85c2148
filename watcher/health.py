"""What the daemon tells the outside: systemd, the status snapshot, and the lock that says it lives."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from watcher.domain import as_json
from watcher.errors import ConfigError, HostError
from watcher.log import event
from watcher.pulse import STILL_S, Pulse, Vigil, whereabouts

SNAPSHOT = "status.json"
LOCK = "lock"
JOURNAL = "journal.sqlite"
# SQLite needs this much to open a journal: a page or two of the log, an index of the log, three files.
LEAST_BYTES = 256 * 1024
LEAST_INODES = 4


class StateDir:
    """The folder with the journal, the snapshot and the lock. One daemon at a time.

    The lock is the kernel's (flock): it dies with its holder, however that dies, so a
    stale lock file means nothing and nobody ever has to delete one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise HostError(
                f"cannot use the state folder {path}: {error.strerror}",
                remedy="Name a folder that this user may write as state_dir.",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise ConfigError(
                [f"another hotmatte (process {pid}) uses the state folder {path}"],
                remedy="Stop it first, or give this one a state_dir and hot folders of its own.",
            ) from error
        # A courtesy to people; on a full disk the lock holds without it.
        with suppress(OSError):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def is_full(self) -> bool:
        """Whether the disk has no room, or no inode, left for us."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize < LEAST_BYTES or (
            status.f_files > 0 and status.f_favail < LEAST_INODES
        )

    def release(self) -> None:
        os.close(self._lock)

    def write_snapshot(self, snapshot: Mapping[str, Any]) -> None:
        """Readers see the old one or the new one. Not synced: it is worth nothing after a crash."""
        temporary = self.path / f".{SNAPSHOT}.tmp"
        try:
            temporary.write_text(json.dumps(as_json(snapshot)), encoding="ascii")
            temporary.replace(self.path / SNAPSHOT)
        except OSError as error:
            raise HostError(f"cannot write the status into {self.path}: {error.strerror}") from error


def holder(state_dir: Path) -> int | None:
    """The process id of the daemon that runs on `state_dir`, None if none does."""
    try:
        lock = os.open(state_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        word = os.pread(lock, 20, 0).decode(errors="replace").strip()
        return int(word) if word.isdigit() else 0
    finally:
        os.close(lock)
    return None


def read_snapshot(state_dir: Path) -> dict[str, Any]:
    """What the daemon last said of itself; empty if it never ran here."""
    try:
        snapshot: dict[str, Any] = json.loads((state_dir / SNAPSHOT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return snapshot


class Systemd:
    """sd_notify(3) by systemd-python; does nothing where the daemon is not a service."""

    def __init__(self) -> None:
        self._notify: Callable[[str], object] = lambda _: None
        if os.environ.get("NOTIFY_SOCKET"):
            self._notify = _sd_notify()
        # Seconds after which systemd kills a daemon that was not heard of; None: it does not.
        self.interval = _watchdog_interval()
        self._next_ping = 0.0
        self._said = ""

    def ready(self) -> None:
        self._notify("READY=1")

    def reloading(self) -> None:
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time while starting or stopping."""
        self._notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def say(self, words: str) -> None:
        """One line for `systemctl status`."""
        if words != self._said:
            self._notify(f"STATUS={words}")
            self._said = words

    def ping(self, now: float) -> None:
        """Alive: to be called only while every loop is. Pings at half the interval asked for."""
        if self.interval is not None and now >= self._next_ping:
            self._notify("WATCHDOG=1")
            self._next_ping = now + self.interval / 2


class Heartbeat:
    """Pings systemd while every loop lives. Where nobody would notice its silence, `give_up` is called."""

    def __init__(self, systemd: Systemd, give_up: Callable[[], None]) -> None:
        self._systemd = systemd
        self._give_up = give_up
        self._vigil = Vigil(still_s=min(STILL_S, systemd.interval or STILL_S))
        self._hung: dict[Pulse, str] = {}

    def beat(self, pulses: Iterable[Pulse], now: float) -> None:
        """To be called about once a second."""
        hung = self._vigil.hung(pulses, now)
        for pulse in hung.keys() - self._hung.keys():
            event(
                logging.ERROR,
                f"the loop {pulse.name} hangs: {hung[pulse]}; at {whereabouts(pulse)}",
                remedy="hotmatte starts again by itself, and loses nothing. Please report this line.",
            )
        for pulse in self._hung.keys() - hung.keys():
            event(logging.WARNING, f"the loop {pulse.name} goes on")
        self._hung = hung
        if not hung:
            self._systemd.ping(now)
        elif self._systemd.interval is None:
            self._give_up()


def _sd_notify() -> Callable[[str], object]:
    try:
        from systemd import daemon
    except ImportError as error:
        raise ConfigError(
            ["run as a systemd service of Type=notify, but systemd-python is not installed"],
            remedy="pip install 'hotmatte[systemd]' (needs gcc, pkg-config and libsystemd-dev).",
        ) from error
    notify: Callable[[str], object] = daemon.notify
    return notify


def _watchdog_interval() -> float | None:
    """Seconds, from WATCHDOG_USEC if it is meant for this process; see sd_watchdog_enabled(3)."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not usec.isdigit() or (pid is not None and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6
