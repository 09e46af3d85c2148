"""Processes that render, on the daemon's side. See renderer.py.

Where a GPU computes the alphas, the daemon's threads would wait for each other: every piece of native code that is
done waits for Python's lock, and rendering 1080p has fifty of them. A process has a lock of its own.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

from watcher import errors
from watcher.domain import Frame, Review
from watcher.errors import HostError, InputError, InputNotReady, InputRejected, WatcherError
from watcher.log import event
from watcher.pipeline import parcel
from watcher.pipeline.aides import Aide, Aides, Gone, death
from watcher.pipeline.channel import shut
from watcher.pipeline.compiled import compilers_at_work
from watcher.pipeline.looks import Answer
from watcher.pipeline.order import values_of
from watcher.pipeline.pages import KEPT_BYTES
from watcher.pipeline.render import Content, Rendered, Style, render, without_pixels
from watcher.pipeline.rooms import Room, memory_of

# The start of one takes two seconds of a core: Python, NumPy, OpenCV, numba and its kernels. With many cores that are idle
# meanwhile, less waiting than that is reason enough.
PATIENCE_S = 0.5
# Seconds that one photo may take.
TIMEOUT_S = 600.0


class Renders(Protocol):
    """Whoever makes results of a frame and an answer: see render.py."""

    def render(
        self, frame: Frame, answer: Answer, style: Style, *, timings: dict[str, float]
    ) -> Rendered: ...
    def close(self) -> None: ...


class Here:
    """Right here, in the thread that asks."""

    def render(self, frame: Frame, answer: Answer, style: Style, *, timings: dict[str, float]) -> Rendered:
        return render(frame, answer, style, timings=timings)

    def close(self) -> None:
        pass


HERE = Here()


class _Renderer(Aide):
    def __init__(self, idle_s: float, *, cache: Path) -> None:
        # Where the daemon still compiles, at a very first start, the first photo will wait for that anyway.
        when = "later" if compilers_at_work() else "now"
        super().__init__("watcher.pipeline.renderer", str(cache), when, does="renders photos", idle_s=idle_s)
        self._room: Room | None = None
        self._results: int | None = None

    def ask_for(self, frame: Frame, answer: Answer, style: Style, *, deadline: float) -> dict[str, Any]:
        """As `ask`. What it made is there until it is asked again: see `results`."""
        picture = memory_of(frame.pixels)
        fields, parts, size = parcel.packed(values_of(frame, answer, style), picture)
        fds, fresh = [], None
        if self._room is None or size > self._room.size:
            if self._room is not None:
                self._room.close()
            self._room = Room(max(KEPT_BYTES, size))
            fresh = self._room.size
            fds.append(self._room.descriptor())
        self._room.fill(parts)
        try:
            told, given = self.ask(
                {"room": fresh, "fields": fields},
                fds=[*fds, *([] if picture is None else [picture.descriptor])],
                deadline=deadline,
            )
        finally:
            shut(fds)
        if given:
            self._results = given[0]
        return told

    def results(self, count: int) -> memoryview:
        """The first so many bytes of what it made."""
        assert self._results is not None
        parts: list[bytes] = []
        while (at := sum(len(part) for part in parts)) < count:
            parts.append(os.pread(self._results, count - at, at))
            if not parts[-1]:
                raise ValueError("results that end too early")
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> int:
        if self._room is not None:
            self._room.close()
            self._room = None
        if self._results is not None:
            os.close(self._results)
            self._results = None
        return super().close()


class Renderers:
    """A pool of processes that render, `most` at most. Thread-safe. `cache`: where compiled loops are kept."""

    def __init__(
        self,
        *,
        most: int,
        cache: Path,
        timeout: float = TIMEOUT_S,
        idle_s: float = 60.0,
        patience: float = PATIENCE_S,
    ) -> None:
        self._timeout = timeout
        start = partial(_Renderer, cache=cache)
        self._aides = Aides(start, idle_s=idle_s, patience=patience, most=most)

    def render(self, frame: Frame, answer: Answer, style: Style, *, timings: dict[str, float]) -> Rendered:
        """As `render.render`, and InputNotReady where a process died of it."""
        while True:
            aide, began = self._aides.borrow(), time.monotonic()
            fresh = aide.fresh
            try:
                told = aide.ask_for(frame, answer, style, deadline=began + self._timeout)
                if told["kind"] != "failed":
                    rendered = _rendered(aide, told, frame, answer, style)
                    timings |= told["timings"]
            except TimeoutError:
                self._lose(aide)
                raise InputRejected(
                    f"rendering it took longer than {self._timeout:g} s, and was stopped",
                    remedy="Choose faster formats or less effort in the profile's outputs, then `hotmatte retry`.",
                ) from None
            except Gone:
                status = self._lose(aide)
                # It had left for want of work just when it was borrowed.
                if not fresh and status == 0:
                    continue
                raise death(status, "rendered") from None
            except (ValueError, TypeError, LookupError) as error:
                self._lose(aide)
                raise InputNotReady(f"the process that rendered it answered nonsense ({error})") from error
            except OSError as error:
                self._lose(aide)
                raise HostError(f"cannot have it rendered: {error.strerror or error}") from error
            except BaseException:
                self._lose(aide)
                raise
            self._aides.give_back(aide)
            if told["kind"] == "failed":
                _complain(told)
            return rendered

    def close(self) -> None:
        self._aides.close()

    def _lose(self, aide: _Renderer) -> int:
        status = aide.kill()
        self._aides.replace(aide)
        return status


def _rendered(
    aide: _Renderer, told: Mapping[str, Any], frame: Frame, answer: Answer, style: Style
) -> Rendered:
    made = aide.results(max((at + count for _, at, count, _ in told["contents"]), default=0))
    contents = tuple(
        Content(output, suffix, made[at : at + count], sha256)
        for output, (suffix, at, count, sha256) in zip(style.profile.outputs, told["contents"], strict=True)
    )
    review = Review(**told["review"] | {"flags": tuple(told["review"]["flags"])})
    return Rendered(without_pixels(frame), contents, review, answer.cached, tuple(told["lost"]))


def _complain(answer: Mapping[str, Any]) -> NoReturn:
    kind = getattr(errors, str(answer["error"]), None)
    if isinstance(kind, type) and issubclass(kind, InputError | HostError):
        cause = (
            None if answer.get("errno") is None else OSError(answer["errno"], os.strerror(answer["errno"]))
        )
        raise kind(str(answer["reason"]), remedy=answer["remedy"]) from cause
    event(logging.ERROR, f"bug: {answer.get('trace') or answer['reason']}")
    raise WatcherError(f"rendering it failed: {answer['error']}: {answer['reason']}")
