"""When is a file done being written? A pure state machine: no clock, no I/O."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

from watcher.domain import Stamp

# A file whose end is missing is looked at again after 1, 2, 4, ... quiet periods, at most this far apart.
LONGEST_PAUSE_S = 60.0
# A quiet period of zero must not become a busy loop.
SHORTEST_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Ripe:
    """A path that kept `stamp` for the quiet period.

    `overdue`: it has kept it for so long that a missing end will hardly come any more.
    Times are monotonic: `first_seen` of the path, `since` of this stamp.
    """

    relpath: str
    stamp: Stamp
    overdue: bool
    first_seen: float
    since: float
    pauses: int


@dataclass(slots=True, eq=False)
class _Wait:
    relpath: str
    stamp: Stamp
    first_seen: float
    since: float
    due: float
    pauses: int = 0
    why: str = ""


class Settler:
    """Holds files back until their stamp has not changed for `quiet` seconds.

    Nothing that still changes is ever let go, however long it takes: half a file is
    useless. `give_up` seconds without a change make a file overdue, see `Ripe`.
    Every call is O(log n) in the number of waiting files, amortized.
    """

    def __init__(self, quiet: float, *, give_up: float) -> None:
        self._quiet = quiet
        self._give_up = give_up
        self._waiting: dict[str, _Wait] = {}
        self._order = itertools.count()
        # Entries that are no longer true stay until they surface: see `_next`.
        self._due: list[tuple[float, int, _Wait]] = []
        self._age: list[tuple[float, int, _Wait]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, relpath: str) -> bool:
        return relpath in self._waiting

    def note(self, relpath: str, stamp: Stamp | None, now: float) -> None:
        """Record what stat() said. An unchanged stamp does not restart the wait."""
        wait = self._waiting.get(relpath)
        if stamp is None:
            self._waiting.pop(relpath, None)
        elif wait is None:
            self._enter(_Wait(relpath, stamp, now, now, now + self._quiet))
        elif wait.stamp != stamp:
            wait.stamp, wait.since, wait.pauses, wait.why = stamp, now, 0, ""
            self._plan(wait, now + self._quiet)

    def pop_ripe(self, now: float) -> list[Ripe]:
        """Everything that has been quiet long enough, earliest first; it is forgotten here."""
        ripe = []
        while (wait := self._next()) is not None and wait.due <= now:
            heapq.heappop(self._due)
            del self._waiting[wait.relpath]
            overdue = now - wait.since >= self._give_up
            ripe.append(Ripe(wait.relpath, wait.stamp, overdue, wait.first_seen, wait.since, wait.pauses))
        return ripe

    def put_back(self, ripe: Ripe, stamp: Stamp, now: float, why: str = "") -> None:
        """Let it wait on: anew if `stamp` is another one, else a little longer each time, and `why` for people."""
        if stamp != ripe.stamp:
            self._enter(_Wait(ripe.relpath, stamp, ripe.first_seen, now, now + self._quiet))
            return
        pause = max(SHORTEST_PAUSE_S, min(LONGEST_PAUSE_S, self._quiet * 2.0 ** min(ripe.pauses, 30)))
        # A look falls on the end of the patience, not on the end of a pause.
        end = ripe.since + self._give_up
        due = end if now < end < now + pause else now + pause
        self._enter(_Wait(ripe.relpath, stamp, ripe.first_seen, ripe.since, due, ripe.pauses + 1, why))

    def hasten(self, relpath: str, now: float) -> None:
        """What kept it may be over: let it become ripe now."""
        if (wait := self._waiting.get(relpath)) is not None:
            self._plan(wait, now)

    def next_deadline(self) -> float | None:
        """When the next path may become ripe; None while nothing waits."""
        wait = self._next()
        return None if wait is None else wait.due

    def oldest(self) -> tuple[str, float, str] | None:
        """The path that has waited longest, since when it has been seen, and why if it no longer changes."""
        while self._age:
            first_seen, _, wait = self._age[0]
            if self._waiting.get(wait.relpath) is wait:
                return wait.relpath, first_seen, wait.why
            heapq.heappop(self._age)
        return None

    def _enter(self, wait: _Wait) -> None:
        self._waiting[wait.relpath] = wait
        heapq.heappush(self._age, (wait.first_seen, next(self._order), wait))
        self._plan(wait, wait.due)
        self._prune()

    def _plan(self, wait: _Wait, due: float) -> None:
        wait.due = due
        heapq.heappush(self._due, (due, next(self._order), wait))
        self._prune()

    def _next(self) -> _Wait | None:
        while self._due:
            due, _, wait = self._due[0]
            if wait.due == due and self._waiting.get(wait.relpath) is wait:
                return wait
            heapq.heappop(self._due)
        return None

    def _prune(self) -> None:
        """Keep what is no longer true from outgrowing what is."""
        limit = 1000 + 2 * len(self._waiting)
        if len(self._due) > limit:
            self._due = [(wait.due, next(self._order), wait) for wait in self._waiting.values()]
            heapq.heapify(self._due)
        if len(self._age) > limit:
            self._age = [(wait.first_seen, next(self._order), wait) for wait in self._waiting.values()]
            heapq.heapify(self._age)
