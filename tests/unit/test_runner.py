"""The stages with real threads and an engine made of arithmetic."""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from watcher.bounds import in_flight, pixels_in_flight, renderers
from watcher.config import Settings
from watcher.domain import EngineAbout, Frame, Job, Metadata, Outcome, Review, Source, Stamp
from watcher.engine.card import card_folders, load_card
from watcher.engine.crew import Crew
from watcher.engine.launch import prepare
from watcher.errors import EngineCrashed, EngineOutOfMemory, InputRejected
from watcher.pipeline.batch import Batcher
from watcher.pipeline.budget import PixelBudget
from watcher.pipeline.looks import Answer, Look
from watcher.pipeline.runner import Runner
from watcher.pipeline.scale import step_down


def job(id_: int, attempts: int = 1) -> Job:
    return Job(id_, Source("in", f"{id_}.jpg", Stamp(1, 1)), attempts, 1)


class Work:
    """Decodes a job to a grey square whose level is its id; remembers the most pixels held at once."""

    def __init__(self, budget: PixelBudget, pixels: int = 16) -> None:
        self.budget, self.pixels, self.most = budget, pixels, 0
        self.looks: dict[int, tuple[int, ...]] = {}
        self.seen: dict[int, list[tuple[int, int]]] = {}
        self.lock = threading.Lock()
        self.kept: dict[str, Answer] = {}
        self.same: set[int] = set()  # jobs that are one photo

    def decode(self, job, *, reserve):
        if job.id == 13:
            raise InputRejected("unlucky")
        reserve(self.pixels)
        with self.lock:
            self.most = max(self.most, self.budget.held)
        pixels = np.full((4, 4, 3), job.id, np.uint8)
        return Frame(job, Path("a"), pixels, None, None, Metadata(), pixels, "", "jpeg")

    def next_look(self, frame, views):
        with self.lock:
            self.seen[frame.job.id] = [view.alpha.shape for view in views]
        wanted = self.looks.get(frame.job.id, ())
        return Look.whole((wanted[len(views) - 1],) * 2) if len(views) <= len(wanted) else None

    def show(self, frame, look):
        return np.full((*look.size, 3), frame.job.id, np.uint8)

    def conclude(self, views):
        return Answer(views[-1].alpha, False)

    def key(self, frame):
        return "same" if frame.job.id in self.same else None

    def find(self, key):
        known = self.kept.get(key)
        return None if known is None else replace(known, cached=True)

    def keep(self, key, answer):
        self.kept[key] = answer

    def share(self, answer):
        return replace(answer, cached=True)

    def render(self, frame, answer, *, timings):
        return frame, answer

    def deliver(self, rendered, *, timings):
        frame, answer = rendered
        if frame.job.id == 17:
            raise ZeroDivisionError
        alpha = answer.alpha
        assert alpha[0, 0] == frame.job.id or frame.job.id in self.same
        review = Review(float(alpha.mean()), 0.0)
        return Outcome(frame.job, (), Path("s"), review, dict(timings), frame.warnings, answer.cached)


class Engine:
    """Answers with the level of each proxy; `fits` bounds the batch, `crash` and `refuse` name a poison."""

    def __init__(self, fits: int = 99, crash: int = -1, refuse: int = -1) -> None:
        self.fits, self.crash, self.refuse, self.batches = fits, crash, refuse, []

    def infer(self, proxies, *, timeout):
        levels = [int(proxy[0, 0, 0]) for proxy in proxies]
        self.batches.append(levels)
        if self.crash in levels:
            raise EngineCrashed("poison")
        if self.refuse in levels:
            raise InputRejected("no person")
        if len(proxies) > self.fits:
            raise EngineOutOfMemory("too many")
        return [
            np.full(proxy.shape[:2], level, np.float32) for proxy, level in zip(proxies, levels, strict=True)
        ]


@pytest.fixture
def build():
    runners = []

    def make(engine, *, budget=PixelBudget(10**9), max_batch=1, pixels=16):  # noqa: B008
        work = Work(budget, pixels)
        runner = Runner(work, engine, Batcher(max_batch, 0.05), threads=3, budget=budget, timeout=9)
        runners.append(runner)
        return runner, work

    yield make
    for runner in runners:
        runner.close()


def test_company_are_those_that_the_engine_may_have_to_look_at_yet(build):
    told: list[int] = []
    goes_on = threading.Event()

    class Counting(Engine):
        def infer(self, proxies, *, timeout):
            assert goes_on.wait(60)
            told.append(runner.company())
            return super().infer(proxies, timeout=timeout)

    runner, _ = build(Counting())
    assert runner.company() == 0
    results = [runner.submit(job(id_)) for id_ in (1, 2, 13)]
    assert isinstance(results[2].exception(30), InputRejected)
    goes_on.set()
    for result in results[:2]:
        assert result.result(30)
    # Not the one that could not be read, nor those that have their answer.
    assert told[0] == 2
    assert runner.company() == 0


def test_each_job_comes_back_with_its_own_alpha_and_timings(build):
    runner, _ = build(Engine(), max_batch=3)
    for id_, result in [(i, runner.submit(job(i))) for i in range(1, 11)]:
        outcome = result.result(60)
        assert outcome.review.coverage == id_
        assert {"decode", "infer", "wait_infer"} <= set(outcome.timings)


def test_a_job_that_fails_does_not_disturb_its_neighbours(build):
    runner, _ = build(Engine(), max_batch=2)
    results = {i: runner.submit(job(i)) for i in range(11, 19)}
    assert isinstance(results.pop(13).exception(5), InputRejected)
    assert isinstance(results.pop(17).exception(5), ZeroDivisionError)
    assert all(result.exception(5) is None for result in results.values())


@pytest.mark.parametrize("max_batch", [1, 2])
def test_nobody_holds_the_pixels_of_a_photo_that_is_done(build, max_batch):
    """A stage with nothing to do waits for hours: it must not keep the last photo in memory meanwhile."""
    runner, work = build(Engine(), max_batch=max_batch)
    pixels: list[weakref.ref[np.ndarray]] = []
    decode = work.decode

    def seen(job, *, reserve):
        frame = decode(job, reserve=reserve)
        pixels.append(weakref.ref(frame.pixels))
        return frame

    work.decode = seen
    for result in [runner.submit(job(i)) for i in (1, 2, 3)]:
        result.result(60)
    deadline = time.monotonic() + 30
    while any(photo() is not None for photo in pixels):
        assert time.monotonic() < deadline, "still held"
        time.sleep(0.01)
    assert len(pixels) == 3


def test_out_of_memory_halves_the_batch_until_it_fits(build):
    engine = Engine(fits=1)
    runner, _ = build(engine, max_batch=4)
    results = [runner.submit(job(i)) for i in range(1, 5)]
    assert [r.result(60).job.id for r in results] == [1, 2, 3, 4]
    assert max(map(len, engine.batches)) == 4


def test_what_does_not_fit_alone_is_said_to_not_fit(build):
    runner, _ = build(Engine(fits=0))
    assert isinstance(runner.submit(job(1)).exception(5), EngineOutOfMemory)


def test_a_photo_the_engine_refuses_does_not_take_its_batch_along(build):
    engine = Engine(refuse=2)
    runner, _ = build(engine, max_batch=3)
    results = {i: runner.submit(job(i)) for i in (1, 2, 3)}
    assert [i for i, result in results.items() if result.exception(5)] == [2]
    assert isinstance(results[2].exception(5), InputRejected)
    assert len(engine.batches[0]) == 3


def test_each_frame_is_looked_at_as_often_as_it_wants_and_in_company_where_sizes_agree(build):
    engine = Engine()
    runner, work = build(engine, max_batch=2)
    work.looks = {1: (8, 16), 2: (8,), 4: (16,)}
    results = [runner.submit(job(i)) for i in (1, 2, 3, 4)]
    assert all(result.exception(5) is None for result in results)
    assert work.seen == {
        1: [(4, 4), (8, 8), (16, 16)],
        2: [(4, 4), (8, 8)],
        3: [(4, 4)],
        4: [(4, 4), (16, 16)],
    }
    assert sorted(level for batch in engine.batches for level in batch) == [1, 1, 1, 2, 2, 3, 4, 4]
    assert max(map(len, engine.batches)) == 2


def test_a_further_look_that_does_not_fit_leaves_what_was_seen_before(build):
    class Narrow(Engine):
        def infer(self, proxies, *, timeout):
            if proxies[0].shape[0] > 8:
                raise EngineOutOfMemory("no")
            return super().infer(proxies, timeout=timeout)

    runner, work = build(Narrow())
    work.looks = {1: (8, 16)}
    outcome = runner.submit(job(1)).result(60)
    assert work.seen[1] == [(4, 4), (8, 8)]
    assert outcome.warnings == ("the engine looked 2 time(s) at the photo; one look more failed: no",)


def test_out_of_memory_alone_reduces_the_proxy_in_steps_and_says_so():
    """Real steps, from 24 megapixels to what fits; an engine that takes 3 megapixels at most."""
    shapes = []

    class Small:
        def infer(self, proxies, *, timeout):
            shapes.extend(proxy.shape[:2] for proxy in proxies)
            if proxies[0].shape[0] * proxies[0].shape[1] > 3_000_000:
                raise EngineOutOfMemory("no")
            return [np.zeros(proxy.shape[:2], np.float32) for proxy in proxies]

    class Large(Work):
        def decode(self, job, *, reserve):
            frame = super().decode(job, reserve=reserve)
            return replace(frame, proxy=np.zeros((4000, 6000, 3), np.uint8))

        def deliver(self, rendered, *, timings):
            frame, answer = rendered
            assert answer.alpha.shape == shapes[-1]
            return Outcome(frame.job, (), Path("s"), Review(0.0, 0.0), {}, frame.warnings)

    budget = PixelBudget(10**9)
    step = partial(step_down, multiple=32)
    runner = Runner(
        Large(budget), Small(), Batcher(1, 0.05), threads=1, budget=budget, timeout=9, step_down=step
    )
    try:
        outcome = runner.submit(job(1)).result(20)
    finally:
        runner.close()
    assert shapes[0] == (4000, 6000)
    assert len(outcome.warnings) == len(shapes) - 1 >= 2
    assert "6000 x 4000" in outcome.warnings[0]
    pixels = [height * width for height, width in shapes]
    assert pixels == sorted(pixels, reverse=True)
    assert pixels[-1] > 1_500_000


@pytest.mark.parametrize("size", [(1080, 1920), (8, 8), (1, 100_000), (30_000, 64)])
def test_a_proxy_of_1080p_is_not_reduced_further(size):
    assert step_down(np.zeros((*size, 3), np.uint8), multiple=32) is None


def test_a_crash_fails_the_whole_batch_and_suspects_travel_alone_next_time(build):
    engine = Engine(crash=2)
    runner, _ = build(engine, max_batch=3)
    first = [runner.submit(job(i)) for i in (1, 2, 3)]
    assert all(isinstance(r.exception(5), EngineCrashed) for r in first)
    second = {i: runner.submit(job(i, attempts=2)) for i in (1, 2, 3)}
    assert [i for i, r in second.items() if r.exception(5)] == [2]
    assert sorted(engine.batches[1:]) == [[1], [2], [3]]


def test_pixels_in_flight_stay_within_the_budget(build):
    budget = PixelBudget(100)
    runner, work = build(Engine(), budget=budget, pixels=40)
    results = [runner.submit(job(i)) for i in range(20, 40)]
    assert all(result.exception(10) is None for result in results)
    assert 40 <= work.most <= 100
    assert budget.held == 0


def test_a_photo_larger_than_the_budget_goes_alone(build):
    budget = PixelBudget(100)
    runner, work = build(Engine(), budget=budget, pixels=5000)
    results = [runner.submit(job(i)) for i in range(20, 26)]
    assert all(result.exception(10) is None for result in results)
    assert work.most == 5000


def test_as_many_batches_are_in_the_engine_as_there_are_lanes():
    class Pairs(Engine):
        """Answers nobody before two have asked."""

        def __init__(self):
            super().__init__()
            self.both = threading.Barrier(2)

        def infer(self, proxies, *, timeout):
            self.both.wait(60)
            return super().infer(proxies, timeout=timeout)

    budget = PixelBudget(10**9)
    runner = Runner(Work(budget), Pairs(), Batcher(1, 0.05), threads=3, budget=budget, timeout=9, lanes=2)
    results = [runner.submit(job(id_)) for id_ in range(1, 9)]
    runner.close()
    assert [result.result().review.coverage for result in results] == list(range(1, 9))


def test_a_lonely_photo_waits_no_longer_for_company_than_its_card_says():
    """On the clock of the test: the batcher is asked exactly when its deadline has come."""
    batcher = Batcher(8, 0.005)
    frame = Work(PixelBudget(100)).decode(job(1), reserve=lambda _: None)
    assert batcher.add(frame, now=100.0) == []
    assert batcher.next_deadline() == 100.005
    assert batcher.pop_overdue(100.0049) == []
    assert batcher.pop_overdue(batcher.next_deadline()) == [[frame]]
    assert batcher.next_deadline() is None


def test_unless_it_is_set_as_many_are_in_flight_as_keep_threads_and_workers_busy():
    card = load_card("modnet", card_folders(None)).model_copy(update={"max_batch_cpu": 4})
    crew = Crew(prepare(card.model_copy(update={"weights": None}), None))  # not started: a CPU, one worker
    folders = {"in": {"path": "/hot", "output": "/mattes"}}
    free = Settings.model_validate({"folders": folders, "limits": {"threads": 3}})
    assert in_flight(card, crew, free) == 3 + 4 + 2 * 4, "one a thread, of four that publish as well"
    many = Settings.model_validate({"folders": folders, "limits": {"threads": 16}})
    assert in_flight(card, crew, many) == 2 * 16 + 2 * 4
    chosen = Settings.model_validate({"folders": folders, "limits": {"threads": 3, "max_in_flight": 5}})
    assert in_flight(card, crew, chosen) == 5


def test_pixels_in_flight_follow_threads_and_memory_where_they_are_left_open():
    def megapixels(free_mb, **limits):
        folders = {"in": {"path": "/hot", "output": "/mattes"}}
        settings = Settings.model_validate({"folders": folders, "limits": limits})
        return pixels_in_flight(settings, available=lambda: free_mb) / 1e6

    assert megapixels(64_000, threads=16) == 480
    assert megapixels(None, threads=16) == 480
    assert megapixels(8_000, threads=16) == 200, "no more than a quarter of what is free"
    assert megapixels(1_000, threads=2) == 120, "fewer would leave cores idle"
    assert megapixels(64_000, threads=16, max_in_flight_mp=50) == 50


def test_photos_are_rendered_in_processes_where_a_gpu_leaves_many_cores_to_it():
    def count(device, *, free_mb=64_000, **limits):
        folders = {"in": {"path": "/hot", "output": "/mattes"}}
        settings = Settings.model_validate({"folders": folders, "limits": limits})
        about = device and EngineAbout("m", "onnx", "onnxruntime", device, None)
        crew = cast(Crew, SimpleNamespace(about=about))
        return renderers(settings, crew, available=lambda: free_mb)

    assert count("cuda:0", threads=16) == 16
    assert count("cuda:0", threads=16, free_mb=None) == 16
    assert count("cuda:0", threads=16, free_mb=5_000) == 0, "they would take half of what is free and more"
    assert count("cuda:0", threads=4) == 0, "so few do not wait long for each other"
    assert count("cpu", threads=16) == count(None, threads=16) == 0, "the engine needs the cores"
    assert count("cpu", threads=3, rendering="processes", free_mb=100) == 3, "who asks for it gets it"
    assert count("cuda:0", threads=16, rendering="threads") == 0


# --- The same photo again ------------------------------------------------------------------


def test_the_same_photo_is_computed_once_although_it_comes_four_times_together(build):
    class Slow(Engine):
        def infer(self, proxies, *, timeout):
            together.wait(60)
            return super().infer(proxies, timeout=timeout)

    engine, together = Slow(), threading.Event()
    runner, work = build(engine)
    work.same = {1, 2, 3, 4}
    results = [runner.submit(job(i)) for i in (1, 2, 3, 4)]
    together.set()
    outcomes = [result.result(60) for result in results]
    assert len(engine.batches) == 1
    assert [outcome.cached for outcome in outcomes].count(False) == 1
    assert len({outcome.review.coverage for outcome in outcomes}) == 1
    assert runner.submit(job(2)).result(60).cached
    assert len(engine.batches) == 1
    assert "infer" not in outcomes[0].timings or not outcomes[0].cached


def test_an_engine_that_fails_on_the_first_is_asked_again_for_those_who_waited(build):
    class Once(Engine):
        def infer(self, proxies, *, timeout):
            go.wait(60)
            if not self.batches:
                self.batches.append([])
                raise EngineCrashed("once")
            return super().infer(proxies, timeout=timeout)

    engine, go = Once(), threading.Event()
    runner, work = build(engine)
    work.same = {1, 2, 3, 4}
    results = [runner.submit(job(i)) for i in (1, 2, 3, 4)]
    go.set()
    ends = [result.exception(5) for result in results]
    assert [type(end) for end in ends].count(EngineCrashed) == 1
    assert len(engine.batches) == 2


def test_an_answer_that_the_engine_could_give_only_in_part_is_not_kept(build):
    class Narrow(Engine):
        def infer(self, proxies, *, timeout):
            if proxies[0].shape[0] > 8:
                raise EngineOutOfMemory("no")
            return super().infer(proxies, timeout=timeout)

    runner, work = build(Narrow())
    work.same, work.looks = {1}, {1: (8, 16)}
    assert not runner.submit(job(1)).result(60).cached
    assert work.kept == {}


def test_photos_that_are_one_do_not_hold_up_others_where_memory_is_short(build):
    """Whoever waits for an answer holds its pixels: the one it waits for must not need more."""
    budget = PixelBudget(100)
    runner, work = build(Engine(), budget=budget, pixels=40)
    work.same = set(range(20, 40, 2))
    results = [runner.submit(job(i)) for i in range(20, 40)]
    assert all(result.exception(10) is None for result in results)
    assert budget.held == 0


def test_memory_is_given_back_only_while_there_is_nothing_to_do(monkeypatch):
    monkeypatch.setattr("watcher.pipeline.runner.TICK", 0.01)
    budget, rests, held = PixelBudget(10**9), [], threading.Event()

    class Slow(Engine):
        def infer(self, proxies, *, timeout):
            assert held.wait(20)
            return super().infer(proxies, timeout=timeout)

    runner = Runner(
        Work(budget),
        Slow(),
        Batcher(1, 0.05),
        threads=1,
        budget=budget,
        timeout=9,
        lanes=2,
        on_rest=lambda: rests.append(len(runner._trips)),
    )
    try:
        done = runner.submit(job(1))
        time.sleep(0.1)
        before = len(rests)
        time.sleep(0.1)
        assert len(rests) == before
        held.set()
        done.result(20)
        deadline = time.monotonic() + 20
        while len(rests) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        runner.close()
    assert len(rests) >= before + 3
    assert set(rests) == {0}


def test_a_slow_disk_holds_up_nobody_who_computes():
    """Photos are looked at and rendered while others are published; what waits for the disk holds a quarter of its pixels."""
    budget, free, rendered = PixelBudget(10**9), threading.Event(), []

    class ToASlowDisk(Work):
        def render(self, frame, answer, *, timings):
            rendered.append(frame.job.id)
            return super().render(frame, answer, timings=timings)

        def deliver(self, rendered, *, timings):
            assert free.wait(20)
            return super().deliver(rendered, timings=timings)

    work = ToASlowDisk(budget, pixels=100)
    work.looks = {number: (8, 6) for number in range(1, 6)}
    runner = Runner(
        work, Engine(), Batcher(1, 0.05), threads=1, deliverers=2, budget=budget, timeout=9, apart=True
    )
    try:
        done = [runner.submit(job(number)) for number in range(1, 6)]
        deadline = time.monotonic() + 20
        while (len(rendered) < 5 or budget.held > 125) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sorted(rendered) == [1, 2, 3, 4, 5]
        assert budget.held == 5 * 25
        assert not any(one.done() for one in done)
        assert len([pulse for pulse in runner.pulses() if pulse.name.startswith("publish")]) == 2
        free.set()
        outcomes = [one.result(20) for one in done]
    finally:
        free.set()
        runner.close()
    assert budget.held == 0
    assert all(outcome.timings["wait_publish"] > 0 for outcome in outcomes)
