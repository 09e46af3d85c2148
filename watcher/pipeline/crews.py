"""Threads that touch files, by hot folder: a share that hangs keeps those of its own folder, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from watcher.domain import Job


class Crews:
    """Threads for one stage. `apart`: some for each hot folder, as a share that hangs keeps its own."""

    def __init__(self, stage: str, threads: int, *, apart: bool) -> None:
        self._stage = stage
        self._threads = threads
        self._apart = apart
        self._lock = threading.Lock()
        self._crews: dict[str, ThreadPoolExecutor] = {}

    def submit(self, job: Job, work: Callable[..., None], *args: object) -> Future[None]:
        key = job.source.folder if self._apart else ""
        with self._lock:
            crew = self._crews.get(key)
            if crew is None:
                crew = self._crews[key] = ThreadPoolExecutor(self._threads, f"{self._stage}-{key}")
        return crew.submit(work, *args)

    def shutdown(self) -> None:
        for crew in self._crews.values():
            crew.shutdown()
