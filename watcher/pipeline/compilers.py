"""Processes that compile kernels side by side, into the cache on disk, and end. On the daemon's side; see compiler.py."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from watcher import memory
from watcher.cores import cores
from watcher.log import event
from watcher.pipeline.apart import environment

# More of them would not be through earlier: the longest part takes a third of the time of all.
_MOST = 3
# What one takes at its peak.
_MEGABYTES = 600


def worthwhile() -> int:
    """How many of them: one for each core, as far as there is memory for them; 0 where there would be but one."""
    room = memory.available_mb()
    count = min(_MOST, cores(), _MOST if room is None else int(room // _MEGABYTES))
    return count if count > 1 else 0


class Compilers:
    """They share `parts`, by number: whoever is free takes the next one from a pipe, and leaves when there is none."""

    def __init__(self, parts: Sequence[int], *, count: int) -> None:
        self._parts = parts
        self._count = count
        self._turn = threading.Lock()
        # Guarded by it.
        self._processes: list[subprocess.Popen[bytes]] = []
        self._killed = False

    def run(self, env: Mapping[str, str]) -> None:
        """Return when all have ended. What they have not done remains to be done, and raises nothing.

        `env`: what differs from our environment. For a thread that stays: they die with the one that started them.
        """
        try:
            self._start(env)
            failed = [status for one in self._processes if (status := one.wait())]
        except OSError as error:
            self._told(f"cannot be started: {error.strerror or error}")
            self.kill()
            for one in self._processes:
                one.wait()
        else:
            if failed:
                self._told(f"ended with {failed[0]}")

    def kill(self) -> None:
        """End them, now. From any thread, at any time."""
        with self._turn:
            self._killed = True
            for one in self._processes:
                one.kill()

    def _told(self, reason: str) -> None:
        if not self._killed:
            words = "Nothing: what it leaves is compiled without it, which takes longer."
            event(logging.WARNING, f"a process that compiles loops {reason}", remedy=words)

    def _start(self, env: Mapping[str, str]) -> None:
        outbox, inbox = os.pipe()
        try:
            # All at once, and before anybody reads: a pipe holds more than that.
            os.write(inbox, bytes(self._parts))
            os.close(inbox)
            for _ in range(self._count):
                with self._turn:
                    if not self._killed:
                        self._processes.append(_started(outbox, env))
        finally:
            os.close(outbox)


def _started(numbers: int, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "watcher.pipeline.compiler", str(os.getpid())],
        stdin=numbers,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(**env),
    )
