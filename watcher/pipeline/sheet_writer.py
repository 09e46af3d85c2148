"""Writes one contact sheet in a process of its own: `python -m watcher.pipeline.sheet_writer SCOPE DAY`.

It decodes what strangers made, so not in the daemon. Says on stdout, as JSON, what went wrong.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import cv2

from watcher.errors import WatcherError
from watcher.pipeline import apart, sheet
from watcher.pipeline.sheet import Scope

# A picture of 120 megapixels with 16 bits a channel, and copies of it.
MEMORY = 8 << 30


def main(argv: list[str]) -> int:
    apart.begin()
    _confine()
    scope, day = scope_in(json.loads(argv[1])), date.fromisoformat(argv[2])
    try:
        sheet.write(scope, day, scope.place(day))
    except WatcherError as error:
        sys.stdout.write(json.dumps({"error": str(error), "remedy": error.remedy}))
        return 1
    return 0


def _confine() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard < 0 else min(MEMORY, hard), hard))
    with suppress(OSError):
        os.nice(19)
    cv2.setNumThreads(1)


def words_of(scope: Scope) -> dict[str, Any]:
    """A scope as `scope_in` reads it back."""
    return {
        "title": scope.title,
        "folder": scope.folder,
        "output": str(scope.output),
        "reports": str(scope.reports) if scope.reports else None,
        "sources": [str(place) for place in scope.sources],
    }


def scope_in(words: Mapping[str, Any]) -> Scope:
    reports = Path(words["reports"]) if words["reports"] else None
    sources = tuple(Path(place) for place in words["sources"])
    return Scope(words["title"], words["folder"], Path(words["output"]), reports, sources)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
