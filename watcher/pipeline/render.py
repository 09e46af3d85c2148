"""From an alpha to the bytes of the results: refine, encode. All of it takes a core and nothing else: no name, no disk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from watcher import templates
from watcher.config import Profile
from watcher.domain import Frame, Review
from watcher.errors import InputRejected
from watcher.outputs import Output
from watcher.pipeline import edges, encode, refine
from watcher.pipeline.looks import Answer
from watcher.pipeline.review import is_noise, review
from watcher.pipeline.scale import resized, sane, unit


@dataclass(frozen=True, slots=True)
class Style:
    """What rendering needs to know of a hot folder: plain values, which any process may have."""

    folder_name: str
    profile_name: str
    profile: Profile


@dataclass(frozen=True, slots=True)
class Content:
    """What will be one file: base name + `suffix`. `sha256`: hex digest of `body`."""

    output: Output
    suffix: str
    body: bytes | memoryview
    sha256: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a photo has become, before it is on a disk. `frame` has its size still, but no pixels; `lost`: see `encode.losses`."""

    frame: Frame
    contents: tuple[Content, ...]
    review: Review
    cached: bool
    lost: tuple[str, ...]


def render(frame: Frame, answer: Answer, style: Style, *, timings: dict[str, float]) -> Rendered:
    """What `answer` makes of `frame`. What it took is added to `timings` (stage -> seconds).

    Raises InputRejected where a format cannot hold the photo, HostError where a background cannot be read.
    """
    profile = style.profile
    with timed(timings, "refine"):
        alpha = edges.clean(np.ascontiguousarray(answer.alpha, np.float32), profile.edges)
        found = review(_limited(alpha, frame), disagree=answer.disagree)
        if is_noise(found):
            alpha = np.zeros_like(alpha)
        refined = refine.refine(
            frame,
            alpha,
            method=profile.refine,
            side=profile.refine_side,
            decontaminate=profile.decontaminate,
            deep=any(output.depth == 16 for output in profile.outputs),
        )
    with timed(timings, "encode"):
        suffixes = _suffixes(frame, style)
        contents = tuple(
            _content(output, suffix, encode.encode(output, refined, frame))
            for output, suffix in zip(profile.outputs, suffixes, strict=True)
        )
        lost = tuple(words for output in profile.outputs for words in encode.losses(output, frame))
    return Rendered(without_pixels(frame), contents, found, answer.cached, lost)


def without_pixels(frame: Frame) -> Frame:
    """As wide and high as before, in no memory."""
    nothing = np.broadcast_to(np.zeros(1, frame.pixels.dtype), frame.pixels.shape)
    return replace(frame, pixels=nothing, opacity=None, proxy=np.empty((0, 0, 3), np.uint8))


def _content(output: Output, suffix: str, body: bytes) -> Content:
    return Content(output, suffix, body, hashlib.sha256(body).hexdigest())


@contextmanager
def timed(spent: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[stage] = time.perf_counter() - start


def _limited(alpha: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """The engine's alpha within the source's own, for counting."""
    alpha = sane(np.ascontiguousarray(alpha))
    if frame.opacity is None:
        return alpha
    return np.minimum(alpha, unit(resized(frame.opacity, (alpha.shape[1], alpha.shape[0]))))


def _suffixes(frame: Frame, style: Style) -> tuple[str, ...]:
    """What each output of this photo adds to its base name. Raises InputRejected."""
    outputs = style.profile.outputs
    if not varied(outputs):
        return tuple(output.suffix for output in outputs)
    source = frame.job.source
    values = {
        "folder": style.folder_name,
        "profile": style.profile_name,
        "model": style.profile.model,
        "width": str(frame.width),
        "height": str(frame.height),
        "ext": PurePosixPath(source.relpath).suffix.removeprefix(".").lower()[:8],
    }
    taken = templates.taken_at(frame.metadata.exif, source.stamp.mtime_ns / 1e9)
    found = []
    for output in outputs:
        try:
            name = output.name
            filled = name and templates.suffix(name, {**values, "kind": output.kind}, taken)
        except ValueError as error:
            raise InputRejected(str(error), remedy="Shorten `name` in the profile's outputs.") from error
        found.append(filled or output.suffix)
    if len({suffix.casefold() for suffix in found}) < len(found):
        raise InputRejected(
            f"two of its outputs would both be called NAME{_twice(found)}",
            remedy="Make the names of the profile's outputs differ for every photo.",
        )
    return tuple(found)


def varied(outputs: Sequence[Output]) -> bool:
    """Whether the names of results depend on the photo."""
    return any(output.name is not None for output in outputs)


def _twice(suffixes: list[str]) -> str:
    folded = [suffix.casefold() for suffix in suffixes]
    return next(suffix for suffix in suffixes if folded.count(suffix.casefold()) > 1)
