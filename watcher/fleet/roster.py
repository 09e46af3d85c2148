"""Who is there: each node tells of itself in a small file on every share, again and again.

Not by the broker, so that it is known while the broker is away, and that a node which does
not see the share cannot look alive. Clocks of different hosts are never compared: a file that
changes is a sign of life, by the reader's own clock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watcher.domain import printable

NODES = "nodes"
# How often a node tells, in seconds.
BEAT_S = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node said last, and when (monotonic) that was new."""

    said: Mapping[str, Any]
    at: float


def tell(folder: Path, name: str, said: Mapping[str, Any]) -> None:
    """Write the file of node `name` into `folder`, whole. Raises OSError."""
    folder.mkdir(exist_ok=True)
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(said), encoding="ascii")
    temporary.replace(folder / f"{name}.json")


def clear_torn(folder: Path, name: str) -> None:
    """Remove what a node of this name that was killed while it told left behind."""
    with suppress(OSError):
        for temporary in folder.glob(f".{name}.*.tmp"):
            if temporary.name.removeprefix(f".{name}.").removesuffix(".tmp").isdigit():
                temporary.unlink()


def fall_silent(folder: Path, name: str) -> None:
    with suppress(OSError):
        (folder / f"{name}.json").unlink()


class Roster:
    """The nodes that can be seen on some shares. One thread looks, others read."""

    def __init__(self, folders: Iterable[Path], *, lost_after: float) -> None:
        self._folders = list(folders)
        self._lost_after = lost_after
        self._seen: dict[str, Seen] = {}
        self._looked = False

    def look(self, now: float) -> None:
        """Read every file; `now` is monotonic. A share that does not answer tells nothing."""
        found: dict[str, Seen] = {}
        for folder in self._folders:
            with suppress(OSError):
                for path in sorted(folder.glob("*.json")):
                    self._read(path, found, now)
        self._seen, self._looked = found, True

    def _read(self, path: Path, found: dict[str, Seen], now: float) -> None:
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # Replaced this very moment: what it said before still counts.
            if path.stem in self._seen:
                found[path.stem] = self._seen[path.stem]
            return
        if not isinstance(said, dict):
            return
        old = self._seen.get(path.stem)
        if old is None:
            # At the first look nobody knows how old it is: alive once it changes.
            found[path.stem] = Seen(said, now if self._looked else now - self._lost_after)
        else:
            found[path.stem] = old if old.said == said else Seen(said, now)

    def alive(self, now: float) -> dict[str, Mapping[str, Any]]:
        """What the living say, by name."""
        return {name: seen.said for name, seen in self._seen.items() if now - seen.at < self._lost_after}

    def held(self, watcher: str, now: float) -> set[int]:
        """The jobs of a watcher that living nodes work on."""
        return {
            int(job)
            for said in self.alive(now).values()
            for whose, job in said.get("holds", ())
            if whose == watcher
        }

    def has_room(self, model: str, card: str, now: float) -> bool:
        """Whether some living node would take a job for this model at once."""
        return any(
            said.get("models", {}).get(model) == card
            and said.get("state") == "working"
            and not said.get("trouble")  # its broker lets it have nothing, however much room it has
            and len(said.get("holds", ())) < int(said.get("capacity", 0))
            for said in self.alive(now).values()
        )

    def snapshot(self, watcher: str, now: float) -> list[dict[str, Any]]:
        """For people and JSON; `silent_s` in steps, so that nothing changes while nothing happens."""
        told = []
        for name, seen in sorted(self._seen.items()):
            silent, said = now - seen.at, seen.said
            alive = silent < self._lost_after
            told.append(
                {
                    "node": printable(name),
                    "host": printable(str(said.get("host", ""))),
                    "state": str(said.get("state", "")) if alive else "silent",
                    "silent_s": 0 if alive else int(silent // 10 * 10),
                    "hotmatte": printable(str(said.get("hotmatte", ""))),
                    "protocol": said.get("protocol"),
                    "models": [printable(str(model)) for model in said.get("models", {})],
                    "holds": sum(1 for whose, _ in said.get("holds", ()) if whose == watcher),
                    "capacity": said.get("capacity"),
                    "done": said.get("done"),
                    "failed": said.get("failed"),
                    "per_minute": said.get("per_minute"),
                }
            )
        return told
