"""When to list a hot folder: regularly, and once it is calm again after signs of lost hints. Pure."""

from __future__ import annotations

# So many hints within a second may have been more: the kernel drops what overflows its queue in silence.
BURST = 1000
WINDOW_S = 1.0
# A scan that hints ask for waits for a lull, but not for ever.
CALM_S = 0.5
LONGEST_S = 5.0
# Scans may take this share of the time.
SHARE = 0.1


class Pace:
    """All times are monotonic seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._regular = float("-inf")
        self._rested = float("-inf")
        self._wanted: tuple[float, float] | None = None  # first and last request
        self._window = float("-inf")
        self._count = 0

    @property
    def is_wanted(self) -> bool:
        """Whether the next scan has been asked for, rather than being a regular one."""
        return self._wanted is not None

    def hinted(self, count: int, now: float) -> None:
        """`count` hints came. A burst of them asks for a scan."""
        if now - self._window > WINDOW_S:
            self._window, self._count = now, 0
        self._count += count
        if self._count >= BURST:
            self.want(now)

    def want(self, now: float) -> None:
        first = now if self._wanted is None else self._wanted[0]
        self._wanted = (first, now)

    def scanned(self, began: float, ended: float) -> None:
        self._regular = began + self._interval
        self._rested = ended + (ended - began) * (1.0 / SHARE - 1.0)
        self._wanted = None

    def deadline(self) -> float:
        """When the next scan is due."""
        due = self._regular
        if self._wanted is not None:
            first, last = self._wanted
            due = min(due, last + CALM_S, first + LONGEST_S)
        return max(due, self._rested)
