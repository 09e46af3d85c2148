"""What a node holds, with what it does it, and what it has done so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from watcher.domain import EngineAbout, Job, Outcome
from watcher.fleet.brokers import Delivery, Listener
from watcher.fleet.messages import JobMessage
from watcher.pipeline.recipe import Recipe


class Runs(Protocol):
    def submit(self, job: Job) -> Future[Outcome]: ...


@dataclass(frozen=True, slots=True)
class Bench:
    """One warm engine: where its jobs run, and the recipes that the runner looks up by folder name."""

    model: str
    card: str
    runs: Runs
    recipes: MutableMapping[str, Recipe]
    about: Callable[[], EngineAbout]


@dataclass(slots=True, eq=False)
class Hand:
    """A job in our hands; the same job may be delivered more than once."""

    message: JobMessage
    attempt: Path
    deliveries: list[tuple[Listener, Delivery]] = field(default_factory=list)


@dataclass(slots=True)
class Counts:
    done: int = 0
    failed: int = 0
    times: deque[float] = field(default_factory=deque)  # when photos of the last minute ended
