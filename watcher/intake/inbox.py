"""Where watchdog's thread leaves hints for the folder's own thread. Bounded; never blocks the giver."""

from __future__ import annotations

import threading
from dataclasses import dataclass

# Distinct paths. Beyond, the folder is listed instead.
CAPACITY = 20_000
# After a hint more follow at once as a rule; one turn for many is cheaper.
LINGER_S = 0.02


@dataclass(frozen=True, slots=True)
class Hints:
    """What came since the last time: paths, each once, and how many hints that were.

    `rescan`: something is to be found that no path says.
    """

    relpaths: tuple[str, ...]
    count: int
    rescan: bool


class Inbox:
    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._woken = threading.Condition()
        self._relpaths: dict[str, None] = {}
        self._count = 0
        self._rescan = False
        self._closed = False

    def put(self, relpath: str) -> None:
        """Something happened at `relpath`; `""` means: somewhere in the folder."""
        with self._woken:
            self._count += 1
            if not relpath or (len(self._relpaths) >= self._capacity and relpath not in self._relpaths):
                self._rescan = True
            else:
                self._relpaths[relpath] = None
            self._woken.notify()

    def close(self) -> None:
        """Let no one wait any more."""
        with self._woken:
            self._closed = True
            self._woken.notify()

    def take(self, timeout: float) -> Hints:
        """All that is there, waiting up to `timeout` seconds for the first."""
        with self._woken:
            if self._woken.wait_for(self._worth_waking, timeout) and not self._closed:
                self._woken.wait_for(lambda: self._closed, LINGER_S)
            hints = Hints(tuple(self._relpaths), self._count, self._rescan)
            self._relpaths.clear()
            self._count, self._rescan = 0, False
            return hints

    def _worth_waking(self) -> bool:
        return bool(self._relpaths) or self._rescan or self._closed
