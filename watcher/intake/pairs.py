"""A camera's RAW and JPEG of one shot: which of them is work. Pure, but for the questions it is given.

The preferred half is admitted like any other file. The other half waits for it: once both are
there, it is passed over for good, and the journal remembers that; when nothing came in time,
it is a work of its own. A decision once taken stays, whatever comes later.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from watcher.domain import Stamp
from watcher.endings import HEIF_ENDINGS, JPEG_ENDINGS, RAW_ENDINGS

# A camera writes both halves at once. A name that comes back much later is another shot: cameras
# count to 9999 and begin again.
SAME_SHOT_S = 60.0
_DEVELOPED = frozenset((*JPEG_ENDINGS, *HEIF_ENDINGS))
_RAW = frozenset(RAW_ENDINGS)


class Fate(enum.Enum):
    WORK = "work"
    WAIT = "wait"
    COMPANION = "companion"


class Pairs:
    """`prefer`: which half is work; `wait_s`: how long the other half waits for it.

    `present`: the names in a folder (relative to the hot folder) that are work by their name;
    `earlier`: the stamps of the versions of these paths that are done, gone ones included.
    Both are asked only about files that are the other half of a pair.
    """

    def __init__(
        self,
        prefer: Literal["both", "jpeg", "raw"],
        *,
        wait_s: float,
        present: Callable[[str], Iterable[str]],
        earlier: Callable[[Iterable[str]], Iterable[tuple[str, Stamp]]],
    ) -> None:
        self._wait_s = wait_s
        self._halves: dict[str, dict[str, str]] = {}
        self._present = present
        self._earlier = earlier
        self._preferred = {"jpeg": _DEVELOPED, "raw": _RAW}.get(prefer, frozenset())
        self._other = {"jpeg": _RAW, "raw": _DEVELOPED}.get(prefer, frozenset())

    def fate(self, relpath: str, stamp: Stamp, *, quiet_for: float) -> tuple[Fate, str]:
        """What becomes of a whole file that has not changed for `quiet_for` seconds; its other half."""
        if _ending(relpath) not in self._other:
            return Fate.WORK, ""
        folder, slash, name = relpath.rpartition("/")
        other = self._preferred_in(folder).get(_stem(name))
        if other is not None:
            return Fate.COMPANION, folder + slash + other
        prefix = relpath.rpartition(".")[0]
        for before, found in self._earlier(_spelled(prefix, self._preferred)):
            if abs(found.mtime_ns - stamp.mtime_ns) <= SAME_SHOT_S * 1e9:
                return Fate.COMPANION, before
        return (Fate.WORK if quiet_for >= self._wait_s else Fate.WAIT), ""

    def is_preferred(self, relpath: str) -> bool:
        """Whether another file may be passed over for it."""
        return _ending(relpath) in self._preferred

    def look_anew(self) -> None:
        """What was present a while ago is no longer to be relied on."""
        self._halves.clear()

    def _preferred_in(self, folder: str) -> dict[str, str]:
        """Stem to name; listed once for all that are decided together."""
        if folder not in self._halves:
            names = sorted(self._present(folder))
            self._halves[folder] = {_stem(name): name for name in names if _ending(name) in self._preferred}
        return self._halves[folder]


def _stem(name: str) -> str:
    return name.rpartition(".")[0].casefold()


def _ending(name: str) -> str:
    return name.rpartition(".")[2].casefold()


def _spelled(prefix: str, endings: Iterable[str]) -> Iterator[str]:
    for ending in sorted(endings):
        yield f"{prefix}.{ending}"
        yield f"{prefix}.{ending.upper()}"
