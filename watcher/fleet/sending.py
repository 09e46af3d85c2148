"""Which jobs are out, and which of them have to be sent again. Pure: takes `now`; thread-safe."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from watcher.domain import Job, Outcome
from watcher.fleet.messages import JobMessage

# After the broker came back: time for the nodes to say what they still hold.
SETTLING_S = 5.0


@dataclass(slots=True, eq=False)
class Pending:
    """A job that was submitted and has no end yet."""

    job: Job
    result: Future[Outcome] = field(default_factory=Future)
    message: JobMessage | None = None
    sent_at: float | None = None  # None: is waiting to be sent
    number: int = 0  # in the order of sending
    generation: int = 0  # which life of the broker it was sent into


class Ledger:
    """Jobs out, by number. A job leaves it once: whoever takes it answers for its end."""

    def __init__(self, *, resend_after: float) -> None:
        self._resend_after = resend_after
        self._lock = threading.Lock()
        self._out: dict[int, Pending] = {}
        self._numbers = 0
        self._answered = 0  # the highest number that has been answered
        self._lost = False
        self._regained_at = 0.0
        self.generation = 0
        self.resent = 0

    def __len__(self) -> int:
        return len(self._out)

    def add(self, pending: Pending) -> None:
        with self._lock:
            self._out[pending.job.id] = pending

    def has(self, pending: Pending) -> bool:
        return self._out.get(pending.job.id) is pending

    def take(self, pending: Pending) -> bool:
        """True for one caller only."""
        with self._lock:
            if self._out.get(pending.job.id) is not pending:
                return False
            del self._out[pending.job.id]
            return True

    def waiting(self, held: set[int]) -> list[Pending]:
        with self._lock:
            return [pending for number, pending in self._out.items() if number not in held]

    def clear(self) -> list[Pending]:
        with self._lock:
            taken = list(self._out.values())
            self._out.clear()
            return taken

    def sent(self, pending: Pending, *, now: float, generation: int) -> None:
        with self._lock:
            self._numbers += 1
            pending.number, pending.sent_at, pending.generation = self._numbers, now, generation

    def answered(self, job: int) -> Pending | None:
        """Some node has something to say of it. None: nobody waits for that any more."""
        with self._lock:
            pending = self._out.get(job)
            if pending is not None and pending.sent_at is not None:
                self._answered = max(self._answered, pending.number)
            return pending

    def lost(self) -> None:
        """The broker is away: it may forget whatever was sent."""
        with self._lock:
            self._lost = True

    def regained(self, now: float) -> None:
        with self._lock:
            if self._lost:
                self._lost = False
                self.generation += 1
                self._regained_at = now

    def to_resend(self, held: set[int], now: float, *, idle: bool) -> list[Pending]:
        """Those that no node holds and that cannot be waiting in the broker; they count as unsent then.

        `idle`: some node has room, so that nothing at all can be waiting there.
        """
        with self._lock:
            found = [
                pending
                for pending in self._out.values()
                if pending.sent_at is not None
                and pending.job.id not in held
                and self._is_lost(pending, now, idle=idle)
            ]
            for pending in found:
                pending.sent_at = None
            self.resent += len(found)
            return found

    def _is_lost(self, pending: Pending, now: float, *, idle: bool) -> bool:
        if self._lost or pending.sent_at is None:
            return False
        if pending.generation != self.generation:
            return now - self._regained_at > SETTLING_S
        # Queues are first in, first out: who was overtaken is not waiting there any more.
        return now - pending.sent_at > self._resend_after and (idle or pending.number < self._answered)
