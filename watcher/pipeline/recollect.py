"""What sidecars and reports still know of ended jobs, when the journal is lost. Reads only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from watcher.config import Folder
from watcher.domain import Ended, JobState, as_json
from watcher.errors import HostError
from watcher.litter import walk
from watcher.pipeline.sidecar import REPORT, SIDECAR, Told, told_in


def recollect(name: str, folder: Folder, *, beat: Callable[[], None] = lambda: None) -> list[Ended]:
    """The ended jobs of hot folder `name`, the latest last. `beat` is called for each folder read.

    Done is only what still has all its outputs, in size at least: sources may be deleted on
    the strength of it. Raises HostError where the results cannot be read.
    """
    found = []
    for root in dict.fromkeys(filter(None, (folder.output, folder.quarantine))):
        try:
            for path in _telling(root, beat, all_of_it=not folder.default_ignores):
                with suppress(FileNotFoundError, PermissionError):
                    told = told_in(path.read_bytes())
                    if told is not None and told.source.folder == name and _is_whole(path, told):
                        found.append(_ended(path, told))
        except OSError as error:
            raise HostError(f"cannot read the results in {root}: {error.strerror or error}") from error
    return sorted(found, key=lambda ended: ended.at)


def _telling(root: Path, beat: Callable[[], None], *, all_of_it: bool) -> Iterator[Path]:
    # Never of a snapshot: what it vouches for may be gone from where people look.
    for place, names in walk(root, beat=beat, all_of_it=all_of_it):
        yield from (place / name for name in names if name.endswith((SIDECAR, REPORT)))


def _is_whole(path: Path, told: Told) -> bool:
    base = path.name.removesuffix(SIDECAR)
    try:
        return all((path.parent / (base + out.suffix)).stat().st_size == out.size for out in told.outputs)
    except FileNotFoundError:
        return False


def _ended(path: Path, told: Told) -> Ended:
    if told.failure is not None:
        return Ended(told.source, JobState.QUARANTINED, json.dumps(as_json(told.failure)), told.at)
    base = path.name.removesuffix(SIDECAR)
    words = {"outputs": [path.parent / (base + out.suffix) for out in told.outputs], "sidecar": path}
    return Ended(told.source, JobState.DONE, json.dumps(as_json(words)), told.at)
