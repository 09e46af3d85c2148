"""Where jobs run, what happens to files at their end, and the word that comes back of them."""

from __future__ import annotations

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
