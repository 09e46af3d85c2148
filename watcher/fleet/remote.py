"""A lane's jobs, run by whichever node takes them: the RemoteRunner has a Runner's `submit`.

Results are looked for where they lie, on the share; a reply only says when to look. So it does
not matter what the broker loses: what is not held, not made and not heard of is sent again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from watcher import errors
from watcher.config import Settings
from watcher.domain import EngineAbout, Job, Outcome
from watcher.engine.card import Card
from watcher.errors import EngineUnavailable, WatcherError
from watcher.fleet import messages, stage
from watcher.fleet.brokers import BrokerLost, Line, Patience
from watcher.fleet.failures import failure_in, seen_from_here
from watcher.fleet.fitness import Vacancy, unfit
from watcher.fleet.messages import JobMessage, Reply, card_digest, jobs_queue, pack, replies_queue
from watcher.fleet.roster import NODES, Roster
from watcher.fleet.sending import Ledger, Pending
from watcher.fleet.shares import Shares, watcher_id
from watcher.fleet.tls import Tls
from watcher.fleet_settings import STATE, Queue, broker_url
from watcher.log import event
from watcher.pipeline.collect import collect
from watcher.pipeline.recipe import Recipe
from watcher.pulse import Pulse
from watcher.threads import Team

# Publishing is some eighty looks at the share and next to no work: several at once hide its latency.
COLLECTORS = 16
MIND_S = 1.0
# A loop here is heard of again within so many seconds, besides what it takes to find the broker lost.
PROMISE_S = 120.0
SWEEP_S = 600.0
# A watcher that has asked for nothing for so long is gone for good.
GONE_S = 7 * 86_400.0
REPLIES = 64


@dataclass(frozen=True, slots=True)
class Fleet:
    """What all lanes of one watcher share: who it is, how it reaches the nodes. `wanted`: is a job not done yet?"""

    watcher: str
    settings: Queue
    url: str
    shares: Shares
    wanted: Callable[[int], bool]


@dataclass(slots=True)
class _State:
    broker: dict[str, str] = field(default_factory=dict)  # why it is lost, for each loop that it is lost to
    swept: float = 0.0
    tokens: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


class RemoteRunner:
    """For the hot folders of one model. Raises ConfigError where dramatiq is not installed."""

    restarts = 0
    fatal = False

    def __init__(self, fleet: Fleet, card: Card, recipes: Mapping[str, Recipe]) -> None:
        self._fleet, self._recipes = fleet, recipes
        self._model, self._card = card.name, card_digest(card)
        self._line = Line(fleet.url, lost_after=fleet.settings.lost_after_s, tls=Tls.of(fleet.settings))
        # Lanes have a queue each for their replies: else one would take what is another's.
        self._replies = f"{replies_queue(fleet.watcher)}.{self._card[:16]}"
        self._roster = Roster(
            [fleet.shares.state(name) / NODES for name in fleet.shares.names],
            lost_after=fleet.settings.lost_after_s,
        )
        self._vacancy = Vacancy(self._model, patience=fleet.settings.lost_after_s)
        self._ledger = Ledger(resend_after=fleet.settings.resend_after_s)
        self._outbox: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._state = _State()
        self._stopping = threading.Event()
        self._promise = PROMISE_S + fleet.settings.lost_after_s
        self._collectors = Team(COLLECTORS, "collect")
        self._collectors.open()
        loops = {"send": self._send_all, "hear": self._hear_all, "mind": self._mind_all}
        self._pulses = {name: Pulse(f"fleet-{name}") for name in loops}
        self._threads = [
            threading.Thread(target=self._live, args=(loop, self._pulses[name]), name=f"fleet-{name}")
            for name, loop in loops.items()
        ]
        for thread in self._threads:
            thread.start()

    # --- What a lane needs -----------------------------------------------------------------

    @property
    def about(self) -> EngineAbout | None:
        """For the status: what the fleet as a whole is."""
        return EngineAbout(self._model, "fleet", self._line.address, "fleet", None)

    def submit(self, job: Job) -> Future[Outcome]:
        """Have some node do `job`. The future carries its outcome, or whatever went wrong."""
        pending = Pending(job)
        self._ledger.add(pending)
        self._outbox.put(pending)
        return pending.result

    def recall_waiting(self) -> None:
        """Take back what no node holds: that would be waited for in vain while we stop."""
        held = self._roster.held(self._fleet.watcher, time.monotonic())
        for pending in self._ledger.waiting(held):
            self._settle(pending, _taken_back())

    def recall(self) -> None:
        """Wait no longer. What nodes make meanwhile is found when the job is submitted again."""
        self._stopping.set()
        for pending in self._ledger.clear():
            pending.result.set_exception(_taken_back())

    def close(self) -> None:
        self.recall()
        self._outbox.put(None)
        for thread in self._threads:
            thread.join()
        self._collectors.shutdown()
        self._line.close()

    def pulses(self) -> list[Pulse]:
        return list(self._pulses.values())

    def _live(self, loop: Callable[[Pulse], None], pulse: Pulse) -> None:
        loop(pulse)
        pulse.rest()  # a loop that ends by an error is missed

    def snapshot(self) -> dict[str, Any]:
        """What `status` shows of the fleet."""
        now = time.monotonic()
        nodes, living = self._roster.snapshot(self._fleet.watcher, now), self._roster.alive(now)
        for node in nodes:
            name, said = node["node"], living.get(node["node"])
            node["reason"] = said and unfit(name, said, model=self._model, card=self._card)
        return {
            "model": self._model,
            "broker": self._line.address,
            "broker_lost": next(iter(list(self._state.broker.values())), None),
            "in_flight": len(self._ledger),
            "resent": self._ledger.resent,
            "nodes": nodes,
        }

    # --- Sending ---------------------------------------------------------------------------

    def _send_all(self, pulse: Pulse) -> None:
        while True:
            pulse.beat(self._promise)
            with suppress(queue.Empty):
                if (pending := self._outbox.get(timeout=PROMISE_S / 4)) is None:
                    return
                self._send_one(pending, pulse)

    def _send_one(self, pending: Pending, pulse: Pulse) -> None:
        patience = Patience(self._stopping)
        while not self._stopping.is_set():
            pulse.beat(self._promise)
            try:
                self._send(pending)
            except BrokerLost as error:
                self._lose("send", error)
                patience.wait()
            except BaseException as error:  # noqa: BLE001  (crosses a thread)
                self._settle(pending, error)
                return
            else:
                self._regain("send")
                return

    def _send(self, pending: Pending) -> None:
        if not self._ledger.has(pending):
            return
        message = pending.message = pending.message or self._message(pending.job)
        place = self._fleet.shares.path(message.stage)
        staged = stage.find(place, message)
        if staged is not None:
            self._collect(pending, staged)
            return
        stage.open_job(place)
        generation = self._ledger.generation
        self._line.send(jobs_queue(self._card), pack(message))
        self._ledger.sent(pending, now=time.monotonic(), generation=generation)

    def _message(self, job: Job) -> JobMessage:
        fleet, recipe = self._fleet, self._recipes[job.source.folder]
        source = fleet.shares.url(recipe.folder.path / job.source.relpath)
        share = fleet.shares.url(recipe.folder.output).removeprefix("share://").partition("/")[0]
        return JobMessage(
            watcher=fleet.watcher,
            reply_to=self._replies,
            share=self._token(share),
            job=job.id,
            fence=job.fence,
            attempts=job.attempts,
            folder=job.source.folder,
            source=source,
            stage=f"share://{share}/{STATE}/stage/{fleet.watcher}/{job.id}",
            size=job.source.stamp.size,
            mtime_ns=job.source.stamp.mtime_ns,
            profile_name=recipe.profile_name,
            profile=recipe.profile,
            card=self._card,
        )

    def _token(self, share: str) -> str:
        """Marks the share when it is first needed: at start it may be away."""
        if share not in self._state.tokens:
            self._state.tokens[share] = self._fleet.shares.mark(share)
        return self._state.tokens[share]

    # --- Hearing ---------------------------------------------------------------------------

    def _hear_all(self, pulse: Pulse) -> None:
        patience = Patience(self._stopping)
        while not self._stopping.is_set():
            pulse.beat(self._promise)
            try:
                listener = self._line.listen(self._replies, prefetch=REPLIES)
                try:
                    while not self._stopping.is_set():
                        pulse.beat(self._promise)
                        delivery = listener.take()
                        self._regain("hear")
                        patience.well()
                        if delivery is not None:
                            self._hear(delivery.body)
                            listener.ack(delivery)
                finally:
                    listener.close()
            except BrokerLost as error:
                self._lose("hear", error)
                patience.wait()

    def _hear(self, body: object) -> None:
        try:
            reply = messages.reply_in(body)
            self._take(reply)
        except BrokerLost:
            raise
        except WatcherError as error:
            event(logging.WARNING, f"reply not understood: {error}", remedy=error.remedy)

    def _take(self, reply: Reply) -> None:
        pending = self._ledger.answered(reply.job)
        if pending is None or pending.message is None or reply.watcher != self._fleet.watcher:
            self._late(reply)
        elif reply.error is not None:
            if reply.fence == pending.job.fence:
                self._settle(pending, self._failure(reply, pending.job))
        else:
            self._collectors.submit(self._look, pending, pending.message, reply)

    def _look(self, pending: Pending, message: JobMessage, reply: Reply) -> None:
        """Publish what a reply says is there. What is not there is sent again in time."""
        try:
            staged = self._staged(reply, message)
        except (WatcherError, OSError) as error:
            event(logging.WARNING, f"reply not believed: {error}", **_words(pending.job))
            return
        if staged is not None and self._ledger.take(pending):
            self._publish(pending, staged)

    def _staged(self, reply: Reply, message: JobMessage) -> stage.Staged | None:
        place = self._fleet.shares.path(reply.staged or "")
        if place.parent != self._fleet.shares.path(message.stage):
            return None
        staged = stage.staged_in(place)
        return staged if staged is not None and staged.claim.same_work(message) else None

    def _late(self, reply: Reply) -> None:
        """The job is settled, or somebody else's by now: what was made for it is not needed."""
        event(logging.DEBUG, "late reply", job=reply.job, node=reply.node)
        if reply.watcher == self._fleet.watcher and not self._fleet.wanted(reply.job) and reply.staged:
            stage.close_job(self._fleet.shares.path(reply.staged).parent)

    def _failure(self, reply: Reply, job: Job) -> BaseException:
        error = failure_in(reply)
        if isinstance(error, errors.InputChanged):
            return seen_from_here(error, self._recipes[job.source.folder].folder.path, job)
        return error

    # --- Publishing ------------------------------------------------------------------------

    def _collect(self, pending: Pending, staged: stage.Staged) -> None:
        if self._ledger.take(pending):
            self._collectors.submit(self._publish, pending, staged)

    def _publish(self, pending: Pending, staged: stage.Staged) -> None:
        """The only place where a result of the fleet becomes visible: once for each claim."""
        end: Outcome | BaseException
        try:
            recipe = self._recipes[pending.job.source.folder]
            end = collect(pending.job, staged.sidecar, staged.record, recipe)
        except BaseException as error:  # noqa: BLE001  (crosses a thread)
            end = error
        self._resolve(pending, end)

    def _settle(self, pending: Pending, error: BaseException) -> None:
        if self._ledger.take(pending):
            self._resolve(pending, error)

    def _resolve(self, pending: Pending, end: Outcome | BaseException) -> None:
        keeps = isinstance(
            end, errors.HostError | EngineUnavailable
        )  # will be submitted again; then what is there is found
        if pending.message is not None and not keeps:
            stage.close_job(self._fleet.shares.path(pending.message.stage))
        if isinstance(end, BaseException):
            pending.result.set_exception(end)
        else:
            pending.result.set_result(end)

    # --- Minding ---------------------------------------------------------------------------

    def _mind_all(self, pulse: Pulse) -> None:
        while not self._stopping.is_set():
            pulse.beat(self._promise)
            self._mark_all()
            now = time.monotonic()
            self._roster.look(now)
            out = (
                0 if self._state.broker else len(self._ledger)
            )  # what is lost with the broker is told already
            self._vacancy.look(self._roster.alive(now), card=self._card, out=out, now=now)
            held = self._roster.held(self._fleet.watcher, now)
            idle = self._roster.has_room(self._model, self._card, now)
            for pending in self._ledger.to_resend(held, now, idle=idle):
                event(logging.INFO, "sent again", **_words(pending.job))
                self._outbox.put(pending)
            if now - self._state.swept > SWEEP_S or not self._state.swept:
                self._state.swept = now
                self._sweep()
            self._stopping.wait(MIND_S)

    def _mark_all(self) -> None:
        """Nodes refuse to start on a share that no watcher has marked."""
        for name in self._fleet.shares.names:
            try:
                self._token(name)
            except WatcherError as error:
                if str(error) not in self._state.told:
                    self._state.told.add(str(error))
                    event(logging.WARNING, str(error), remedy=error.remedy)

    def _sweep(self) -> None:
        for name in self._fleet.shares.names:
            root = self._fleet.shares.state(name) / "stage"
            count = stage.sweep_jobs(root / self._fleet.watcher, wanted=self._fleet.wanted)
            count += stage.sweep_watchers(root, self._fleet.watcher, before=time.time() - GONE_S)
            if count:
                event(logging.INFO, "cleared what late nodes left", leftovers=count)

    def _lose(self, loop: str, error: BrokerLost) -> None:
        if not self._state.broker and not self._stopping.is_set():
            event(logging.WARNING, f"fleet: {error}", remedy=error.remedy)
        self._state.broker[loop] = str(error)
        self._ledger.lost()

    def _regain(self, loop: str) -> None:
        """Back for one loop: a broker that lets us hear may still take nothing."""
        if self._state.broker.pop(loop, None) and not self._state.broker:
            self._ledger.regained(time.monotonic())
            event(logging.INFO, "the broker is back", path=self._line.address)


def _taken_back() -> EngineUnavailable:
    return EngineUnavailable("taken back from the fleet", remedy="Nothing: the next start goes on.")


def remote_runner(
    settings: Settings, card: Card, recipes: Mapping[str, Recipe], *, wanted: Callable[[int], bool]
) -> RemoteRunner:
    """The one for `card`; `wanted`: is the job of this number not done yet?"""
    url = broker_url(settings.queue) or ""
    watcher = watcher_id(settings.state_dir)
    return RemoteRunner(Fleet(watcher, settings.queue, url, Shares(settings.shares), wanted), card, recipes)


def _words(job: Job) -> dict[str, object]:
    return {"job": job.id, "folder": job.source.folder, "file": job.source.relpath}
