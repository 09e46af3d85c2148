"""What had not been told when the service ended: kept in the state folder for the next one."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from watcher.digest import Notice
from watcher.errors import HostError
from watcher.log import event
from watcher.messenger import Letter
from watcher.web.keys import write_private

UNTOLD = "web-untold.json"
# What is older is history: a service that was away for longer begins anew.
LONGEST_S = 3600.0

# The number of a job, and when it ended.
Mark = tuple[int, float | None]


@dataclass(frozen=True, slots=True)
class Untold:
    """`at`: when this was kept, by the wall clock. `since`: until when ends of jobs were noted, `seen` the last of these.

    `ledgers` as `Digest.untold` says; `letters` by receiver.
    """

    since: float | None = None
    seen: Sequence[Mark] = ()
    ledgers: Sequence[Mapping[str, Any]] = ()
    letters: Mapping[str, Sequence[Letter]] = field(default_factory=dict)
    at: float = 0.0


def keep(state_dir: Path, untold: Untold) -> None:
    """Where it cannot be written, that is said: the service ends all the same."""
    try:
        write_private(state_dir / UNTOLD, json.dumps(asdict(untold)).encode())
    except HostError as error:
        event(logging.WARNING, f"what was not told yet is lost: {error}")


def take(state_dir: Path) -> Untold:
    """What the last one kept, once; nothing where that is long ago, or damaged."""
    path = state_dir / UNTOLD
    try:
        content = path.read_bytes()
        path.unlink()
        found = _read(json.loads(content))
    except FileNotFoundError:
        return Untold()
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        event(logging.WARNING, f"{path} cannot be read: {error}")
        return Untold()
    return found if 0 <= time.time() - found.at <= LONGEST_S else Untold()


def _read(said: Mapping[str, Any]) -> Untold:
    return Untold(
        float(said["since"]),
        [(int(number), ended) for number, ended in said["seen"]],
        [_ledger(ledger) for ledger in said["ledgers"]],
        {name: [_letter(one) for one in letters] for name, letters in said["letters"].items()},
        float(said["at"]),
    )


def _ledger(said: Mapping[str, Any]) -> dict[str, Any]:
    words = {key: str(said[key]) for key in ("about", "subject")}
    counts = {key: int(said[key]) for key in ("done", "failed")}
    return {**words, **counts, **{key: [str(word) for word in said[key]] for key in ("names", "told")}}


def _letter(said: Mapping[str, Any]) -> Letter:
    words = said["notice"]
    notice = Notice(**{**words, "events": tuple(words["events"]), "names": tuple(words["names"])})
    return Letter(notice, str(said["id"]), int(said["tries"]))
