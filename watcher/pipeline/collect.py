"""Publishes results that were made elsewhere: names them, moves them, the sidecar last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from watcher.domain import Job, Outcome
from watcher.errors import HostError
from watcher.pipeline import publish, sidecar
from watcher.pipeline.finish import check_source, names_vary, place_for, withdraw_report
from watcher.pipeline.naming import Owner, Place
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.sidecar import SIDECAR, Record


def collect(job: Job, told: Path, record: Record, recipe: Recipe) -> Outcome:
    """Publish for `job` the set whose sidecar is `told`, and which says `record`.

    An Outcome without files means that `duplicates: skip` left the name to another photo.
    Raises InputChanged, InputRejected or HostError; then the set may be gone.
    """
    try:
        content = told.read_bytes()
    except OSError as error:
        raise HostError(f"cannot read {told}: {error.strerror or error}") from error
    made = sidecar.outcome_in(content, job, told)
    base, owner = told.name.removesuffix(SIDECAR), Owner(recipe.folder_name, job.source.relpath)
    folder, suffixes = recipe.folder, tuple(output.suffix for output in record.outputs)
    with place_for(owner, recipe, suffixes) as place:
        if place.taken:
            words = f"skipped: {place.sidecar.name} is the result of another photo"
            return replace(made, files=(), sidecar=place.sidecar, warnings=(*made.warnings, words))
        check_source(folder.path / job.source.relpath, job)
        outcome = _placed(made, place, suffixes, folder.output)
        older = publish.settled(place.folder, place.base, suffixes, vary=names_vary(recipe))
        gone = [] if older is None else [old.suffix for old in older.outputs if old.suffix not in suffixes]
        files = zip(outcome.files, suffixes, strict=True)
        publish.publish_all(
            place.folder,
            place.base,
            [(suffix, told.parent / (base + suffix)) for suffix in suffixes],
            sidecar=sidecar.moved(content, job.source, files, supersedes=gone),
            job_id=job.id,
            supersedes=gone,
        )
        withdraw_report(owner, place, recipe)
    return outcome


def _placed(made: Outcome, place: Place, suffixes: tuple[str, ...], output: Path) -> Outcome:
    files = tuple(
        replace(file, path=str(place.path(suffix).relative_to(output)))
        for file, suffix in zip(made.files, suffixes, strict=True)
    )
    return replace(made, files=files, sidecar=place.sidecar)
