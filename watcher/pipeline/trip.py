"""One job on its way through the stages, and the time each of them took."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Frame, Job, Outcome
from watcher.log import LOGGER, event
from watcher.pipeline.looks import Answer, Look, View


class Trip:
    """What is known of the job so far, and what it holds in memory."""

    __slots__ = (
        "answer",
        "empty",
        "frame",
        "job",
        "key",
        "look",
        "pixels",
        "proxy",
        "reduced",
        "result",
        "since",
        "timings",
        "views",
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self.result: Future[Outcome] = Future()
        self.frame: Frame | None = None
        self.proxy: NDArray[np.uint8] | None = None  # what the engine is shown next
        self.look: Look | None = None  # what that is; None: the frame's own proxy
        self.views: list[View] = []
        self.key: str | None = None  # while others may wait for what this one is told
        self.reduced = False  # the engine did less than it was asked for
        self.answer: Answer | None = None
        self.pixels = 0
        self.empty = False
        self.timings: dict[str, float] = {}
        self.since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on `stage`."""
        now = time.perf_counter()
        spent, self.since = now - self.since, now
        self.timings[stage] = self.timings.get(stage, 0.0) + spent
        if not LOGGER.isEnabledFor(logging.DEBUG):
            return
        source = self.job.source
        event(
            logging.DEBUG,
            "passed",
            job=self.job.id,
            folder=source.folder,
            file=source.relpath,
            stage=stage,
            ms=round(spent * 1000),
        )

    @property
    def asks(self) -> bool:
        """Whether the engine may have to look at it yet."""
        return self.answer is None and not self.empty

    def let_go(self) -> None:
        """Of everything large."""
        self.empty = True
        self.frame = self.proxy = self.answer = None
        self.views = []
