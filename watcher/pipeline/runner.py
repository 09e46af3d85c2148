"""Runs jobs through decode | infer | render | deliver. Knows threads; knows no policy."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Frame, Job, Outcome
from watcher.errors import EngineOutOfMemory, HostError, InputRejected, WatcherError, host_error
from watcher.pipeline.answers import Sharing
from watcher.pipeline.batch import Batcher
from watcher.pipeline.budget import PixelBudget
from watcher.pipeline.compiled import wait_for_compilers
from watcher.pipeline.crews import PATIENCE, Crews
from watcher.pipeline.looks import Answer, Look, View
from watcher.pipeline.trip import Trip
from watcher.pulse import Pulse
from watcher.threads import Team, start

# A photo that is encoded counts as so small a part of its pixels: PNGs of cutout and matte take 0.8 bytes a pixel, of ten.
ENCODED = 4
# The infer loop wakes by itself this often, in seconds.
TICK = 5.0

Proxy = NDArray[np.uint8]
Values = NDArray[np.float32]


class Engine(Protocol):
    """What the runner needs of an engine: hxwx3 sRGB proxies in, hxw alphas in 0..1 out."""

    def infer(self, proxies: list[Proxy], *, timeout: float) -> Sequence[Values]: ...


class Work(Protocol):
    """What a job is put through; `timings` (stage -> seconds) is filled in on the way."""

    def decode(self, job: Job, *, reserve: Callable[[int], None]) -> Frame: ...
    def next_look(self, frame: Frame, views: Sequence[View]) -> Look | None:
        """What else the engine must see of `frame`, after what it said; None: that is enough."""

    def show(self, frame: Frame, look: Look) -> Proxy: ...
    def conclude(self, views: Sequence[View]) -> Answer: ...
    def key(self, frame: Frame) -> str | None:
        """Frames of equal keys get equal answers; None: nobody keeps any."""

    def find(self, key: str) -> Answer | None:
        """The answer that was kept."""

    def keep(self, key: str, answer: Answer) -> None: ...
    def share(self, answer: Answer) -> Answer:
        """`answer` for another frame of the same key."""

    def render(self, frame: Frame, answer: Answer, *, timings: dict[str, float]) -> Any:
        """All that takes a core. What is returned is for `deliver` alone, and holds none of the frame's pixels."""

    def deliver(self, rendered: Any, *, timings: dict[str, float]) -> Outcome:
        """All that waits for a disk or a share."""


class Runner:
    """The caller bounds how many jobs are here at once; the budget bounds their pixels.

    Decoding waits for the budget and rendering gives it back, so they may not share
    threads: decoders that wait would keep the others from ever starting. Delivering waits for
    disks and shares: its threads, `deliverers`, leave those that compute alone. `apart`: hot
    folders do not share threads either. So many batches as there are `lanes` are in the
    engine at one time; where each is of one photo, so many loops take them. `on_rest` is called now and then while there is nothing to do.
    """

    def __init__(
        self,
        work: Work,
        engine: Engine,
        batcher: Batcher,
        *,
        threads: int,
        deliverers: int | None = None,
        budget: PixelBudget,
        timeout: float,
        apart: bool = False,
        step_down: Callable[[Proxy], Proxy | None] = lambda _: None,
        on_close: Callable[[], None] = lambda: None,
        on_rest: Callable[[], None] = lambda: None,
        lanes: int = 1,
    ) -> None:
        self._work = work
        self._step_down = step_down
        self._on_close = on_close
        self._on_rest = on_rest
        self._engine = engine
        self._batcher = batcher
        self._budget = budget
        self._timeout = timeout
        self._decoded: queue.SimpleQueue[Trip | None] = queue.SimpleQueue()
        self._sharing: Sharing[Trip] = Sharing()
        self._trips: dict[Job, Trip] = {}
        self._decoders = Crews("decode", threads, apart=apart)
        self._finishers = Crews("finish", threads, apart=apart, patience=PATIENCE)
        self._deliverers = Crews("publish", deliverers or threads, apart=apart, patience=PATIENCE)
        self._free_lanes = threading.Semaphore(lanes)
        self._lanes = Team(lanes, "infer-lane") if lanes > 1 and not batcher.alone else None
        self._loops: list[tuple[threading.Thread, Pulse]] = []
        self._begin(lanes if batcher.alone else 1)

    def _begin(self, loops: int) -> None:
        for number in range(loops):
            pulse = Pulse(f"infer-{number}" if number else "infer")
            thread = threading.Thread(target=self._infer_loop, args=(pulse, not number), name=pulse.name)
            try:
                start(thread)
            except HostError:
                if not number:
                    raise
                return  # those that there are take turns
            self._loops.append((thread, pulse))

    def submit(self, job: Job) -> Future[Outcome]:
        """Start `job`. The future carries its outcome, or whatever went wrong."""
        trip = Trip(job)
        self._trips[job] = trip
        try:
            # Else decoders could take every thread there may be, and nothing would ever come of it.
            self._finishers.open(job)
            self._deliverers.open(job)
        except HostError as error:
            self._fail(trip, error, "decode")
            return trip.result
        self._hand_on(self._decoders, trip, self._decode)
        return trip.result

    def company(self) -> int:
        """Photos that the engine may have to look at yet."""
        return sum(trip.asks for trip in list(self._trips.values()))

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        for trip in list(self._trips.values()):
            trip.result.exception()
        for _ in self._loops:
            self._decoded.put(None)
        for thread, _ in self._loops:
            thread.join()
        if self._lanes is not None:
            self._lanes.shutdown()
        self._decoders.shutdown()
        self._finishers.shutdown()
        self._deliverers.shutdown()
        self._on_close()

    def _hand_on(self, crews: Crews, trip: Trip, work: Callable[..., None], *more: object) -> None:
        """To a thread of `crews`; to its end where there is none for it."""
        try:
            crews.submit(trip.job, work, trip, *more)
        except HostError as error:
            self._fail(trip, error, "decode" if crews is self._decoders else "finish")

    def _decode(self, trip: Trip) -> None:
        def reserve(pixels: int) -> None:
            trip.lap("decode")
            self._budget.take(pixels)
            trip.pixels = pixels
            trip.lap("wait_memory")

        try:
            wait_for_compilers()  # at a first start; decoding is not to blame for it
            trip.lap("wait_decode")
            trip.frame = self._work.decode(trip.job, reserve=reserve)
            trip.proxy = trip.frame.proxy
        except BaseException as error:  # noqa: BLE001  (crosses a thread)
            self._fail(trip, error, "decode")
        else:
            trip.lap("decode")
            self._recall(trip)

    def _recall(self, trip: Trip) -> None:
        """To the end where the answer is known, to the engine where it is not.

        The same photo may be under way: whoever comes second waits for the first one's answer.
        """
        assert trip.frame is not None
        try:
            key = self._work.key(trip.frame)
            if key is not None:
                if not self._sharing.leads(key, trip):
                    return
                trip.key = key
                trip.answer = self._work.find(key)
        except BaseException as error:  # noqa: BLE001  (crosses a thread)
            self._fail(trip, error, "decode")
            return
        trip.lap("recall")
        if trip.answer is None:
            self._decoded.put(trip)
        else:
            self._pass_on(trip)
            self._hand_on(self._finishers, trip, self._finish)

    def _pass_on(self, trip: Trip) -> None:
        """Tell whoever waited for `trip`: its answer, or to ask for themselves."""
        key, trip.key = trip.key, None
        if key is None:
            return
        answer = None if trip.reduced else trip.answer
        for other in self._sharing.release(key):
            other.lap("recall")
            if answer is None:
                self._hand_on(self._finishers, other, self._recall)
            else:
                other.answer = self._work.share(answer)
                self._hand_on(self._finishers, other, self._finish)

    def _infer_loop(self, pulse: Pulse, first: bool) -> None:
        waiting: dict[Job, Trip] = {}
        while self._gather(waiting, pulse, first):
            pass
        pulse.rest()

    def _gather(self, waiting: dict[Job, Trip], pulse: Pulse, first: bool) -> bool:
        """One more trip, and what may enter the engine because of it; False after the last. Only the `first` loop wakes by itself.

        No frame outlives a call of it but in `waiting`: the loop may have nothing to do for hours.
        """
        batches: list[list[Frame]] = []
        pulse.beat() if first else pulse.rest()
        try:
            trip = self._decoded.get(timeout=self._patience() if first else None)
            if trip is None:
                return False
            assert trip.frame is not None
            assert trip.proxy is not None
            waiting[trip.job] = trip
            frame = trip.frame
            shown = frame if trip.proxy is frame.proxy else replace(frame, proxy=trip.proxy)
            batches.append(self._batcher.add(shown, time.monotonic()))
        except queue.Empty:
            if not self._trips:
                self._on_rest()
        batches += self._batcher.pop_overdue(time.monotonic())
        for batch in filter(None, batches):
            self._enter([waiting.pop(frame.job) for frame in batch], pulse)
        return True

    def pulses(self) -> list[Pulse]:
        return [*(pulse for _, pulse in self._loops), *self._finishers.pulses(), *self._deliverers.pulses()]

    def _patience(self) -> float:
        """How long to wait for another frame: the loop is to be heard of, although nobody waits for company."""
        deadline = self._batcher.next_deadline()
        return TICK if deadline is None else min(TICK, max(0.0, deadline - time.monotonic()))

    def _enter(self, batch: list[Trip], pulse: Pulse) -> None:
        """Infer `batch`: here where there is one lane, else in the next that is free."""
        # The engine keeps its own deadline; a worker that has to be replaced first takes longer.
        pulse.beat(len(batch) * self._timeout + PATIENCE)
        if self._lanes is None:
            self._infer(batch)
            return
        self._free_lanes.acquire()
        try:
            self._lanes.submit(self._infer, batch).add_done_callback(lambda _: self._free_lanes.release())
        except HostError:  # no lane can be opened: one photo after the other, then
            self._free_lanes.release()
            self._infer(batch)

    def _infer(self, batch: list[Trip]) -> None:
        for trip in batch:
            trip.lap("wait_infer")
        try:
            alphas = self._engine.infer(
                [trip.proxy for trip in batch if trip.proxy is not None], timeout=self._timeout
            )
        except (EngineOutOfMemory, InputRejected) as error:
            # Said of the batch, but true of one photo or of their number: ask for fewer.
            half = len(batch) // 2
            if half:
                self._infer(batch[:half])
                self._infer(batch[half:])
            elif isinstance(error, EngineOutOfMemory) and self._reduced(batch[0]):
                self._infer(batch)
            elif batch[0].views:
                self._content(batch[0], error)
            else:
                self._fail(batch[0], error, "infer")
        except BaseException as error:  # noqa: BLE001  (crosses a thread)
            for trip in batch:
                self._fail(trip, error, "infer")
        else:
            for trip, alpha in zip(batch, alphas, strict=True):
                trip.lap("infer")
                self._hand_on(self._finishers, trip, self._go_on, alpha)

    def _reduced(self, trip: Trip) -> bool:
        """Give `trip` a smaller proxy, and say so in its sidecar; False at the smallest."""
        assert trip.frame is not None
        assert trip.proxy is not None
        old, proxy = trip.proxy, self._step_down(trip.proxy)
        if proxy is None:
            return False
        words = (
            f"the engine ran out of memory at {old.shape[1]} x {old.shape[0]}; "
            f"the alpha was computed at {proxy.shape[1]} x {proxy.shape[0]}"
        )
        trip.proxy = proxy
        trip.reduced = True
        trip.frame = replace(trip.frame, warnings=(*trip.frame.warnings, words))
        return True

    def _content(self, trip: Trip, error: WatcherError) -> None:
        """A further look failed: what the engine said before is an answer, too."""
        assert trip.frame is not None
        words = f"the engine looked {len(trip.views)} time(s) at the photo; one look more failed: {error}"
        trip.reduced = True
        trip.frame = replace(trip.frame, warnings=(*trip.frame.warnings, words))
        self._hand_on(self._finishers, trip, self._conclude)

    def _go_on(self, trip: Trip, alpha: Values) -> None:
        """To another look, or to the end."""
        trip.lap("wait_finish")
        frame = trip.frame
        assert frame is not None
        try:
            trip.views.append(View(trip.look or Look.whole((alpha.shape[1], alpha.shape[0])), alpha))
            trip.look = self._work.next_look(frame, trip.views)
            trip.proxy = None if trip.look is None else self._work.show(frame, trip.look)
        except BaseException as error:  # noqa: BLE001  (crosses a thread)
            self._fail(trip, error, "finish")
            return
        trip.lap("look")
        if trip.look is None:
            self._conclude(trip)
        else:
            self._decoded.put(trip)

    def _conclude(self, trip: Trip) -> None:
        """Everything is said: keep it. What the engine could do only in part is not kept."""
        try:
            trip.answer = self._work.conclude(trip.views)
            if trip.key is not None and not trip.reduced:
                self._work.keep(trip.key, trip.answer)
        except BaseException as error:  # noqa: BLE001  (crosses a thread)
            self._fail(trip, error, "finish")
            return
        trip.lap("look")
        self._pass_on(trip)
        self._finish(trip)

    def _finish(self, trip: Trip) -> None:
        assert trip.frame is not None
        assert trip.answer is not None
        try:
            rendered = self._work.render(trip.frame, trip.answer, timings=trip.timings)
        except BaseException as error:  # noqa: BLE001  (crosses a thread)
            self._fail(trip, error, "finish")
            return
        trip.since = time.perf_counter()  # rendering says itself what it took
        trip.let_go()
        self._give_back(trip, keep=trip.pixels // ENCODED)
        self._hand_on(self._deliverers, trip, self._deliver, rendered)

    def _deliver(self, trip: Trip, rendered: Any) -> None:
        trip.lap("wait_publish")
        try:
            outcome = self._work.deliver(rendered, timings=trip.timings)
        except BaseException as error:  # noqa: BLE001  (crosses a thread)
            self._fail(trip, error, "finish")
        else:
            self._resolve(trip, outcome)

    def _fail(self, trip: Trip, error: BaseException, stage: str) -> None:
        if isinstance(error, OSError):
            # No file is at fault where descriptors have run out, wherever that was.
            error = host_error(error, f"{stage} a photo") or error
        if isinstance(error, WatcherError):
            error.stage = stage
        self._resolve(trip, error)

    def _resolve(self, trip: Trip, end: Outcome | BaseException) -> None:
        del self._trips[trip.job]
        self._pass_on(trip)
        trip.let_go()
        self._give_back(trip, keep=0)
        if isinstance(end, BaseException):
            trip.result.set_exception(end)
        else:
            trip.result.set_result(end)

    def _give_back(self, trip: Trip, *, keep: int) -> None:
        """All pixels it holds but for `keep`."""
        self._budget.give_back(trip.pixels - keep)
        trip.pixels = keep
