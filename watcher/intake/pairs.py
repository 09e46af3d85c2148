"""A camera's RAW and JPEG of one shot: which of them is work. Pure, but for the questions it is given.

The preferred half is admitted like any other file. The other half waits for it: once both are
there, it is passed over, and the journal remembers that; when nothing came in time, it is a work
of its own. A decision once taken stays, unless of the preferred half nothing comes: it failed, or
went away before it was done.

Names that differ in case only are those of one shot: cameras write capitals, and programs and
servers on the way change them, often in one of the two. But a half that is spelled alike is nearer.
"""

from __future__ import annotations

import enum
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from watcher.domain import SAME_SHOT_S, Stamp
from watcher.endings import HEIF_ENDINGS, JPEG_ENDINGS, RAW_ENDINGS

_DEVELOPED = frozenset((*JPEG_ENDINGS, *HEIF_ENDINGS))
_RAW = frozenset(RAW_ENDINGS)


class Fate(enum.Enum):
    WORK = "work"
    WAIT = "wait"
    COMPANION = "companion"


class Pairs:
    """`prefer`: which half is work; `wait_s`: how long the other half waits for it.

    `present`: the names in a folder (relative to the hot folder) that are work by their name;
    `earlier`: the stamps of the versions of these paths that are done, gone ones included;
    `failed`: whether the present version of a path is in quarantine.
    All are asked only about files that are the other half of a pair.
    """

    def __init__(
        self,
        prefer: Literal["both", "jpeg", "raw"],
        *,
        wait_s: float,
        present: Callable[[str], Iterable[str]],
        earlier: Callable[[Iterable[str]], Iterable[tuple[str, Stamp]]],
        failed: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._wait_s = wait_s
        self._halves: dict[str, _Halves] = {}
        self._present = present
        self._earlier = earlier
        self._failed = failed
        self._preferred = {"jpeg": _DEVELOPED, "raw": _RAW}.get(prefer, frozenset())
        self._other = {"jpeg": _RAW, "raw": _DEVELOPED}.get(prefer, frozenset())

    def fate(self, relpath: str, stamp: Stamp, *, quiet_for: float) -> tuple[Fate, str]:
        """What becomes of a whole file that has not changed for `quiet_for` seconds; its other half."""
        if _ending(relpath) not in self._other:
            return Fate.WORK, ""
        folder, slash, name = relpath.rpartition("/")
        other = self._halves_in(folder).of(_stem(name))
        if other is not None:
            path = folder + slash + other
            return (Fate.WORK, "") if self._failed(path) else (Fate.COMPANION, path)
        for before, found in self._earlier(_spelled(folder + slash, _stem(name), self._preferred)):
            if abs(found.mtime_ns - stamp.mtime_ns) <= SAME_SHOT_S * 1e9:
                return Fate.COMPANION, before
        return (Fate.WORK if quiet_for >= self._wait_s else Fate.WAIT), ""

    def is_preferred(self, relpath: str) -> bool:
        """Whether another file may be passed over for it."""
        return _ending(relpath) in self._preferred

    def look_anew(self) -> None:
        """What was present a while ago is no longer to be relied on."""
        self._halves.clear()

    def _halves_in(self, folder: str) -> _Halves:
        """Listed once for all that are decided together."""
        if folder not in self._halves:
            names = sorted(self._present(folder))
            self._halves[folder] = _Halves(
                [name for name in names if _ending(name) in self._preferred],
                [name for name in names if _ending(name) in self._other],
            )
        return self._halves[folder]


class _Halves:
    """The names of preferred halves in one folder, found by the stem of another half."""

    def __init__(self, preferred: Iterable[str], others: Iterable[str]) -> None:
        self._exactly = {_stem(name): name for name in preferred}
        taken = {_stem(name) for name in others} & self._exactly.keys()
        # One that has a half of its very spelling is not to be had for a name that only resembles it.
        self._nearly = {_folded(stem): name for stem, name in self._exactly.items() if stem not in taken}

    def of(self, stem: str) -> str | None:
        return self._exactly.get(stem) or self._nearly.get(_folded(stem))


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _folded(stem: str) -> str:
    """As servers and clients compare that do not tell capitals, nor composed letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())


def _ending(name: str) -> str:
    return name.rpartition(".")[2].casefold()


def _spelled(prefix: str, stem: str, endings: Iterable[str]) -> Iterator[str]:
    """How the other half may have been spelled, the likeliest first."""
    for spelling in dict.fromkeys((stem, stem.upper(), stem.lower())):
        for ending in sorted(endings):
            yield f"{prefix}{spelling}.{ending.upper()}"
            yield f"{prefix}{spelling}.{ending}"
