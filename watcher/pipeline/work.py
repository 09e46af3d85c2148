"""Puts a job through the stages by the recipe of its hot folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.domain import Frame, Job, Outcome
from watcher.pipeline.answers import Answers
from watcher.pipeline.decode import DecodeLimits, decode, part
from watcher.pipeline.finish import deliver, style_of
from watcher.pipeline.looks import Answer, Canvases, Look, View, concluded, next_look
from watcher.pipeline.pages import keep_pages
from watcher.pipeline.readers import Reads
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.render import Rendered
from watcher.pipeline.renderers import HERE, Renders


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
        answers: Answers | None = None,
        renders: Renders = HERE,
    ) -> None:
        # Photos run side by side; threads of OpenCV's own inside each only get in the way.
        cv2.setNumThreads(1)
        keep_pages()
        self._recipes = recipes
        self._proxy_size = proxy_size
        self._canvases = canvases
        self._limits = limits
        self._reads = reads
        self._answers = answers
        self._renders = renders

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

    def conclude(self, views: Sequence[View]) -> Answer:
        return concluded(views)

    # --- What is known before anybody looks ------------------------------------------------

    def key(self, frame: Frame) -> str | None:
        if self._answers is None:
            return None
        return self._answers.key(frame, self._recipes[frame.job.source.folder].profile.looks)

    def find(self, key: str) -> Answer | None:
        return self._answers.find(key) if self._answers else None

    def keep(self, key: str, answer: Answer) -> None:
        if self._answers:
            self._answers.keep(key, answer)

    def share(self, answer: Answer) -> Answer:
        """The same for another photo: its own copy, for what follows may write into it."""
        if self._answers:
            self._answers.shared()
        return Answer(answer.alpha.copy(), answer.disagree, cached=True)

    # --- The end ---------------------------------------------------------------------------

    def render(self, frame: Frame, answer: Answer, *, timings: dict[str, float]) -> Rendered:
        style = style_of(self._recipes[frame.job.source.folder])
        return self._renders.render(frame, answer, style, timings=timings)

    def deliver(self, rendered: Rendered, *, timings: dict[str, float]) -> Outcome:
        recipe = self._recipes[rendered.frame.job.source.folder]
        return deliver(rendered, recipe, timings=timings)
