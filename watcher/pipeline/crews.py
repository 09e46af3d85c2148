"""Threads that touch files, by hot folder: a share that hangs keeps those of its own folder, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from watcher.domain import Job
from watcher.pulse import Pulse
from watcher.threads import Team

# Seconds that work on one photo may take before it is asked whether its thread still moves.
PATIENCE = 600.0


class Crews:
    """Threads for one stage. `apart`: some for each hot folder, as a share that hangs keeps its own.

    `patience`: how long a photo may take, in seconds; None where waiting for other photos is part of it.
    """

    def __init__(self, stage: str, threads: int, *, apart: bool, patience: float | None = None) -> None:
        self._patience = patience
        self._pulses: set[Pulse] = set()
        self._stage = stage
        self._threads = threads
        self._apart = apart
        self._lock = threading.Lock()
        self._teams: dict[str, Team] = {}

    def open(self, job: Job) -> None:
        """Have a thread for the photos of `job`'s folder. Raises HostError where there is none and none can be started."""
        self._team_of(job).open()

    def submit(self, job: Job, work: Callable[..., None], *args: object) -> Future[None]:
        """Raises HostError where no thread is there for it, and none can be started."""
        return self._team_of(job).submit(self._work, f"{self._stage}-{job.source.folder}", work, *args)

    def _team_of(self, job: Job) -> Team:
        key = job.source.folder if self._apart else ""
        with self._lock:
            team = self._teams.get(key)
            if team is None:
                team = self._teams[key] = Team(self._threads, f"{self._stage}-{key}")
        return team

    def _work(self, name: str, work: Callable[..., None], *args: object) -> None:
        if self._patience is None:
            work(*args)
            return
        pulse = Pulse(name)
        pulse.beat(self._patience)
        with self._lock:
            self._pulses.add(pulse)
        try:
            work(*args)
        finally:
            with self._lock:
                self._pulses.discard(pulse)

    def pulses(self) -> list[Pulse]:
        """Of what is being worked on."""
        with self._lock:
            return list(self._pulses)

    def shutdown(self) -> None:
        for team in self._teams.values():
            team.shutdown()
