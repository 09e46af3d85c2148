"""Where jobs run, what happens to files at their end, and the word that comes back of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from watcher.domain import Failure, Job, Outcome


class Runs(Protocol):
    """Where jobs run: a Runner here, or one on another machine."""

    def submit(self, job: Job) -> Future[Outcome]: ...


class Ends(Protocol):
    """What has to happen to files at the end of a job; may hang. Raises WatcherError."""

    def done(self, outcome: Outcome) -> None: ...
    def quarantined(self, job: Job, failure: Failure) -> None: ...


class Word(NamedTuple):
    """Of a job, and how to record it: may raise HostError, and is tried again then. Or its `outcome`."""

    job: Job
    record: Callable[[], None]
    outcome: Outcome | None = None


# Where many photos are under way, words that come within so many seconds of the first are heard together, or fewer
# seconds, where so large a share of all photos has spoken: for each turn a thread wakes, and the journal writes twice.
GATHER_S, ENOUGH = 0.025, 1 / 4


class Words:
    """What any thread says to one that listens. `most`: photos there may be under way."""

    def __init__(self, most: int) -> None:
        self._said: queue.SimpleQueue[Word | None] = queue.SimpleQueue()
        self._enough = max(1, int(ENOUGH * most))
        self._heard_enough = threading.Event()
        self._hurried = False

    def say(self, word: Word | None) -> None:
        """None: nothing to record, but something to look at."""
        self._said.put(word)
        # Whoever gathers has taken the first.
        if self._hurried or self._said.qsize() + 1 >= self._enough:
            self._heard_enough.set()

    def hurry(self) -> None:
        """From now on nobody is waited for."""
        self._hurried = True
        self.say(None)

    def hear(self, patience: float, *, crowded: bool) -> list[Word]:
        """All that were said, waiting `patience` seconds for the first; a little longer for more where `crowded`."""
        heard: list[Word | None] = []
        try:
            heard.append(self._said.get(timeout=patience))
            self._heard_enough.clear()
            if crowded and not self._hurried and self._said.qsize() + 1 < self._enough:
                self._heard_enough.wait(GATHER_S)
            while True:
                heard.append(self._said.get_nowait())
        except queue.Empty:
            return [word for word in heard if word is not None]
