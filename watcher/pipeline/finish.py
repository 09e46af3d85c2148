"""From an alpha to published results: refine, encode, name, publish. No policy about errors."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from watcher import templates
from watcher.domain import Failure, Frame, Job, Outcome, Published, Source, Stamp
from watcher.errors import HostError, InputChanged, InputRejected, SubfolderClosed
from watcher.pipeline import decode, naming, publish, sidecar
from watcher.pipeline.compiled import compile_all, compile_aside
from watcher.pipeline.compiler import PARTS, call_each_kernel
from watcher.pipeline.looks import Answer
from watcher.pipeline.naming import Owner, Place
from watcher.pipeline.obstacles import in_the_way
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.render import Content, Rendered, Style, render, timed, varied


def finish(
    frame: Frame,
    alpha: NDArray[np.float32],
    recipe: Recipe,
    *,
    disagree: bool = False,
    cached: bool = False,
    timings: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.time,
) -> Outcome:
    """Everything after the engine. `alpha`: hxw, the proxy's size; `timings`: stages so far, in seconds.

    `disagree`: the looks that `alpha` was chosen from contradict each other. `cached`: it was
    computed for the same photo at an earlier time.

    An Outcome without files means that `duplicates: skip` left the name to another photo:
    nothing was written, and the source must not be retired. Raises InputChanged,
    InputRejected or HostError.
    """
    spent = dict(timings or {})
    answer = Answer(np.ascontiguousarray(alpha, np.float32), disagree, cached)
    rendered = render(frame, answer, style_of(recipe), timings=spent)
    return deliver(rendered, recipe, timings=spent, clock=clock)


def deliver(
    rendered: Rendered, recipe: Recipe, *, timings: dict[str, float], clock: Callable[[], float] = time.time
) -> Outcome:
    """The second half of `finish`: names, the source once more, and publishing. `timings`: see `render`."""
    frame, found = rendered.frame, rendered.review
    owner = Owner(recipe.folder_name, frame.job.source.relpath)
    with place_for(owner, recipe, tuple(content.suffix for content in rendered.contents)) as place:
        spent = dict(timings)
        outcome = Outcome(frame.job, (), place.sidecar, found, spent, frame.warnings, rendered.cached)
        if place.taken:
            words = f"skipped: {place.sidecar.name} is the result of another photo"
            return replace(outcome, warnings=(*frame.warnings, words))
        check_source(frame.path, frame.job)
        outcome = replace(outcome, warnings=(*frame.warnings, *rendered.lost))
        outcome = _described(rendered.contents, place, recipe, outcome, (frame.width, frame.height))
        with timed(spent, "publish"):
            _publish(frame, rendered.contents, outcome, place, recipe, now=clock())
        withdraw_report(owner, place, recipe)
    return outcome


def warm_up(cache: Path | None = None) -> None:
    """Compile every kernel, so that the first photo need not wait for it; below `cache` for the next start."""
    compile_all(call_each_kernel, cache, parts=range(len(PARTS)))


def warm_up_aside(cache: Path) -> threading.Thread:
    """The same in a thread of its own; photos that come meanwhile wait for it, see runner.py."""
    return compile_aside(call_each_kernel, cache, parts=range(len(PARTS)))


def report(job: Job, failure: Failure, recipe: Recipe, *, clock: Callable[[], float] = time.time) -> Path:
    """Write the error report of a job that was given up, and say where. Raises HostError."""
    folder, base = _report_place(job.source.relpath, recipe)
    owner = Owner(recipe.folder_name, job.source.relpath)
    path, root = folder / (base + sidecar.REPORT), recipe.folder.quarantine or recipe.folder.output
    with _only_this_photo(root), _held(recipe, path, owner):
        recipe.ground.check(root)
        path = naming.report_of(folder, base, owner)
        publish.publish_one(path, sidecar.report(job, failure, now=clock()), job_id=job.id)
        recipe.ground.check(root)
    return path


@contextmanager
def _held(recipe: Recipe, path: Path, owner: Owner) -> Iterator[None]:
    recipe.names.reserve([path], owner, wait=True)
    try:
        yield
    finally:
        recipe.names.release([path])


def _reserved_suffixes(recipe: Recipe) -> tuple[str, ...]:
    """As long as suffixes can get: a long name must be cut alike for every version of a photo."""
    return tuple(output.suffix or "x" * templates.MOST_BYTES for output in recipe.profile.outputs)


def names_vary(recipe: Recipe) -> bool:
    return varied(recipe.profile.outputs)


def style_of(recipe: Recipe) -> Style:
    return Style(recipe.folder_name, recipe.profile_name, recipe.profile)


@contextmanager
def place_for(owner: Owner, recipe: Recipe, suffixes: tuple[str, ...]) -> Iterator[Place]:
    """Where the results of `owner` go, held until the block ends: see naming.claimed. Then its former ones go."""
    folder = recipe.folder
    with (
        _only_this_photo(folder.output),
        naming.claimed(
            recipe.names,
            owner,
            output=folder.output,
            tree=folder.tree,
            suffixes=suffixes,
            reserved=_reserved_suffixes(recipe) if names_vary(recipe) else None,
            duplicates=folder.duplicates,
        ) as place,
    ):
        recipe.ground.check(folder.output)
        yield place
        # What was written since may lie below the mount point: then it does not count, and is done again.
        recipe.ground.check(folder.output)
        for base in place.former:
            publish.withdraw(place.folder, base)


@contextmanager
def _only_this_photo(root: Path) -> Iterator[None]:
    """What is in the way of one photo's results is its affair, but not where `root` itself is no folder.

    A sub-folder that refuses us, where `root` does not, is that of its photos; a file, where its folder does
    not, that of its photo.
    """
    try:
        yield
    except HostError as error:
        cause = error.__cause__
        if not isinstance(cause, PermissionError) or not _may_write(root):
            raise
        if cause.filename and _may_write(Path(os.fsdecode(cause.filename)).parent):
            raise in_the_way(cause, root) from cause
        raise SubfolderClosed(str(error)) from cause
    except InputRejected as error:
        if root.exists() and not root.is_dir():
            words = f"{root}, where results go, is not a folder"
            raise HostError(words, remedy="Put a folder there; work resumes by itself.") from error
        raise


def _may_write(folder: Path) -> bool:
    """By trying: what mode bits say of a share is not what its server will do."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".trial", suffix=".0.hotmatte.tmp"):
            return True
    except OSError:
        return False


def check_source(path: Path, job: Job) -> None:
    """Nobody wants the matte of a photo that has been replaced meanwhile. Raises InputChanged, HostError."""
    try:
        unchanged = Stamp.of(path.lstat()) == job.source.stamp
    except OSError as error:
        raise decode.translated(error, path) from error
    if not unchanged:
        raise InputChanged("the file changed while it was worked on")


def _described(
    contents: Sequence[Content], place: Place, recipe: Recipe, outcome: Outcome, size: tuple[int, int]
) -> Outcome:
    files = []
    folder = str(place.folder.relative_to(recipe.folder.output))
    base = place.base if folder == "." else f"{folder}/{place.base}"
    for content in contents:
        path = base + content.suffix
        output = content.output
        files.append(Published(output.kind, path, output.format, *size, len(content.body), content.sha256))
    return replace(outcome, files=tuple(files))


def _publish(
    frame: Frame, contents: Sequence[Content], outcome: Outcome, place: Place, recipe: Recipe, *, now: float
) -> None:
    suffixes = [content.suffix for content in contents]
    older = None
    if not place.free:
        older = publish.settled(place.folder, place.base, suffixes, vary=names_vary(recipe))
    gone = [] if older is None else [old.suffix for old in older.outputs if old.suffix not in suffixes]
    told = sidecar.sidecar(
        frame,
        zip(outcome.files, suffixes, strict=True),
        engine=recipe.about(),
        profile=(recipe.profile_name, recipe.profile),
        review=outcome.review,
        timings=outcome.timings,
        cached=outcome.cached,
        warnings=outcome.warnings,
        supersedes=gone,
        now=now,
    )
    outputs = [(content.suffix, content.body) for content in contents]
    publish.publish_all(place.folder, place.base, outputs, sidecar=told, job_id=frame.job.id, supersedes=gone)


def _report_place(relpath: str, recipe: Recipe) -> tuple[Path, str]:
    root = recipe.folder.quarantine or recipe.folder.output
    return naming.place_of(relpath, output=root, tree=recipe.folder.tree, suffixes=_reserved_suffixes(recipe))


def withdraw_report(owner: Owner, place: Place, recipe: Recipe) -> None:
    """A report of an earlier failure is no longer true."""
    folder, base = _report_place(owner.relpath, recipe)
    if naming.exists(f"{folder}/{base}{sidecar.REPORT}"):
        with suppress(OSError):
            naming.report_of(folder, base, owner).unlink()


def withdraw_report_of(source: Source, recipe: Recipe) -> bool:
    """The report of a photo that is gone; whether it was there. One of another photo or version stays."""
    folder, base = _report_place(source.relpath, recipe)
    owner = Owner(recipe.folder_name, source.relpath)
    with suppress(OSError, InputRejected), _held(recipe, folder / (base + sidecar.REPORT), owner):
        path = naming.report_of(folder, base, owner)
        told = sidecar.told_in(path.read_bytes())
        if told is not None and told.failure is not None and told.source == source:
            path.unlink()
            return True
    return False
