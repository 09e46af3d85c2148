"""Processes that do one kind of work for the daemon, a photo at a time: borrowed, asked, and killed where they do not answer.

What may crash, hang or eat memory does so there: whoever asked loses one photo, not the daemon. Nor do they share
Python's lock with its threads. See readers.py and renderers.py for the two kinds there are.
"""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, TypeVar

from watcher.errors import HostError, InputNotReady
from watcher.pipeline.apart import environment
from watcher.pipeline.channel import receive, send, wait_at_most
from watcher.threads import fork_refused

# Seconds until another is started where that failed.
AGAIN_S = 5.0


class Gone(Exception):
    """The process is not there any more."""


class Aide:
    """One process and the conversation with it, for one thread at a time."""

    def __init__(self, module: str, *arguments: str, does: str, idle_s: float) -> None:
        """Start `python -m module FD IDLE_S ARGUMENTS`. `does` completes "a process that ..."; `idle_s`: see Aides."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", module, str(theirs.fileno()), str(idle_s), *arguments]
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=environment(),
                )
            except OSError as error:
                ours.close()
                if (full := fork_refused(error, does)) is not None:
                    raise full from error
                raise HostError(f"cannot start a process that {does}: {error.strerror or error}") from error
        self._channel = ours
        self.keeps = idle_s == 0
        self.fresh = True

    def ask(
        self, message: Mapping[str, Any], *, fds: list[int], deadline: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Raises TimeoutError after `deadline` (monotonic), Gone, or ValueError for nonsense."""
        try:
            wait_at_most(self._channel, deadline - time.monotonic())
            send(self._channel, message, fds)
            answer, given = receive(self._channel)
        except BlockingIOError:
            raise TimeoutError from None
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise
            raise Gone from error
        if answer is None:
            raise Gone
        self.fresh = False
        return answer, given

    def close(self) -> int:
        """End it, now; its exit status. Safe to call twice."""
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(0.5)
        self._process.kill()
        return self._process.wait()

    def kill(self) -> int:
        self._process.kill()
        return self.close()


_Aide = TypeVar("_Aide", bound=Aide)


class Aides(Generic[_Aide]):
    """A pool that grows, by need, to the number of threads that ask at one time, and `most` at most. Thread-safe.

    `start` makes one that leaves by itself after so many seconds with nothing to do; 0: never. One stays
    for the next photo, the others leave after `idle_s`. One more is started when threads have
    waited for `patience` seconds together, without a moment in which one of the processes was free.
    """

    def __init__(
        self, start: Callable[[float], _Aide], *, idle_s: float, patience: float, most: int | None = None
    ) -> None:
        self._start = start
        self._idle_s = idle_s
        self._patience = patience
        self._most = most
        self._changed = threading.Condition()
        # All below are guarded by it.
        self._idle = [start(0)]
        self._count = 1
        self._not_before = 0.0  # monotonic: when one could not be started lately
        self._waiting = 0
        self._waited = 0.0  # seconds, all threads together, since the last start or free process ...
        self._tallied = 0.0  # ... up to this time, monotonic
        self._closed = False

    def borrow(self) -> _Aide:
        """The one that was used last, so that the others may leave; or a new one, where waiting costs as much.

        Raises HostError where there is none and none can be started.
        """
        while True:
            if (aide := self._taken()) is not None:
                return aide
            try:
                return self._start(self._idle_s)
            except BaseException as error:
                with self._changed:
                    self._count -= 1
                    self._changed.notify()
                    self._not_before = time.monotonic() + AGAIN_S
                    others = self._count > 0
                if not (others and isinstance(error, HostError)):
                    raise

    def _taken(self) -> _Aide | None:
        """One that is free; None: one more may be started, and is counted already."""
        with self._changed:
            if self._idle:
                self._waited = 0.0
            self._tally(+1)
            try:
                while not self._idle and not self._closed and self._count > 0:
                    if (pause := self._pause()) <= 0:
                        self._waited = 0.0
                        break
                    self._changed.wait(pause)
                    self._tally(0)
            finally:
                self._tally(-1)
            if self._idle:
                return self._idle.pop()
            self._count += 1
            return None

    def _pause(self) -> float:
        """Seconds until another process is worth its start, if none gets free before."""
        if self._most is not None and self._count >= self._most:
            self._waited = 0.0
            return AGAIN_S
        return max((self._patience - self._waited) / self._waiting, self._not_before - time.monotonic())

    def give_back(self, aide: _Aide) -> None:
        with self._changed:
            if not self._closed:
                # The one that keeps the seat goes to the end of the list, where it is taken first.
                self._idle.append(aide)
                self._idle.sort(key=lambda one: one.keeps)
                self._changed.notify()
                return
        aide.close()

    def lost(self) -> None:
        """One that was borrowed is not there any more."""
        with self._changed:
            self._count -= 1
            self._changed.notify()

    def replace(self, aide: _Aide) -> None:
        """`aide`, which was borrowed, is dead; the seat stays warm. Raises HostError where it cannot."""
        fresh = None
        try:
            fresh = self._start(0) if aide.keeps else None
        finally:
            if fresh is None:
                self.lost()
        if fresh is not None:
            self.give_back(fresh)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for aide in idle:
            aide.close()

    def _tally(self, more: int) -> None:
        """Add up what those who wait have waited; `more` of them from now on."""
        now = time.monotonic()
        self._waited += self._waiting * (now - self._tallied)
        self._tallied = now
        self._waiting += more


def death(status: int, doing: str) -> InputNotReady:
    """What the death of an aide means for its photo. `doing` completes "the process that ... it": "read"."""
    if status == -signal.SIGKILL:  # not by us: that is said where it is done
        return InputNotReady(
            f"the process that {doing} it was killed (signal 9), as a rule by the kernel for want of memory",
            remedy="Raise MemoryMax= of the service, or lower limits.max_in_flight_mp; then `hotmatte retry`.",
        )
    words = f"signal {-status}" if status < 0 else f"exit status {status}"
    return InputNotReady(
        f"the process that {doing} it died ({words})",
        remedy="Export the photo again; if others fail as well, look at the memory of this machine.",
    )
