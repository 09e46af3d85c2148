"""What is told of a job's end: to people, to the log, to the journal."""

from __future__ import annotations

import json
import logging

from watcher.domain import Failure, Job, Outcome, as_json
from watcher.errors import WatcherError
from watcher.log import event


def failure_of(error: BaseException) -> Failure:
    """What to tell people about an error that ended a job."""
    if isinstance(error, WatcherError):
        return Failure(type(error).__name__, str(error), error.remedy)
    return Failure(type(error).__name__, f"unexpected error: {error}", WatcherError.remedy)


def stage_of(error: BaseException) -> str | None:
    return error.stage if isinstance(error, WatcherError) else None


def words_of(job: Job) -> dict[str, object]:
    return {"job": job.id, "folder": job.source.folder, "file": job.source.relpath}


def done_words(outcome: Outcome, seconds: float) -> str:
    words = {
        "outputs": [file.path for file in outcome.files],
        "sidecar": outcome.sidecar,
        "seconds": round(seconds, 3),
        "stages_ms": {stage: round(spent * 1000, 1) for stage, spent in outcome.timings.items()},
        "flags": outcome.review.flags,
        "coverage": round(outcome.review.coverage, 4),
        "cached": outcome.cached,
        **({"reason": outcome.skipped} if outcome.skipped else {}),
    }
    # ASCII: a name that is not UTF-8 is held as what no UTF-8 text may contain.
    return json.dumps(as_json(words))


def confess(job: Job, error: BaseException) -> None:
    event(logging.ERROR, f"bug: {error!r}", **words_of(job))
    logging.getLogger("hotmatte").error("traceback", exc_info=error)


def tell_quarantined(job: Job, failure: Failure, stage: str | None) -> None:
    event(
        logging.WARNING,
        f"quarantined: {failure.reason}",
        **words_of(job),
        stage=stage,
        attempts=job.attempts,
        error=failure.error,
        remedy=failure.remedy,
    )


def tell_again(job: Job, error: BaseException, delay: float) -> None:
    event(
        logging.WARNING,
        f"will be tried again: {error}",
        **words_of(job),
        stage=stage_of(error),
        attempts=job.attempts,
        delay_s=delay,
    )
