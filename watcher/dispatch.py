"""Claims jobs, has them run, records what became of them. Touches no pixels and no files.

One dispatcher a lane: the hot folders that share an engine. Its thread does all the
recording, so that the journal sees one writer and the policy needs no locks.
"""

from __future__ import annotations

import itertools
import json
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from watcher.domain import Failure, Job, Outcome, as_json
from watcher.errors import Action, Disposition, HostError, RetryPolicy, WatcherError, disposition
from watcher.journal import Journal
from watcher.journal_file import JournalCorrupt
from watcher.log import event
from watcher.telling import done_words, failure_of, stage_of, words_of

# Long enough for a stalled disk, short enough to be understood: it is renewed all the while.
LEASE = 120.0
RENEWAL = LEASE / 4
# The loop wakes by itself this often, so that a missed wake-up costs seconds, not files.
TICK = 5.0
ENGINE = "*engine"


class Runs(Protocol):
    """Where jobs run: a Runner here, or one on another machine."""

    def submit(self, job: Job) -> Future[Outcome]: ...


class Ends(Protocol):
    """What has to happen to files at the end of a job. Raises WatcherError."""

    def done(self, outcome: Outcome) -> None: ...
    def quarantined(self, job: Job, failure: Failure) -> None: ...


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a folder (or the engine) waits, and until when (monotonic)."""

    reason: str
    remedy: str
    until: float
    times: int


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """What a lane is doing; `since` is monotonic."""

    folders: tuple[str, ...]
    running: tuple[tuple[Job, float], ...]
    pauses: dict[str, Pause]
    done: int
    quarantined: int


@dataclass(slots=True)
class _Tally:
    done: int = 0
    quarantined: int = 0
    running: dict[Job, float] = field(default_factory=dict)


class Dispatcher:
    """`max_in_flight` bounds the jobs that are claimed and not yet recorded.

    `is_open`: may jobs of this folder run? Those that hang in a share which does not answer
    do not count: the other folders go on. Folders with a higher `priority` are served first.
    `blames`: photos are worked on in this daemon, so its death may have been the fault of one.
    """

    def __init__(
        self,
        journal: Journal,
        runs: Runs,
        folders: Sequence[str],
        *,
        ends: Ends,
        policy: RetryPolicy,
        max_in_flight: int,
        on_halt: Callable[[WatcherError], None],
        is_open: Callable[[str], bool] = lambda _: True,
        priority: Mapping[str, int] | None = None,
        blames: bool = True,
    ) -> None:
        self._is_open = is_open
        self._priority = priority or {}
        self._blames = blames
        self._journal = journal
        self._runs = runs
        self._folders = tuple(folders)
        self._ends = ends
        self._policy = policy
        self._max_in_flight = max_in_flight
        self._on_halt = on_halt
        self._turns = itertools.count()
        self._events: queue.SimpleQueue[tuple[Job, Future[Outcome]] | None] = queue.SimpleQueue()
        self._ended: deque[tuple[Job, Future[Outcome]]] = deque()
        self._alone: deque[Job] = deque()
        self._pauses: dict[str, Pause] = {}
        self._tally = _Tally()
        self._renewed = time.monotonic()
        self._offset = time.time() - time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"dispatch-{'-'.join(self._folders)}")

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something may be waiting in the journal."""
        self._events.put(None)

    def stop(self) -> None:
        """Claim no more. What runs goes on; `join` waits for it."""
        self._stopping.set()
        self.wake()

    def join(self, timeout: float | None = None) -> bool:
        """True once everything that was claimed is recorded."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Hand back what is still running, uncharged: its holder has no more time."""
        with suppress(HostError):
            for job in list(self._tally.running):
                self._journal.retry(job, not_before=0.0, charge=False)

    def alive(self) -> bool:
        return self._thread.is_alive()

    def resume(self) -> None:
        """Forget all pauses: someone says the reason is gone."""
        self._pauses.clear()
        self.wake()

    def status(self) -> LaneStatus:
        tally = self._tally
        running = tuple(sorted(tally.running.copy().items(), key=lambda item: item[1]))
        return LaneStatus(self._folders, running, self._pauses.copy(), tally.done, tally.quarantined)

    # --- The loop --------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            try:
                self._turn()
                if self._stopping.is_set() and not self._tally.running and not self._ended:
                    return
            except HostError as error:
                # Only the journal raises here: nothing can be recorded, so nothing may start.
                for folder in self._folders:
                    self._pause(folder, error)
            self._listen(self._patience())

    def _turn(self) -> None:
        self._record_done()
        while self._ended:
            job, result = self._ended[0]
            if (error := result.exception()) is not None:
                with suppress(JournalCorrupt):  # never to be recorded: see _record_done
                    self._fail(job, error)
            self._tally.running.pop(job, None)
            self._ended.popleft()
        self._renew()
        self._mind_clock()
        if self._stopping.is_set():
            self._return_waiting()
        else:
            self._claim()

    def _listen(self, patience: float) -> None:
        """Wait for a word, then take all that have been said."""
        try:
            item = self._events.get(timeout=patience)
            while True:
                if item is not None:
                    self._ended.append(item)
                item = self._events.get_nowait()
        except queue.Empty:
            return

    def _patience(self) -> float:
        if self._ended:
            return 1.0  # the journal refused: it is asked again, not hammered
        now, wait = time.monotonic(), TICK
        for pause in self._pauses.copy().values():
            wait = min(wait, pause.until - now)
        if len(self._active()) < self._max_in_flight and not self._stopping.is_set():
            try:
                due = self._journal.next_due(self._open_folders(now))
            except HostError:
                return TICK
            if due is not None and due > time.time():
                wait = min(wait, due - time.time())
        return max(0.02, wait)

    # --- Claiming --------------------------------------------------------------------------

    def _claim(self) -> None:
        active = self._active()
        if self._alone:
            if not active:
                self._start(self._alone.popleft())
            return
        if self._blames and any(job.crashes for job in active):
            return
        room = self._max_in_flight - len(active)
        folders = self._open_folders(time.monotonic())
        if room < 1 or not folders:
            return
        # A turn each, so that a folder with a backlog does not starve its neighbours.
        turn = next(self._turns) % len(folders)
        order = sorted(folders[turn:] + folders[:turn], key=lambda name: -self._priority.get(name, 0))
        jobs = self._journal.claim(order, limit=room, now=time.time(), lease=LEASE)
        for job in jobs:
            self._accept(job)
        if self._alone and not self._active():
            self._start(self._alone.popleft())

    def _active(self) -> list[Job]:
        """What runs, less what hangs."""
        return [job for job in list(self._tally.running) if self._is_open(job.source.folder)]

    def _accept(self, job: Job) -> None:
        if not self._blames:
            self._start(job)
        elif job.crashes >= self._policy.max_attempts:
            self._quarantine(
                job,
                Failure(
                    "DaemonCrashed",
                    f"hotmatte died {job.crashes} times while it worked on this file",
                    "Export the photo again, or report it: a file must not be able to do that.",
                ),
            )
        elif job.crashes:
            # It may be what killed the daemon: nobody else shall be there when it does so again.
            self._alone.append(job)
        else:
            self._start(job)

    def _start(self, job: Job) -> None:
        self._tally.running[job] = time.monotonic()
        event(logging.DEBUG, "claimed", **words_of(job))
        self._runs.submit(job).add_done_callback(lambda result: self._events.put((job, result)))

    def _return_waiting(self) -> None:
        while self._alone:
            with suppress(JournalCorrupt):
                self._journal.retry(self._alone[0], not_before=0.0, charge=False)
            self._alone.popleft()

    def _renew(self) -> None:
        held = [*self._tally.running, *self._alone]
        if held and time.monotonic() - self._renewed > RENEWAL:
            self._journal.renew(held, until=time.time() + LEASE)
            self._renewed = time.monotonic()

    def _mind_clock(self) -> None:
        """Waits are kept in wall-clock time: set back by an hour, they would last an hour longer."""
        offset = time.time() - time.monotonic()
        if offset < self._offset - 1.0:
            self._journal.mend_clock(now=time.time(), longest=self._policy.max_delay)
        self._offset = offset

    # --- Recording -------------------------------------------------------------------------

    def _record_done(self) -> None:
        """All that are done go into one transaction: a disk that syncs slowly is waited for once."""
        done = [result.result() for _, result in self._ended if result.exception() is None]
        if not done:
            return
        now = time.monotonic()
        spent = [now - self._tally.running.get(outcome.job, now) for outcome in done]
        told = [(outcome.job, done_words(outcome, took)) for outcome, took in zip(done, spent, strict=True)]
        try:
            kept: Sequence[bool | None] = self._journal.finish_many(told)
        except JournalCorrupt:
            # Never to be recorded. What was published tells of itself to the next journal.
            kept = [None] * len(done)
        self._ended = deque(item for item in self._ended if item[1].exception() is not None)
        for outcome, seconds, mine in zip(done, spent, kept, strict=True):
            if mine is not None:
                self._tell_done(outcome, seconds, kept=mine)
            self._tally.running.pop(outcome.job, None)

    def _tell_done(self, outcome: Outcome, seconds: float, *, kept: bool) -> None:
        job = outcome.job
        if not kept:
            event(logging.WARNING, "claim lost, result kept", **words_of(job))
            return
        self._pauses.pop(job.source.folder, None)
        self._pauses.pop(ENGINE, None)
        self._tally.done += 1
        flags = ",".join(outcome.review.flags) or None
        event(
            logging.INFO,
            "done",
            **words_of(job),
            ms=round(seconds * 1000),
            attempts=job.attempts,
            review=flags,
        )
        try:
            self._ends.done(outcome)
        except WatcherError as error:
            # Done is done. The next scan finds the source still there and tries again.
            event(logging.WARNING, f"source not retired: {error}", **words_of(job), remedy=error.remedy)

    def _fail(self, job: Job, error: BaseException) -> None:
        verdict = disposition(error, attempts=job.attempts, policy=self._policy)
        match verdict.action:
            case Action.QUARANTINE:
                if not isinstance(error, WatcherError):
                    event(logging.ERROR, f"bug: {error!r}", **words_of(job))
                    logging.getLogger("hotmatte").error("traceback", exc_info=error)
                self._quarantine(job, failure_of(error), stage=stage_of(error))
            case Action.DROP:
                self._journal.forget(job)
                event(logging.INFO, f"dropped: {error}", **words_of(job))
            case _:
                self._put_back(job, error, verdict)

    def _put_back(self, job: Job, error: BaseException, verdict: Disposition) -> None:
        waits = verdict.delay if verdict.charge else 0.0
        self._journal.retry(job, not_before=time.time() + waits if waits else 0.0, charge=verdict.charge)
        match verdict.action:
            case Action.PAUSE if self._stopping.is_set():
                pass  # handed back, not failed
            case Action.PAUSE:
                self._pause(job.source.folder if isinstance(error, HostError) else ENGINE, error)
            case Action.HALT if isinstance(error, WatcherError):
                self._on_halt(error)
            case _:
                event(
                    logging.WARNING,
                    f"will be tried again: {error}",
                    **words_of(job),
                    stage=stage_of(error),
                    attempts=job.attempts,
                    delay_s=verdict.delay,
                )

    def _quarantine(self, job: Job, failure: Failure, *, stage: str | None = None) -> None:
        try:
            self._ends.quarantined(job, failure)
        except HostError as error:  # without a report nobody would learn of it: again, when there is room
            self._put_back(job, error, disposition(error, attempts=job.attempts, policy=self._policy))
            return
        except WatcherError as error:
            event(logging.WARNING, f"report not written: {error}", **words_of(job))
        if self._journal.quarantine(job, json.dumps(as_json(failure))):
            self._tally.quarantined += 1
            event(
                logging.WARNING,
                f"quarantined: {failure.reason}",
                **words_of(job),
                stage=stage,
                attempts=job.attempts,
                error=failure.error,
                remedy=failure.remedy,
            )

    # --- Pauses ----------------------------------------------------------------------------

    def _open_folders(self, now: float) -> list[str]:
        closed = {key for key, pause in self._pauses.copy().items() if pause.until > now}
        if ENGINE in closed:
            return []
        return [name for name in self._folders if name not in closed and self._is_open(name)]

    def _pause(self, key: str, error: BaseException) -> None:
        """Wait longer each time; the first success ends it."""
        now, old = time.monotonic(), self._pauses.get(key)
        if old is not None and old.until > now:
            return  # several jobs hit the same wall at once: that is one time
        times = old.times + 1 if old else 1
        delay = min(60.0, self._policy.backoff(times))
        remedy = error.remedy if isinstance(error, WatcherError) else ""
        self._pauses[key] = Pause(str(error), remedy, now + delay, times)
        what = "engine" if key == ENGINE else key
        event(logging.WARNING, f"paused: {error}", folder=what, delay_s=delay, remedy=remedy)
