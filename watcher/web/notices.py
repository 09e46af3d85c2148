"""Looks at the journal and the snapshot now and then, and tells the receivers what changed.

In a thread beside the service: neither a job nor an answer ever waits for a receiver.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from watcher.desk import Desk
from watcher.digest import Digest, Ending, Sight
from watcher.domain import JobState
from watcher.errors import WatcherError
from watcher.health import JOURNAL, holder, read_snapshot
from watcher.journal import Journal, Record
from watcher.log import event
from watcher.messenger import Messenger
from watcher.notify_settings import Notify
from watcher.receivers import receivers_of
from watcher.web.untold import Mark, Untold, keep

LOOK_S = 2.0
# Kept between two looks: no folder ends more photos than that in two seconds.
MOST_ENDINGS = 10_000
# A snapshot older than this is not believed; the daemon writes one at least every 10 s.
STALE_S = 60.0
NOTHING = Untold()


class Notices:
    """Starts nothing where nobody is to be told. `untold`: what an earlier one left. Raises ConfigError."""

    def __init__(self, settings: Notify, state_dir: Path, untold: Untold = NOTHING) -> None:
        self._state_dir = state_dir
        self._digest = Digest(every=settings.digest_s, events=settings.events)
        self._digest.take_up(untold.ledgers)
        self._endings: deque[Ending] = deque(maxlen=MOST_ENDINGS)
        self._closing = threading.Event()
        self._messengers = [
            Messenger(name, send, waiting=untold.letters.get(name, ()))
            for name, send in receivers_of(settings).items()
        ]
        self._look_s = min(LOOK_S, settings.digest_s / 2)
        self._thread = threading.Thread(target=self._loop, name="notices", daemon=True)
        if self._messengers:
            self._thread.start()

    def note(self, record: Record) -> None:
        """A job has ended. Never waits."""
        if self._messengers:
            source = record.job.source
            self._endings.append(Ending(source.folder, source.relpath, record.state is JobState.QUARANTINED))

    def close(self, since: float, seen: Sequence[Mark]) -> None:
        """What is not told yet is kept for the next one; `since` and `seen` say where that has to go on."""
        self._closing.set()
        if not self._messengers:
            return
        self._thread.join(5.0)
        self._note()
        letters = {messenger.name: messenger.close() for messenger in self._messengers}
        keep(self._state_dir, Untold(since, seen, self._digest.untold(), letters, time.time()))

    @property
    def figures(self) -> tuple[int, int]:
        """Messages sent, and given up."""
        return sum(one.sent for one in self._messengers), sum(one.failed for one in self._messengers)

    def _loop(self) -> None:
        with Journal(self._state_dir / JOURNAL) as journal:
            desk = Desk(journal)
            while not self._closing.wait(self._look_s):
                try:
                    self._look(journal, desk)
                except WatcherError as error:
                    event(logging.WARNING, f"no notices: {error}", remedy=error.remedy)

    def _note(self) -> None:
        self._digest.note(self._endings.popleft() for _ in range(len(self._endings)))

    def _look(self, journal: Journal, desk: Desk) -> None:
        # Counted first: what ends meanwhile is told the next time.
        sight = sight_of(self._state_dir, journal, desk)
        self._note()
        for notice in self._digest.due(sight, time.monotonic()):
            for messenger in self._messengers:
                messenger.put(notice)


def sight_of(state_dir: Path, journal: Journal, desk: Desk) -> Sight:
    waiting = {
        folder: states.get("queued", 0) + states.get("running", 0) for folder, states in desk.counts().items()
    }
    snapshot = read_snapshot(state_dir) if holder(state_dir) else {}
    if time.time() - snapshot.get("written_at", 0.0) > STALE_S:
        return Sight(waiting, None, None)
    folders, engines = snapshot.get("folders", {}), snapshot.get("engines", [])
    return Sight(
        waiting,
        {name for name, folder in folders.items() if folder["state"] == "offline"},
        {str(engine["model"]) for engine in engines if engine["paused"]},
        {name for name, folder in folders.items() if folder["state"] == "paused"},
        journal.held().keys(),
    )
