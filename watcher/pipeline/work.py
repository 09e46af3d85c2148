"""Puts a job through the stages by the recipe of its hot folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.domain import Frame, Job, Outcome
from watcher.pipeline.decode import DecodeLimits, decode, part
from watcher.pipeline.finish import finish
from watcher.pipeline.looks import Canvases, Look, View, chosen, disagree, next_look
from watcher.pipeline.readers import Reads
from watcher.pipeline.recipe import Recipe


class FolderWork:
    """The runner's `Work`, for hot folders by name."""

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        *,
        proxy_size: Callable[[int, int], tuple[int, int]],
        canvases: Callable[[int, int], Canvases],
        limits: DecodeLimits,
        reads: Reads,
    ) -> None:
        # Photos run side by side; threads of OpenCV's own inside each only get in the way.
        cv2.setNumThreads(1)
        self._recipes = recipes
        self._proxy_size = proxy_size
        self._canvases = canvases
        self._limits = limits
        self._reads = reads

    def decode(self, job: Job, *, reserve: Callable[[int], None]) -> Frame:
        path = self._recipes[job.source.folder].folder.path / job.source.relpath
        return decode(
            job, path, proxy_size=self._proxy_size, limits=self._limits, reserve=reserve, reads=self._reads
        )

    def next_look(self, frame: Frame, views: Sequence[View]) -> Look | None:
        policy = self._recipes[frame.job.source.folder].profile.looks
        return next_look(views, self._canvases(frame.width, frame.height), policy)

    def show(self, frame: Frame, look: Look) -> NDArray[np.uint8]:
        return part(frame, look.of((frame.width, frame.height)), look.size)

    def finish(self, frame: Frame, views: Sequence[View], *, timings: dict[str, float]) -> Outcome:
        recipe = self._recipes[frame.job.source.folder]
        return finish(frame, chosen(views), recipe, disagree=disagree(views), timings=timings)
