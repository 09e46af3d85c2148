"""Jobs and folders as the API and the page show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from watcher.domain import JobState, printable
from watcher.journal import Record
from watcher.web.results import Result, result_of, words_of
from watcher.web.site import Site


class FileView(BaseModel):
    """One published file; `href` leads to its bytes."""

    kind: str
    href: str
    format: str
    width: int
    height: int
    size: int = Field(description="bytes")
    sha256: str


class JobView(BaseModel):
    """Times are seconds since 1970."""

    job: int
    folder: str
    file: str = Field(description="path in the hot folder; what is not printable is escaped")
    state: JobState
    attempts: int
    size: int = Field(description="bytes of the photo")
    admitted_at: float
    ended_at: float | None = None
    gone: bool = Field(description="this version of the photo is no longer in the hot folder")
    seconds: float | None = Field(None, description="from the claim to the sidecar")
    coverage: float | None = Field(None, description="mean alpha")
    flags: list[str] = Field([], description="why a person should look at the matte")
    stages_ms: dict[str, float] = {}
    error: str | None = None
    reason: str | None = Field(
        None, description="why it failed, or why nothing was made of a photo that is done"
    )
    remedy: str | None = None
    verdict: str | None = Field(
        None, description="accepted or redone, once somebody has judged a flagged matte"
    )
    files: list[FileView] | None = Field(
        None, description="what was published and still lies there; only where one job is asked for"
    )


class JobList(BaseModel):
    jobs: list[JobView]
    next: str | None = Field(None, description="where the older ones are")


class FolderView(BaseModel):
    """A hot folder. `state` is `unknown` while no daemon runs."""

    name: str
    profile: str
    state: Literal["starting", "watching", "offline", "paused", "unknown"]
    reason: str | None = None
    remedy: str | None = None
    held: bool = Field(description="paused by hand")
    observer: str | None = None
    files: int | None = None
    unsettled: int | None = None
    unsettled_why: str | None = Field(None, description="which of these has waited longest, and why")
    queued: int = 0
    running: int = 0
    done: int = 0
    quarantined: int = 0


class FolderList(BaseModel):
    folders: list[FolderView]


def job_view(record: Record) -> JobView:
    """What the journal alone says: cheap enough for long lists."""
    words, job = words_of(record), record.job
    if "companion_of" in words:
        words = {**words, "reason": f"passed over: {words['companion_of']} is the half that is work"}
    return JobView(
        job=job.id,
        folder=job.source.folder,
        file=printable(job.source.relpath),
        state=record.state,
        attempts=job.attempts,
        size=job.source.stamp.size,
        admitted_at=record.admitted_at,
        ended_at=record.ended_at,
        gone=record.gone,
        seconds=_number(words.get("seconds")),
        coverage=_number(words.get("coverage")),
        flags=[str(flag) for flag in words.get("flags", ())],
        stages_ms={str(stage): float(spent) for stage, spent in words.get("stages_ms", {}).items()},
        **{key: _text(words.get(key)) for key in ("error", "reason", "remedy")},
    )


def job_views(site: Site, records: Sequence[Record]) -> list[JobView]:
    """With what people said of them."""
    said = site.desk.verdicts(record.job.id for record in records if words_of(record).get("flags"))
    return [job_view(record).model_copy(update={"verdict": said.get(record.job.id)}) for record in records]


def whole_view(site: Site, record: Record) -> JobView:
    """With what was published, as the sidecar tells, and what people said of it."""
    result = result_of(record, site.settings.folders.get(record.job.source.folder))
    [view] = job_views(site, [record])
    return view.model_copy(
        update={"files": files_of(record, result) if record.state is JobState.DONE else None}
    )


def files_of(record: Record, result: Result | None) -> list[FileView]:
    if result is None:
        return []
    return [
        FileView(
            kind=output.kind,
            href=f"/v1/jobs/{record.job.id}/files/{number}",
            format=output.format,
            width=output.width,
            height=output.height,
            size=output.size,
            sha256=output.sha256,
        )
        for number, output in enumerate(result.outputs)
    ]


def folder_views(site: Site) -> list[FolderView]:
    told, counts, held = site.status().get("folders", {}), site.desk.counts(), site.journal.held()
    # As `hotmatte status` and the list of failures: photos that were replaced or taken away since are history.
    failed = site.journal.in_quarantine()
    return [
        folder_view(
            name,
            folder.profile,
            told.get(name),
            {**counts.get(name, {}), "quarantined": failed.get(name, 0)},
            held=name in held,
        )
        for name, folder in site.settings.folders.items()
    ]


def folder_view(
    name: str, profile: str, told: Mapping[str, Any] | None, counts: Mapping[str, int], *, held: bool
) -> FolderView:
    told = told or {"state": "paused" if held else "unknown"}
    if held and told["state"] == "watching":
        # The journal knows at once; the daemon's snapshot is up to a second old.
        told = {**told, "state": "paused"}
    return FolderView(
        name=name,
        profile=profile,
        state=told["state"],
        reason=told.get("reason") or None,
        remedy=told.get("remedy") or None,
        held=held,
        observer=told.get("observer"),
        files=told.get("files"),
        unsettled=told.get("unsettled"),
        unsettled_why=f"{told['oldest']}: {told['oldest_why']}" if told.get("oldest_why") else None,
        **{state.value: counts.get(state.value, 0) for state in JobState},
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: object) -> str | None:
    return printable(value) if isinstance(value, str) else None
