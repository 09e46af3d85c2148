"""What becomes of paths: noted, settled, examined, admitted; or gone. Owns no thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from watcher.domain import JobState, Source, Stamp
from watcher.intake import candidate
from watcher.intake.complete import Verdict
from watcher.intake.pairs import Fate, Pairs
from watcher.intake.refused import Refused
from watcher.intake.scan import Difference
from watcher.intake.settle import Ripe, Settler
from watcher.log import event

# Files that enter the journal in one transaction.
BATCH = 512


class JournalPort(Protocol):
    """What the intake needs of the journal."""

    def admit_many(self, sources: Sequence[Source]) -> Sequence[bool]:
        """Queue each source, unless it is known; True where it was newly queued."""

    def pass_over(self, source: Source, companion_of: str, half: Stamp | None) -> None:
        """Enter it as done with nothing to show: the other half of a pair, of which this version is there."""

    def halves_waited_for(self, folder: str) -> Sequence[str]:
        """The paths for which others that are still there were passed over."""

    def free_companions(self, folder: str, relpaths: Iterable[str]) -> Sequence[str]:
        """Forget what was passed over for these paths, which failed or are gone without a result; its paths."""

    def failed(self, folder: str, relpath: str) -> bool:
        """Whether the present version of this path is in quarantine."""

    def versions(self, folder: str, relpaths: Iterable[str]) -> Sequence[tuple[str, Stamp]]:
        """Every version of these paths that was work and is done, gone ones included."""

    def known(self, folder: str) -> dict[str, tuple[Stamp, JobState]]:
        """The newest version of each path that is still present."""

    def mark_gone(self, folder: str, relpaths: Iterable[str]) -> int: ...

    def folder_identity(self, folder: str) -> str | None: ...

    def remember_folder(self, folder: str, identity: str) -> None: ...

    def places(self, folder: str) -> Sequence[tuple[str, str]]:
        """(setting, path) of every place that its results ever went to."""


class Admission:
    """Leads the files of the hot folder `name` at `path` into the journal.

    `pairs` says which half of a RAW and JPEG is work. `still_there` raises HostError unless the folder is the one that was opened; it is
    asked before anything counts as gone, because the files of an unmounted share are not.
    `on_admit` is called when jobs were queued, with their number; `on_gone` before paths count as
    gone; `beat` before each file that is touched.
    """

    def __init__(
        self,
        name: str,
        path: str,
        *,
        journal: JournalPort,
        settler: Settler,
        pairs: Pairs,
        refused: Refused,
        still_there: Callable[[], None],
        on_admit: Callable[[int], None],
        on_gone: Callable[[Sequence[str]], None],
        beat: Callable[[float], None],
    ) -> None:
        self._name = name
        self._path = path
        self._journal = journal
        self._settler = settler
        self._pairs = pairs
        self._refused = refused
        self._still_there = still_there
        self._on_admit = on_admit
        self._on_gone = on_gone
        self._beat = beat

    def look_at(self, relpaths: Iterable[str], now: float) -> None:
        """Follow hints: note what is there, and what is there no more."""
        gone = []
        for relpath in relpaths:
            try:
                stamp = candidate.look(self._place(relpath))
            except OSError:
                continue  # nothing can be said of it; a scan will ask again
            self._note(relpath, stamp, now)
            if stamp is None:
                gone.append(relpath)
        self._mark_gone(gone)

    def take(self, difference: Difference, now: float) -> None:
        """Follow a listing."""
        for relpath, stamp in difference.fresh:
            self._note(relpath, stamp, now)
        # Renamed during the listing, it may have slipped through: look once more.
        spelling = candidate.Spelling(self._path)
        gone = [relpath for relpath in difference.absent if spelling.is_gone(relpath)]
        for relpath in gone:
            self._settler.note(relpath, None, now)
        self._mark_gone(gone)

    def _note(self, relpath: str, stamp: Stamp | None, now: float) -> None:
        self._settler.note(relpath, stamp, now)
        if relpath in self._refused:  # somebody may have given us access
            self._settler.hasten(relpath, now)

    def admit_ripe(self, now: float) -> None:
        """Admit what is ripe, whole and unchanged."""
        ripe = self._settler.pop_ripe(now)
        for start in range(0, len(ripe), BATCH):
            gone: list[str] = []
            settled = (self._settled(item, gone) for item in ripe[start : start + BATCH])
            sources = [source for source in settled if source is not None]
            self._mark_gone(gone)
            if count := sum(self._journal.admit_many(sources)) if sources else 0:
                self._on_admit(count)

    def _settled(self, ripe: Ripe, gone: list[str]) -> Source | None:
        """The source to admit; None where it is gone, has changed or is not whole yet."""
        now = time.monotonic()
        self._beat(now)
        path = self._place(ripe.relpath)
        try:
            stamp = candidate.look(path)
        except OSError:
            self._settler.put_back(ripe, ripe.stamp, now, "it cannot be looked at")
            return None
        if stamp is None:
            gone.append(ripe.relpath)
            return None
        lacking = "" if stamp != ripe.stamp else self._lacking(path, ripe)
        if stamp != ripe.stamp or lacking:
            self._settler.put_back(ripe, stamp, now, lacking)
            return None
        return self._unless_companion(ripe, Source(self._name, ripe.relpath, stamp), now)

    def _lacking(self, path: str, ripe: Ripe) -> str:
        """Why it is not whole yet, for people; "" where it is, or is overdue. What we may not read never is."""
        try:
            verdict = candidate.judge(path)
        except PermissionError:
            # Servers set permissions a moment after they have written.
            if ripe.pauses:
                self._refused.note(ripe.relpath)
            return "it may not be read"
        self._refused.forget(ripe.relpath)
        if ripe.overdue or verdict is not Verdict.INCOMPLETE:
            return ""
        return "its end is missing" if ripe.stamp.size else "it is empty"

    def _unless_companion(self, ripe: Ripe, source: Source, now: float) -> Source | None:
        """`source`, unless it waits for the other half of its pair, or has found it."""
        fate, other = self._pairs.fate(source.relpath, source.stamp, quiet_for=now - ripe.since)
        if fate is Fate.WAIT:
            self._settler.put_back(ripe, source.stamp, now, "it waits for the other half of its pair")
        elif fate is Fate.COMPANION:
            half = None
            with suppress(OSError):  # then it has not been done either, as far as we know
                half = candidate.look(self._place(other))
            self._journal.pass_over(source, other, half)
            event(logging.INFO, "passed over", folder=self._name, file=source.relpath, companion_of=other)
        return source if fate is Fate.WORK else None

    def _mark_gone(self, relpaths: Sequence[str]) -> None:
        if relpaths:
            self._still_there()
            for relpath in relpaths:
                self._refused.forget(relpath)
            self._on_gone(relpaths)
            self._journal.mark_gone(self._name, relpaths)
            self._free([relpath for relpath in relpaths if self._pairs.is_preferred(relpath)])

    def free_lost(self, listing: Container[str], known: Mapping[str, tuple[Stamp, JobState]]) -> None:
        """Follow a listing and what the journal knew: halves that failed, or went while nobody watched."""
        spelling = candidate.Spelling(self._path)

        def is_lost(half: str) -> bool:
            if half in known:
                return known[half][1] is JobState.QUARANTINED
            return half not in listing and spelling.is_gone(half)

        lost = list(filter(is_lost, self._journal.halves_waited_for(self._name)))
        if lost:
            self._still_there()
            self._free(lost)

    def _free(self, relpaths: Sequence[str]) -> None:
        """What was passed over for a half that failed, or went without a result, is work after all."""
        now = time.monotonic()
        for relpath in self._journal.free_companions(self._name, relpaths) if relpaths else ():
            with suppress(OSError):  # a scan will ask again
                self._settler.note(relpath, candidate.look(self._place(relpath)), now)

    def _place(self, relpath: str) -> str:
        return f"{self._path}/{relpath}"
