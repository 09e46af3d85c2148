"""Claims jobs, has them run, records what became of them. Touches no pixels and no files.

One dispatcher a lane: the hot folders that share an engine. Its thread does all the
recording, so that the journal sees one writer and the policy needs no locks. What has to
happen to files at the end of a job does so in a thread of the job's folder: its share may hang.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from watcher.domain import Failure, Job, Outcome, Source, as_json
from watcher.errors import Action, Disposition, HostError, RetryPolicy, WatcherError, disposition
from watcher.journal import Journal
from watcher.journal_file import JournalCorrupt
from watcher.log import event
from watcher.pauses import Pauses
from watcher.pipeline.crews import PATIENCE, Crews
from watcher.pulse import Pulse
from watcher.runs import Ends, Runs, Word, Words
from watcher.tally import ENGINE, LaneStatus, Tally
from watcher.telling import confess, done_words, failure_of, stage_of, tell_again, tell_quarantined, words_of

# Long enough for a stalled disk, short enough to be understood: it is renewed all the while.
LEASE = 120.0
RENEWAL = LEASE / 4
# The loop wakes by itself this often, so that a missed wake-up costs seconds, not files.
TICK = 5.0
# While no more photos than these are under way, none waits for company to be recorded.
FEW = 4


class Dispatcher:
    """`max_in_flight` bounds the jobs that are claimed and not yet recorded.

    `is_open`: may jobs of this folder run? Those that hang in a share which does not answer
    do not count: the other folders go on. Nor do those whose sources are being retired, but a
    folder with about twice as many of these waits for them. `look_again`: sources of this folder could
    not be retired, and it is time for another try. `on_lost`: no result will come of this source.
    `at_once`: at the end of this one there is no file to wait for.
    Folders with a higher `priority` are served first. `blames`: photos are worked on in this daemon,
    so its death may have been the fault of one.
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
        look_again: Callable[[str], None] = lambda _: None,
        on_lost: Callable[[Source], None] = lambda _: None,
        at_once: Callable[[Outcome], bool] = lambda _: False,
    ) -> None:
        self._is_open = is_open
        self._priority = priority or {}
        self._blames = blames
        self._look_again = look_again
        self._on_lost = on_lost
        self._at_once = at_once
        self._journal = journal
        self._runs = runs
        self._folders = tuple(folders)
        self._ends = ends
        self._policy = policy
        self._max_in_flight = max_in_flight
        self._crowd = 2 * max_in_flight + 2
        self._on_halt = on_halt
        self._turns = itertools.count()
        self._crews = Crews("ends", 1, apart=True, patience=PATIENCE)
        self._said = Words(max_in_flight)
        self._words: deque[Word] = deque()
        self._alone: deque[Job] = deque()
        self.pauses = Pauses(policy)
        self._tally = Tally()
        self._renewed = time.monotonic()
        self._offset = time.time() - time.monotonic()
        self._stopping = threading.Event()
        self._pulse = Pulse(f"dispatch-{'-'.join(self._folders)}")
        self._thread = threading.Thread(target=self._loop, name=self._pulse.name)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something may be waiting in the journal."""
        self._said.say(None)

    def stop(self) -> None:
        """Claim no more. What runs goes on; `join` waits for it."""
        self._stopping.set()
        self._said.hurry()

    def join(self, timeout: float | None = None) -> bool:
        """True once everything that was claimed is recorded."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Hand back what is still running, uncharged: its holder has no more time."""
        with suppress(HostError):
            for job in self._tally.held():
                self._journal.retry(job, not_before=0.0, charge=False)

    def alive(self) -> bool:
        return self._thread.is_alive()

    def pulses(self) -> list[Pulse]:
        return [self._pulse, *self._crews.pulses()]

    def resume(self) -> None:
        """Forget all pauses: someone says the reason is gone."""
        self.pauses.clear()
        self.wake()

    def status(self) -> LaneStatus:
        tally, now = self._tally, time.monotonic()
        pauses = self.pauses.report(tally.stuck(self._crowd, now))
        running, shut = tally.since(), self.pauses.shut_in(now)
        return LaneStatus(self._folders, running, pauses, tally.done, tally.quarantined, shut)

    # --- The loop --------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            self._pulse.beat()
            try:
                self._turn()
                if self._stopping.is_set() and not self._tally.held() and not self._words:
                    self._crews.shutdown()
                    self._pulse.rest()
                    return
            except HostError as error:
                # Only the journal raises here: nothing can be recorded, so nothing may start.
                for folder in self._folders:
                    self.pauses.failed(folder, error, time.monotonic())
            self._listen(self._patience())

    def _turn(self) -> None:
        self._record_done()
        while self._words:
            word = self._words[0]
            try:
                word.record()
            except JournalCorrupt:  # never to be recorded: see _record_done
                self._tally.let_go(word.job)
            self._words.popleft()
        self._renew()
        self._mind_clock()
        if self._stopping.is_set():
            self._return_waiting()
        else:
            for folder in self.pauses.over(time.monotonic()):
                self._look_again(folder)
            self._claim()

    def _listen(self, patience: float) -> None:
        """Wait for a word, then take all that have been said."""
        self._words += self._said.hear(patience, crowded=len(self._tally.running) > FEW)

    def _patience(self) -> float:
        if self._words:
            return 1.0  # the journal refused: it is asked again, not hammered
        now = time.monotonic()
        wait = min(TICK, self.pauses.next_end(now + TICK) - now)
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
        running = list(self._tally.running)
        open_ = set(filter(self._is_open, {job.source.folder for job in running}))
        return [job for job in running if job.source.folder in open_]

    def _accept(self, job: Job) -> None:
        if not self._blames:
            self._start(job)
        elif job.crashes >= self._policy.max_attempts:
            self._quarantine(
                job,
                Failure(
                    "DaemonCrashed",
                    f"hotmatte died {job.crashes} times while it worked on this file",
                    "Give hotmatte more memory (MemoryMax=), export the photo smaller, or report it: see the log.",
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
        try:
            self._crews.open(job)  # what is done is to be told and retired
        except HostError as error:
            self._said.say(Word(job, partial(self._fail, job, error)))
            return
        self._runs.submit(job).add_done_callback(lambda result: self._said.say(self._word_of(job, result)))

    def _word_of(self, job: Job, result: Future[Outcome]) -> Word:
        if (error := result.exception()) is not None:
            return Word(job, partial(self._fail, job, error))
        return Word(job, self._record_done, result.result())

    def _return_waiting(self) -> None:
        while self._alone:
            with suppress(JournalCorrupt):
                self._journal.retry(self._alone[0], not_before=0.0, charge=False)
            self._alone.popleft()

    def _renew(self) -> None:
        held = [*self._tally.held(), *self._alone]
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
        done = [word.outcome for word in self._words if word.outcome is not None]
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
        self._words = deque(word for word in self._words if word.outcome is None)
        for outcome, seconds, mine in zip(done, spent, kept, strict=True):
            if mine is None:
                self._tally.let_go(outcome.job)
            else:
                self._tell_done(outcome, seconds, kept=mine)

    def _end(self, job: Job, work: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """Do `work` on files of `job`, aside; `then` records what came of it."""
        self._tally.running.pop(job, None)
        self._tally.ending[job] = time.monotonic()
        try:
            self._crews.submit(job, work).add_done_callback(
                lambda result: self._said.say(Word(job, partial(then, result.exception())))
            )
        except HostError as error:  # no thread for it: as if it had been tried
            self._said.say(Word(job, partial(then, error)))

    def _tell_done(self, outcome: Outcome, seconds: float, *, kept: bool) -> None:
        job = outcome.job
        if not kept:
            event(logging.WARNING, "claim lost, result kept", **words_of(job))
            self._tally.let_go(job)
            return
        self.pauses.worked(job.source.folder, ENGINE)
        self._tally.done += 1
        flags = ",".join(outcome.review.flags) or None
        event(
            logging.INFO,
            outcome.skipped or "done",
            **words_of(job),
            ms=round(seconds * 1000),
            attempts=job.attempts,
            review=flags,
        )
        if self._at_once(outcome):
            self._ends.done(outcome)
            self._retired(job, None)
        else:
            self._end(job, partial(self._ends.done, outcome), partial(self._retired, job))

    def _retired(self, job: Job, error: BaseException | None) -> None:
        # Done is done. A scan finds a source that is still there and tries again.
        if error is not None and not isinstance(error, WatcherError):
            confess(job, error)
        else:
            if error is not None:
                event(logging.WARNING, f"source not retired: {error}", **words_of(job), remedy=error.remedy)
            self.pauses.retired(job.source.folder, error, time.monotonic())
        self._tally.let_go(job)

    def _fail(self, job: Job, error: BaseException) -> None:
        verdict = disposition(error, attempts=job.attempts, policy=self._policy)
        match verdict.action:
            case Action.QUARANTINE:
                if not isinstance(error, WatcherError):
                    confess(job, error)
                self._quarantine(job, failure_of(error), stage=stage_of(error))
            case Action.DROP:
                self._journal.forget(job)
                event(logging.INFO, f"dropped: {error}", **words_of(job))
                self._on_lost(job.source)
                self._tally.let_go(job)
            case _:
                self._put_back(job, error, verdict)

    def _put_back(self, job: Job, error: BaseException, verdict: Disposition) -> None:
        waits = verdict.delay if verdict.charge else self.pauses.shut(job.source, error, time.monotonic())
        self._journal.retry(job, not_before=time.time() + waits if waits else 0.0, charge=verdict.charge)
        self._tally.let_go(job)
        match verdict.action:
            case Action.PAUSE if self._stopping.is_set():
                pass  # handed back, not failed
            case Action.PAUSE if waits:
                self._journal.postpone(job.source, until=time.time() + waits)
            case Action.PAUSE:
                key = job.source.folder if isinstance(error, HostError) else ENGINE
                self.pauses.failed(key, error, time.monotonic())
            case Action.HALT if isinstance(error, WatcherError):
                self._on_halt(error)
            case _:
                tell_again(job, error, verdict.delay)

    def _quarantine(self, job: Job, failure: Failure, *, stage: str | None = None) -> None:
        self._end(
            job,
            partial(self._ends.quarantined, job, failure),
            partial(self._reported, job, failure, stage),
        )

    def _reported(self, job: Job, failure: Failure, stage: str | None, error: BaseException | None) -> None:
        if isinstance(
            error, HostError
        ):  # without a report nobody would learn of it: again, when there is room
            self._put_back(job, error, disposition(error, attempts=job.attempts, policy=self._policy))
            return
        if isinstance(error, WatcherError):
            event(logging.WARNING, f"report not written: {error}", **words_of(job))
        elif error is not None:
            confess(job, error)
        if self._journal.quarantine(job, json.dumps(as_json(failure))):
            self._tally.quarantined += 1
            tell_quarantined(job, failure, stage)
            self._on_lost(job.source)
        self._tally.let_go(job)

    def _open_folders(self, now: float) -> list[str]:
        closed = self.pauses.closed(now).union(self._tally.crowded(self._crowd))
        if ENGINE in closed:
            return []
        return [name for name in self._folders if name not in closed and self._is_open(name)]
