"""Words and checks that several commands share."""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

from watcher.config import Settings
from watcher.domain import printable
from watcher.errors import ConfigError
from watcher.health import JOURNAL
from watcher.journal import Journal, Record


def known_folder(settings: Settings, name: str | None, *, by: str = "with --folder") -> str:
    """`name` if there is such a hot folder; the only one there is if None. `by`: how the command is told which."""
    if name is None and len(settings.folders) == 1:
        return next(iter(settings.folders))
    known = ", ".join(settings.folders)
    if name is None:
        raise ConfigError([f"there are several hot folders ({known})"], remedy=f"Say which {by}.")
    if name not in settings.folders:
        raise ConfigError([f"no hot folder is called {name!r}"], remedy=f"There are: {known}.")
    return name


def device(word: str) -> str:
    """A device of the command line, as profiles may name it. Raises ArgumentTypeError."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", word):
        raise argparse.ArgumentTypeError(f"{word!r} is not auto, cpu, cuda or cuda:N")
    return word


def open_journal(settings: Settings) -> Journal | None:
    """The journal, None where nothing was ever done. Commands must not create one."""
    path = settings.state_dir / JOURNAL
    return Journal(path) if is_there(path) else None


def is_there(path: Path) -> bool:
    """Unlike Path.exists of some versions: raises PermissionError where this user may not look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def failure_words(record: Record) -> dict[str, Any]:
    """error, reason and remedy of a quarantined job, fit for a terminal: reasons quote strangers' names."""
    try:
        words: dict[str, Any] = json.loads(record.outcome or "{}")
    except ValueError:
        words = {"reason": record.outcome}
    return {key: printable(value) if isinstance(value, str) else value for key, value in words.items()}


def row(record: Record) -> dict[str, Any]:
    """A job for `--json`."""
    job = record.job
    return {
        "job": job.id,
        "folder": job.source.folder,
        "file": printable(job.source.relpath),
        "state": record.state.value,
        "attempts": job.attempts,
        "ended_at": record.ended_at,
        **failure_words(record),
    }


def ago(seconds: float) -> str:
    """`42 s`, `17 min`, `5 h`, `3 days`."""
    for size, word in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{max(0.0, seconds):.0f} s"


def since(moment: float | None) -> str:
    return "" if moment is None else f"{ago(time.time() - moment)} ago"
