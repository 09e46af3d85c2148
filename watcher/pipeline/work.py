"""Puts a job through the stages by the recipe of its hot folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2

from watcher.domain import Frame, Job, Outcome
from watcher.pipeline.decode import DecodeLimits, decode
from watcher.pipeline.finish import finish
from watcher.pipeline.readers import Reads
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.runner import Values


class FolderWork:
    """The runner's `Work`, for hot folders by name."""

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        *,
        proxy_size: Callable[[int, int], tuple[int, int]],
        limits: DecodeLimits,
        reads: Reads,
    ) -> None:
        # Photos run side by side; threads of OpenCV's own inside each only get in the way.
        cv2.setNumThreads(1)
        self._recipes = recipes
        self._proxy_size = proxy_size
        self._limits = limits
        self._reads = reads

    def decode(self, job: Job, *, reserve: Callable[[int], None]) -> Frame:
        path = self._recipes[job.source.folder].folder.path / job.source.relpath
        return decode(
            job, path, proxy_size=self._proxy_size, limits=self._limits, reserve=reserve, reads=self._reads
        )

    def finish(self, frame: Frame, alpha: Values, *, timings: dict[str, float]) -> Outcome:
        return finish(frame, alpha, self._recipes[frame.job.source.folder], timings=timings)
