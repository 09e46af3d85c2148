"""A bound on the pixels held in memory at one time."""

from __future__ import annotations

import threading
from collections import deque


class PixelBudget:
    """Pixels may be taken while there is room, strictly in the order of asking.

    Without the order, a large photo would wait for ever behind a stream of small ones.
    One that is larger than the whole budget is let through when nothing else is held.
    """

    def __init__(self, pixels: int) -> None:
        self._total = pixels
        self._held = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, pixels: int) -> None:
        """Block until `pixels` fit."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(lambda: self._queue[0] is ticket and self._fits(pixels))
            self._queue.popleft()
            self._held += pixels
            self._changed.notify_all()

    def give_back(self, pixels: int) -> None:
        with self._changed:
            self._held -= pixels
            self._changed.notify_all()

    @property
    def held(self) -> int:
        return self._held

    def _fits(self, pixels: int) -> bool:
        return self._held == 0 or self._held + pixels <= self._total
