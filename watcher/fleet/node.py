"""A worker host: takes jobs from the broker, runs them, puts what comes out where the watcher looks.

Holds nothing that is worth keeping: a node may die at any moment. Acknowledges a job only when
its results are durable on the share and the watcher has been told.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from watcher import __version__
from watcher.bounds import stage_threads
from watcher.config import Folder, Settings
from watcher.domain import Job, Outcome, Source
from watcher.errors import ConfigError, EngineUnavailable, HostError, InputRejected, WatcherError
from watcher.fleet import roster, stage
from watcher.fleet.brokers import BrokerLost, Delivery, Line, Listener, Patience
from watcher.fleet.failures import OtherShare
from watcher.fleet.hands import Bench, Counts, Hand
from watcher.fleet.messages import PROTOCOL, JobMessage, Reply, Unreadable, job_in, jobs_queue, pack
from watcher.fleet.shares import Shares, as_seen
from watcher.log import event
from watcher.pipeline.naming import Names
from watcher.pipeline.recipe import Recipe

Ended = tuple[Hand, Future[Outcome]]


class Node:
    """`capacity` jobs for each engine at one time. `run` returns when `stop` was called, or raises."""

    def __init__(self, name: str, settings: Settings, line: Line, shares: Shares) -> None:
        self._name, self._settings, self._line, self._shares = name, settings, line, shares
        self._benches: list[Bench] = []
        self._capacity = settings.limits.max_in_flight or stage_threads(settings) + 4
        self._hands: dict[tuple[str, int, int], Hand] = {}
        self._lock = threading.Lock()
        self._ended: queue.SimpleQueue[Ended | None] = queue.SimpleQueue()
        self._tally = Counts()
        self._tokens: dict[str, str] = {}
        self._trouble: set[str] = set()  # why nothing is taken: what was told since a share went away
        self._lost: list[Patience] = []  # of each loop that needs the broker
        self._told = threading.Event()  # the shares; now the broker
        self._stopping = threading.Event()
        self._over = threading.Event()  # the time to drain
        self._fatal: BaseException | None = None
        self._beats, self._beaten_at = 0, -roster.BEAT_S

    def check(self) -> None:
        """Does this host see the shares as the watcher does, and are both of one version? Raises."""
        if not self._shares.names:
            raise ConfigError(["a node needs `shares`: it reaches photos and results only there"])
        for name in self._shares.names:
            self._shares.check_watcher(name)
            self._tokens[name] = self._shares.token(name)
            roster.clear_torn(self._shares.state(name) / roster.NODES, self._name)

    def add(self, bench: Bench) -> None:
        """One more engine; before `run`."""
        self._benches.append(bench)

    def stop(self) -> None:
        """Take no more; finish what is in hand."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """`tick` is called about once a second. Raises EngineUnavailable if an engine is beyond help."""
        takers = [
            threading.Thread(target=self._take_all, args=(bench,), name=f"take-{bench.model}")
            for bench in self._benches
        ]
        speaker = threading.Thread(target=self._answer_all, name="answer")
        beater = threading.Thread(target=self._beat_broker, name="beat")
        for thread in (*takers, speaker, beater):
            thread.start()
        try:
            while not self._stopping.is_set():
                self._beat("working")
                tick()
                self._stopping.wait(1.0)
            deadline = time.monotonic() + self._settings.limits.drain_timeout_s
            while self._hands and time.monotonic() < deadline and self._fatal is None:
                self._beat("draining")
                tick()
                time.sleep(0.05)
        finally:
            self._stopping.set()
            self._over.set()
            self._told.set()
            for thread in (*takers, beater):
                thread.join()
            self._ended.put(None)
            speaker.join()
            self._leave()
        if self._fatal is not None:
            raise self._fatal

    # --- Telling ---------------------------------------------------------------------------

    def _beat(self, state: str) -> None:
        """On every share first, then to the broker: a node whose share hangs shall not look alive there either."""
        now = time.monotonic()
        if state == "working" and now - self._beaten_at < roster.BEAT_S - 0.1:
            return
        self._beaten_at = now
        self._beats += 1
        trouble = ""
        for name in self._shares.names:
            try:
                self._shares.check_token(name, self._tokens[name])
                roster.tell(self._shares.state(name) / roster.NODES, self._name, self._said(state))
            except (OSError, HostError) as error:
                trouble = str(error)
        if trouble:
            self._take_none(trouble, HostError.remedy)
        else:
            self._trouble.clear()
        self._told.set()

    def _take_none(self, why: str, remedy: str, **fields: int) -> None:
        """Until the shares are there again. What is seen of one that goes may change while it does."""
        if why not in self._trouble:
            event(logging.WARNING, f"takes no work: {why}", remedy=remedy, **fields)
        self._trouble.add(why)

    def _beat_broker(self) -> None:
        """By a thread of its own: a broker that hangs shall not keep shares and systemd from hearing of us."""
        while not self._over.is_set():
            if self._told.wait(1.0) and not self._over.is_set():
                self._told.clear()
                with suppress(BrokerLost):
                    self._line.beat()

    def _said(self, state: str) -> dict[str, Any]:
        now = time.monotonic()
        with self._lock:
            while self._tally.times and now - self._tally.times[0] > 60.0:
                self._tally.times.popleft()
            holds = [key[:2] for key in self._hands]
        trouble = [*self._trouble, *(patience.told for patience in list(self._lost) if patience.told)]
        return {
            "hotmatte": __version__,
            "protocol": PROTOCOL,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "state": state,
            "models": {bench.model: bench.card for bench in self._benches},
            "capacity": self._capacity * len(self._benches),
            "holds": holds,
            "done": self._tally.done,
            "failed": self._tally.failed,
            "per_minute": len(self._tally.times),
            "trouble": trouble[0] if trouble else None,
            "beat": self._beats,
        }

    # --- Taking ----------------------------------------------------------------------------

    def _take_all(self, bench: Bench) -> None:
        patience = self._patience()
        while not self._stopping.is_set():
            if self._trouble:
                patience.wait()
                continue
            try:
                listener = self._line.listen(jobs_queue(bench.card), prefetch=self._capacity)
                self._listen(listener, bench, patience)
            except BrokerLost as error:
                self._miss(patience, "takes no work", error)
            except BaseException as error:  # noqa: BLE001  (crosses a thread)
                self._fatal = error
                self._stopping.set()

    def _listen(self, listener: Listener, bench: Bench, patience: Patience) -> None:
        try:
            while not self._stopping.is_set() and not self._trouble:
                delivery = listener.take()
                if patience.well():
                    event(logging.INFO, "takes work again", engine=bench.model)
                if delivery is not None:
                    self._receive(listener, delivery, bench)
            listener.retreat()
            while self._drains():
                # What came by this connection can be acknowledged only by it.
                listener.serve()
        finally:
            self._give_back(listener)
            listener.close()

    def _drains(self) -> bool:
        return bool(self._hands) and not self._trouble and not self._over.is_set()

    def _receive(self, listener: Listener, delivery: Delivery, bench: Bench) -> None:
        try:
            message = job_in(delivery.body)
        except (Unreadable, ConfigError) as error:
            event(logging.ERROR, f"message not understood: {error}", remedy=error.remedy)
            listener.ack(delivery)
            return
        try:
            kept = self._begin(listener, delivery, message, bench)
        except OtherShare as error:
            event(logging.WARNING, f"refused: {error}", job=message.job, remedy=error.remedy)
            self._refuse(message, error)
            kept = False
        except HostError as error:
            # The share's or ours: somebody else shall try, and we look again.
            self._take_none(str(error), error.remedy, job=message.job)
            listener.give_back(delivery)
            return
        except InputRejected as error:
            self._refuse(message, error)
            kept = False
        if not kept:
            listener.ack(delivery)

    def _begin(self, listener: Listener, delivery: Delivery, message: JobMessage, bench: Bench) -> bool:
        """Start the job; False if there is nothing to be done. Raises HostError, InputRejected, BrokerLost."""
        with self._lock:
            for hand in self._hands.values():
                if hand.message.same_work(message):
                    hand.deliveries.append((listener, delivery))
                    return True
        place = self._shares.path(message.stage)
        share = message.stage.removeprefix("share://").partition("/")[0]
        if message.share != self._tokens.get(share, message.share):
            raise OtherShare(share)
        self._shares.check_token(share, message.share)
        if not stage.is_wanted(place):
            return False
        staged = stage.find(place, message)
        if staged is not None:
            reply = self._reply(message, staged=self._shares.url(staged.place))
            self._line.send(message.reply_to, pack(reply))
            return False
        deaths = stage.cut_short(place)
        if deaths >= self._settings.retry.max_attempts:
            raise InputRejected(
                f"{deaths} nodes died, or stood still, while they worked on this file",
                remedy="Export the photo again, or report it: a file must not be able to do that.",
            )
        attempt = stage.begin(place, message, self._name)
        hand = Hand(message, attempt, [(listener, delivery)])
        job, recipe = self._job(message, attempt, bench, deaths)
        with self._lock:
            self._hands[message.watcher, message.job, message.fence] = hand
        bench.recipes[job.source.folder] = recipe
        result = bench.runs.submit(job)
        result.add_done_callback(lambda done: self._put_down(hand, job, bench, done))
        return True

    def _refuse(self, message: JobMessage, error: WatcherError) -> None:
        self._line.send(message.reply_to, pack(self._failure(message, error)))

    def _job(self, message: JobMessage, attempt: Path, bench: Bench, deaths: int) -> tuple[Job, Recipe]:
        """The job as this host sees it: a hot folder of its own, whose results go into the attempt."""
        path = self._shares.path(message.source)
        key = f"{message.watcher}.{message.job}.{message.fence}.{attempt.name}"
        source = Source(key, path.name, as_seen(path, message.stamp))
        folder = Folder(
            path=path.parent,
            output=attempt,
            profile=message.profile_name,
            tree="flatten",
            duplicates="replace",
        )
        recipe = Recipe(message.folder, folder, message.profile_name, message.profile, bench.about, Names())
        return Job(message.job, source, message.attempts + deaths, message.fence), recipe

    def _put_down(self, hand: Hand, job: Job, bench: Bench, done: Future[Outcome]) -> None:
        bench.recipes.pop(job.source.folder, None)
        self._ended.put((hand, done))

    # --- Answering -------------------------------------------------------------------------

    def _patience(self) -> Patience:
        self._lost.append(Patience(self._stopping))
        return self._lost[-1]

    def _miss(self, patience: Patience, words: str, error: BrokerLost) -> None:
        """Told once, here and, by way of the share, at the watcher; then wait."""
        if not patience.told:
            event(logging.WARNING, f"{words}: {error}", remedy=error.remedy)
        patience.told = str(error)
        patience.wait()

    def _answer_all(self) -> None:
        patience = self._patience()
        while (ended := self._ended.get()) is not None:
            hand, done = ended
            error = done.exception()
            if isinstance(error, EngineUnavailable):
                self._fatal = error
                self._stopping.set()
                continue
            reply = self._end(hand, error)
            while not self._answer(hand, reply, patience) and not self._stopping.is_set():
                pass
            if patience.well():
                event(logging.INFO, "tells of results again")
            with self._lock:
                message = hand.message
                self._hands.pop((message.watcher, message.job, message.fence), None)

    def _end(self, hand: Hand, error: BaseException | None) -> Reply:
        message = hand.message
        with self._lock:
            self._tally.times.append(time.monotonic())
            self._tally.done += error is None
            self._tally.failed += error is not None
        event(
            logging.INFO,
            "made" if error is None else f"failed: {error}",
            job=message.job,
            folder=message.folder,
            file=self._shares.path(message.source).name,
            error=type(error).__name__ if error else None,
        )
        if error is None:
            return self._reply(message, staged=self._shares.url(hand.attempt))
        stage.give_up(hand.attempt)
        return self._failure(message, error)

    def _answer(self, hand: Hand, reply: Reply, patience: Patience) -> bool:
        """Tell the watcher, then the broker. False, after a while, where the broker is away."""
        try:
            self._line.send(hand.message.reply_to, pack(reply))
        except BrokerLost as error:
            self._miss(patience, "keeps its results, which cannot be told of", error)
            return False
        for listener, delivery in list(hand.deliveries):
            with suppress(BrokerLost):  # then somebody gets it once more, and finds what we made
                listener.ack(delivery)
        return True

    def _reply(self, message: JobMessage, **end: Any) -> Reply:
        return Reply(node=self._name, watcher=message.watcher, job=message.job, fence=message.fence, **end)

    def _failure(self, message: JobMessage, error: BaseException) -> Reply:
        kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "watcher.errors"]
        return self._reply(
            message,
            error=kinds[0] if kinds else type(error).__name__,
            reason=str(error)[:4000],
            remedy=error.remedy if isinstance(error, WatcherError) else "",
            stage=error.stage if isinstance(error, WatcherError) else None,
        )

    # --- Leaving ---------------------------------------------------------------------------

    def _give_back(self, listener: Listener) -> None:
        """What came by this connection and is not done: others shall have it now, not when we are missed."""
        with self._lock:
            hands = list(self._hands.values())
        for hand in hands:
            for by, delivery in hand.deliveries:
                if by is listener:
                    with suppress(BrokerLost):
                        listener.give_back(delivery)

    def _leave(self) -> None:
        for hand in self._hands.values():
            stage.give_up(hand.attempt)
        for name in self._shares.names:
            roster.fall_silent(self._shares.state(name) / roster.NODES, self._name)
