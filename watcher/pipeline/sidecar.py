"""Outcomes and failures as JSON with a versioned schema, and back as far as names need it. Pure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from watcher import __version__
from watcher.config import Profile
from watcher.domain import (
    EngineAbout,
    Failure,
    Frame,
    Job,
    Outcome,
    Published,
    Review,
    Source,
    Stamp,
    as_json,
    printable,
)

SCHEMA = 1
# What is added to a result's base name.
SIDECAR, REPORT = ".matte.json", ".error.json"


@dataclass(frozen=True, slots=True)
class Written:
    """An output as the record beside it tells: its suffix, and what its bytes must be."""

    suffix: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """What publishing needs to know of a sidecar: see publish.recover."""

    owner: tuple[str, str]
    outputs: tuple[Written, ...]
    supersedes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Told:
    """What a sidecar, or a report (`failure`), tells of the job that ended `at` (wall clock)."""

    source: Source
    outputs: tuple[Written, ...]
    failure: Failure | None
    at: float


def sidecar(
    frame: Frame,
    outputs: Iterable[tuple[Published, str]],
    *,
    engine: EngineAbout,
    profile: tuple[str, Profile],
    review: Review,
    timings: Mapping[str, float],
    cached: bool = False,
    warnings: Iterable[str] = (),
    supersedes: Iterable[str] = (),
    now: float,
) -> bytes:
    """The sidecar of a finished job. `outputs` pairs each file with its suffix; `timings` in seconds.

    `supersedes` are suffixes of an earlier version's outputs that this one does not rewrite;
    `now` is wall-clock time.
    """
    name, settings = profile
    return _dump(
        {
            "schema": SCHEMA,
            "source": {
                **_source(frame.job.source),
                "sha256": frame.sha256,
                "width": frame.width,
                "height": frame.height,
                "format": frame.format,
            },
            "outputs": [_output(published, suffix) for published, suffix in outputs],
            "engine": engine,
            "profile": {"name": name, "settings": settings},
            "coverage": review.coverage,
            "uncertain": review.uncertain,
            "review": {"flags": list(review.flags)},
            "timings_ms": {stage: round(seconds * 1000, 3) for stage, seconds in timings.items()},
            "cached": cached,
            "attempts": frame.job.attempts,
            "warnings": [printable(warning) for warning in warnings],
            "supersedes": list(supersedes),
            "hotmatte": __version__,
            "created": _time(now),
        }
    )


def moved(
    told: bytes, source: Source, files: Iterable[tuple[Published, str]], *, supersedes: Iterable[str]
) -> bytes:
    """The sidecar `told` of results made elsewhere, for `source` and where the files lie now."""
    parsed = json.loads(told)
    kept = {key: value for key, value in parsed["source"].items() if key not in ("path", "path_bytes")}
    return _dump(
        {
            **parsed,
            "source": {**kept, **_source(source)},
            "outputs": [_output(published, suffix) for published, suffix in files],
            "supersedes": list(supersedes),
        }
    )


def report(job: Job, failure: Failure, *, now: float) -> bytes:
    """The error report of a job that was given up."""
    return _dump(
        {
            "schema": SCHEMA,
            "source": _source(job.source),
            "error": failure.error,
            "reason": printable(failure.reason),
            "remedy": printable(failure.remedy),
            "attempts": job.attempts,
            "hotmatte": __version__,
            "created": _time(now),
        }
    )


def _source(source: Source) -> dict[str, Any]:
    return {
        "folder": source.folder,
        **_path(source.relpath),
        "size": source.stamp.size,
        "mtime": _time(source.stamp.mtime_ns / 1e9),
        "mtime_ns": source.stamp.mtime_ns,
    }


def _output(published: Published, suffix: str) -> dict[str, Any]:
    return {**as_json(published), **_path(published.path), "suffix": suffix}


def _path(path: str) -> dict[str, str]:
    """For people, and where that is not the very name, its bytes in hex as well."""
    shown = printable(path)
    return {"path": shown} if shown == path else {"path": shown, "path_bytes": os.fsencode(path).hex()}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dump(content: Mapping[str, Any]) -> bytes:
    return to_json(content, indent=2) + b"\n"


# --- And back ------------------------------------------------------------------------------


def owner_in(content: bytes) -> tuple[str, str] | None:
    """(folder, relpath) of the source in a sidecar or a report; None if it is not one of ours."""
    record = record_in(content)
    return None if record is None else record.owner


def outcome_in(content: bytes, job: Job, sidecar: Path) -> Outcome:
    """What a sidecar tells of `job`'s results, under the paths it names. Raises ValueError."""
    try:
        parsed = json.loads(content)
        keys = ("kind", "path", "format", "width", "height", "size", "sha256")
        files = tuple(Published(*(item[key] for key in keys)) for item in parsed["outputs"])
        found = Review(parsed["coverage"], parsed["uncertain"], tuple(parsed["review"]["flags"]))
        timings = {str(stage): float(ms) / 1000 for stage, ms in parsed["timings_ms"].items()}
        return Outcome(job, files, sidecar, found, timings, tuple(parsed["warnings"]))
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"not a sidecar: {error!r}") from error


def record_in(content: bytes) -> Record | None:
    """What a sidecar says about names; None if it is not one of ours, or not whole."""
    try:
        parsed = json.loads(content)
        if parsed["schema"] != SCHEMA:
            return None
        outputs = tuple(
            Written(_plain(item["suffix"]), int(item["size"]), str(item["sha256"]))
            for item in parsed.get("outputs", ())
        )
        supersedes = tuple(_plain(suffix) for suffix in parsed.get("supersedes", ()))
        return Record(_owner(parsed["source"]), outputs, supersedes)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def told_in(content: bytes) -> Told | None:
    """The ended job that a sidecar or a report is about; None if it is not one of ours, or not whole."""
    record = record_in(content)
    if record is None:
        return None
    try:
        parsed = json.loads(content)
        stamp = Stamp(int(parsed["source"]["size"]), int(parsed["source"]["mtime_ns"]))
        at = datetime.fromisoformat(parsed["created"]).timestamp()
        failure = None
        if "error" in parsed:
            failure = Failure(*(str(parsed[key]) for key in ("error", "reason", "remedy")))
        elif not record.outputs:
            return None
        return Told(Source(*record.owner, stamp), record.outputs, failure, at)
    except (ValueError, TypeError, LookupError, OverflowError):
        return None


def _owner(source: Mapping[str, Any]) -> tuple[str, str]:
    raw = source.get("path_bytes")
    path = source["path"] if raw is None else os.fsdecode(bytes.fromhex(raw))
    if not isinstance(path, str) or not isinstance(source["folder"], str):
        raise TypeError("a path is text")
    return source["folder"], path


def _plain(suffix: object) -> str:
    """A suffix must not lead to another folder: the file may have been tampered with."""
    if not isinstance(suffix, str) or "/" in suffix or "\0" in suffix or not suffix:
        raise ValueError("not a suffix")
    return suffix
