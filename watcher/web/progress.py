"""Follows the journal: tells whoever waits for a job that it has ended, and pages that there is news.

One small question to SQLite (`data_version`) a beat; the rows are read only when it says that
somebody has written. Lives on the event loop, with a connection to the journal of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from watcher.desk import Desk
from watcher.domain import JobState
from watcher.errors import WatcherError
from watcher.health import JOURNAL, SNAPSHOT
from watcher.journal import Journal, Record
from watcher.log import event
from watcher.web.untold import Mark

# While somebody waits for a matte; while somebody looks; while nobody does.
BEAT_WAITED, BEAT_WATCHED, BEAT_IDLE = 0.005, 0.1, 0.5
# Clocks and commits may disagree about order by so much: rows this old are read again.
OVERLAP = 5.0
# A page that does not read loses news, not the server its memory.
BACKLOG = 256
ENDED = frozenset({JobState.DONE, JobState.QUARANTINED})


@dataclass(frozen=True, slots=True)
class News:
    """Something changed; `ended` are jobs that came to an end just now."""

    ended: tuple[Record, ...] = ()


class Progress:
    """`run` for ever in a task; `on_ended` is called for each job that ends meanwhile, or has since `since`
    (wall clock, default: now) and is not among `seen`: the `mark` of an earlier one."""

    def __init__(
        self,
        state_dir: Path,
        on_ended: Callable[[Record], None],
        since: float | None = None,
        seen: Sequence[Mark] = (),
    ) -> None:
        self._journal = Journal(state_dir / JOURNAL)
        self._desk = Desk(self._journal)
        self._path = state_dir / JOURNAL
        self._inode = self._path.stat().st_ino
        self._snapshot = state_dir / SNAPSHOT
        self._on_ended = on_ended
        self._waiters: dict[int, list[asyncio.Future[Record | None]]] = {}
        self._watchers: set[asyncio.Queue[News | None]] = set()
        self._seen: deque[Mark] = deque(seen, maxlen=4000)
        self._since = time.time() if since is None else since
        if since is None:
            self._newly_ended()  # before our time: somebody else's news
        self._last: tuple[int, int] = (-1, -1)
        self._closed = False
        self._soon = asyncio.Event()

    async def run(self) -> None:
        while not self._closed:
            try:
                self._beat()
            except WatcherError as error:
                event(logging.WARNING, f"the journal cannot be followed: {error}", remedy=error.remedy)
                await asyncio.sleep(1.0)
            self._soon.clear()
            pause = BEAT_WAITED if self._waiters else BEAT_WATCHED if self._watchers else BEAT_IDLE
            try:
                await asyncio.wait_for(self._soon.wait(), pause)
            except TimeoutError:
                continue

    def hush(self) -> None:
        """End every stream and every wait: whoever waits is told how things stand."""
        self._closed = True
        self._soon.set()
        for queue in self._watchers:
            _put(queue, None)
        for futures in self._waiters.values():
            for future in futures:
                if not future.done():
                    future.set_exception(TimeoutError())

    def close(self) -> None:
        """End `run` too."""
        self.hush()
        self._journal.close()

    @property
    def mark(self) -> tuple[float, list[Mark]]:
        """Where the next one has to go on: until when ends were noted, and which of the last seconds."""
        recent = [(number, ended) for number, ended in self._seen if (ended or 0.0) >= self._since - OVERLAP]
        return self._since, recent

    @property
    def replaced(self) -> bool:
        """The daemon has set a damaged journal aside: the one that is open here is no longer the journal."""
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return False  # between two renames, or the disk is away for a moment

    async def ended(self, job: int, *, timeout: float) -> Record | None:
        """The record of `job` once it has ended, or as it is after `timeout` seconds.

        None where there is no such job any more: its photo was taken away.
        """
        future: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job, []).append(future)
        try:
            self._settle([job])
            self._soon.set()
            # Whoever comes while the service ends is told how things stand as well, instead of holding it up.
            return await asyncio.wait_for(future, 0 if self._closed else timeout)
        except TimeoutError:
            found = self._desk.by_number([job])
            return found[0] if found else None
        finally:
            futures = self._waiters.get(job, [])
            if future in futures:
                futures.remove(future)
            if not futures:
                self._waiters.pop(job, None)

    async def news(self, *, ping: float = 15.0) -> AsyncIterator[News | None]:
        """What happens from now on; None now and then, so that a dead line is found out."""
        queue: asyncio.Queue[News | None] = asyncio.Queue(BACKLOG)
        self._watchers.add(queue)
        try:
            while not self._closed:
                try:
                    item = await asyncio.wait_for(queue.get(), ping)
                except TimeoutError:
                    yield None
                    continue
                if item is None:
                    return
                yield item
        finally:
            self._watchers.discard(queue)

    def _beat(self) -> None:
        now = (self._desk.changes(), self._snapshot_stamp())
        if now == self._last:
            return
        written = now[0] != self._last[0]
        self._last = now
        ended: tuple[Record, ...] = ()
        if written:
            self._settle(list(self._waiters))
            ended = tuple(self._newly_ended())
        for record in ended:
            self._on_ended(record)
        for queue in self._watchers:
            _put(queue, News(ended))

    def _snapshot_stamp(self) -> int:
        try:
            return self._snapshot.stat().st_mtime_ns
        except OSError:
            return 0

    def _settle(self, jobs: list[int]) -> None:
        if not jobs:
            return
        found = {record.job.id: record for record in self._desk.by_number(jobs)}
        for job in jobs:
            record = found.get(job)
            if record is not None and record.state not in ENDED:
                continue
            for future in self._waiters.get(job, []):
                if not future.done():
                    future.set_result(record)

    def _newly_ended(self) -> list[Record]:
        """Each end once, although the last seconds are read again and again."""
        fresh = []
        # A clock that was set back must not make the ends of hours unseen.
        self._since = min(self._since, time.time())
        for record in self._desk.ended(since=self._since - OVERLAP):
            mark = (record.job.id, record.ended_at)
            if mark not in self._seen and (record.ended_at or 0.0) >= self._since - OVERLAP:
                self._seen.append(mark)
                fresh.append(record)
        if fresh:
            self._since = max(self._since, max(record.ended_at or 0.0 for record in fresh))
        return fresh


def _put(queue: asyncio.Queue[News | None], item: News | None) -> None:
    try:
        queue.put_nowait(item)
    except asyncio.QueueFull:
        if item is None:
            queue.get_nowait()
            queue.put_nowait(None)
