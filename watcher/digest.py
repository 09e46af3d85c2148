"""What is worth a message, and when: digests, not a flood. Pure.

Messages hold names and counts, never reasons, paths or pixels: they leave the machine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from watcher.domain import printable

# So many names in a message; of the others only their number.
MOST_NAMES = 5
# Longer names are cut: nobody should be able to write a letter.
MOST_CHARS = 80
# A restart, a reload or a short absence is no news.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Ending:
    """A photo that came to its end; `name` within its hot folder."""

    folder: str
    name: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """How things are: `waiting` counts photos that are not ended, by folder; `away` and `lost` are
    folders that are offline and engines that cannot work; None while no daemon says so. `stuck` are
    folders that are paused; `held` those that somebody paused by hand."""

    waiting: Mapping[str, int]
    away: Collection[str] | None
    lost: Collection[str] | None
    stuck: Collection[str] = ()
    held: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """One message. `about`: folder, engine or daemon; `subject`: which."""

    about: str
    subject: str
    events: tuple[str, ...]
    done: int = 0
    failed: int = 0
    names: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For people, one line."""
        words = []
        if self.done:
            words.append(f"{self.done} {_photos(self.done)} done, nothing waits")
        if self.failed:
            more = f" and {self.failed - len(self.names)} more" if self.failed > len(self.names) else ""
            words.append(f"{self.failed} {_photos(self.failed)} failed: {', '.join(self.names)}{more}")
        words += [_WORDS[event] for event in self.events if event in _WORDS]
        who = "the daemon" if self.about == "daemon" else f"{self.about} {self.subject}"
        return f"{who}: {'; '.join(words) or 'this is only a test'}"

    def as_json(self) -> dict[str, Any]:
        return {
            "type": f"hotmatte.{self.about}",
            self.about: self.subject,
            "events": list(self.events),
            "done": self.done,
            "failed": self.failed,
            "failed_names": list(self.names),
            "text": self.text,
        }


# What is told when something does not work, and when it does again, by the kind of event.
_TURNS = {
    "offline": ("offline", "online"),
    "paused": ("paused", "resumed"),
    "engine": ("lost", "back"),
    "daemon": ("lost", "back"),
}
_WORDS = {
    "offline": "is offline",
    "online": "is back",
    "paused": "is paused, its photos wait; `hotmatte status` says why",
    "resumed": "goes on",
    "lost": "does not work",
    "back": "works again",
}


def _photos(number: int) -> str:
    return "photo" if number == 1 else "photos"


@dataclass(slots=True)
class _Standing:
    """Whether it was told that something does not work; since when it has been otherwise."""

    told: bool = False
    since: float | None = None

    def look(self, wrong: bool, now: float) -> None:
        if wrong == self.told:
            self.since = None
        elif self.since is None:
            self.since = now


@dataclass(slots=True)
class _Ledger:
    """What has not been said about one subject yet; `last` is when something was."""

    last: float = float("-inf")
    done: int = 0
    failed: int = 0
    names: list[str] = field(default_factory=list)
    standings: dict[str, _Standing] = field(default_factory=dict)


class Digest:
    """`every`: seconds between two messages about one subject. Times are monotonic."""

    def __init__(self, *, every: float, events: Collection[str]) -> None:
        self._every = every
        self._events = frozenset(events)
        self._ledgers: dict[tuple[str, str], _Ledger] = {}

    def note(self, endings: Iterable[Ending]) -> None:
        for ending in endings:
            ledger = self._ledger("folder", ending.folder)
            if not ending.failed:
                ledger.done += 1
                continue
            ledger.failed += 1
            if len(ledger.names) < MOST_NAMES:
                ledger.names.append(_short(ending.name))

    def untold(self) -> list[dict[str, Any]]:
        """What the next one has to know, in words that JSON has."""
        return [
            {
                "about": about,
                "subject": subject,
                "done": ledger.done,
                "failed": ledger.failed,
                "names": ledger.names,
                "told": [kind for kind, standing in ledger.standings.items() if standing.told],
            }
            for (about, subject), ledger in self._ledgers.items()
        ]

    def take_up(self, untold: Iterable[Mapping[str, Any]]) -> None:
        """What an earlier one left."""
        for left in untold:
            ledger = self._ledger(left["about"], left["subject"])
            ledger.done, ledger.failed, ledger.names = left["done"], left["failed"], list(left["names"])
            ledger.standings = {kind: _Standing(told=True) for kind in left["told"]}

    def due(self, sight: Sight, now: float) -> list[Notice]:
        """What is to be said now; it is not said again."""
        self._look(sight, now)
        notices = []
        for (about, subject), ledger in self._ledgers.items():
            if now - ledger.last < self._every:
                continue
            notice = self._notice(about, subject, ledger, sight.waiting.get(subject, 0), now)
            if notice is not None:
                ledger.last = now
                notices.append(notice)
        return notices

    def _look(self, sight: Sight, now: float) -> None:
        self._mark("daemon", "daemon", {"hotmatte"} if sight.away is None else (), now)
        if sight.away is None or sight.lost is None:
            return  # nobody knows: what was last heard stands
        self._mark("offline", "folder", sight.away, now)
        self._mark("paused", "folder", sight.stuck, now, unsure={*sight.away, *sight.held})
        self._mark("engine", "engine", sight.lost, now)

    def _mark(
        self, kind: str, about: str, wrong: Collection[str], now: float, unsure: Collection[str] = ()
    ) -> None:
        """`unsure`: whether these would work cannot be seen."""
        known = [subject for kind_, subject in self._ledgers if kind_ == about]
        for subject in {*known, *wrong}:
            standing = self._ledger(about, subject).standings.setdefault(kind, _Standing())
            standing.look(standing.told if subject in unsure else subject in wrong, now)

    def _notice(self, about: str, subject: str, ledger: _Ledger, waiting: int, now: float) -> Notice | None:
        events, done, failed, names = [], 0, 0, tuple(ledger.names)
        for kind, standing in ledger.standings.items():
            wrong = not standing.told
            if (
                kind in self._events
                and standing.since is not None
                and now - standing.since >= _patience(kind, wrong)
            ):
                standing.told, standing.since = wrong, None
                events.append(_TURNS[kind][0 if wrong else 1])
        if ledger.failed and "failed" in self._events:
            events.append("failed")
            failed, ledger.failed, ledger.names = ledger.failed, 0, []
        if ledger.done and not waiting:
            if "done" in self._events:
                events.append("done")
                done = ledger.done
            ledger.done = 0
        if not events:
            return None
        return Notice(about, subject, tuple(events), done, failed, names if failed else ())

    def _ledger(self, about: str, subject: str) -> _Ledger:
        return self._ledgers.setdefault((about, subject), _Ledger())


def _patience(kind: str, wrong: bool) -> float:
    # A share that is gone is waited for by whoever copies to it; a daemon may just be restarted. One that was
    # does not know yet that the disk is still full.
    return PATIENCE_S if kind == "paused" or (wrong and kind != "offline") else 0.0


def _short(name: str) -> str:
    shown = printable(name.rpartition("/")[2])
    return shown if len(shown) <= MOST_CHARS else shown[: MOST_CHARS - 1] + "…"
