"""A GPU of a known speed, simulated: how much of its time it computes while photos wait for it.

Decoding and refining are left out, so that there is always work: what remains is the way from the
runner to the worker and back, which is what may keep a GPU waiting.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from benchmarks.service import CARDS, FAKE
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import children, cpu_seconds
from watcher.domain import Frame, Job, Metadata, Outcome, Review, Source, Stamp
from watcher.engine.card import card_folders, load_card
from watcher.engine.crew import Crew
from watcher.engine.launch import Launch, prepare
from watcher.pipeline.batch import Batcher
from watcher.pipeline.budget import PixelBudget
from watcher.pipeline.looks import Answer, Look, View
from watcher.pipeline.runner import Proxy, Runner

TITLE = "A simulated GPU"
# (height, width) of the proxy of a 1920x1080 photo.
PROXY = 512, 896
LATENCIES_MS = (2.0, 5.0, 20.0)
IN_FLIGHT = 32
NOWHERE = Path("none")


class _Ready:
    """Work whose photos are decoded already and need nothing afterwards."""

    def __init__(self) -> None:
        self._pixels = np.random.default_rng(0).integers(0, 256, (*PROXY, 3)).astype(np.uint8)

    def decode(self, job: Job, *, reserve: Callable[[int], None]) -> Frame:
        reserve(self._pixels.size)
        return Frame(job, NOWHERE, self._pixels, None, None, Metadata(), self._pixels, "", "jpeg")

    def key(self, frame: Frame) -> None:
        """No two are alike."""

    def next_look(self, frame: Frame, views: Sequence[View]) -> Look | None:
        return None

    def show(self, frame: Frame, look: Look) -> Proxy:
        raise NotImplementedError("one look is enough")

    def conclude(self, views: Sequence[View]) -> Answer:
        return Answer(views[0].alpha, disagree=False)

    def find(self, key: str) -> Answer | None:
        return None

    def keep(self, key: str, answer: Answer) -> None:
        raise NotImplementedError("nothing has a key")

    def share(self, answer: Answer) -> Answer:
        raise NotImplementedError("nothing has a key")

    def render(self, frame: Frame, answer: Answer, *, timings: dict[str, float]) -> Job:
        return frame.job

    def deliver(self, rendered: Job, *, timings: dict[str, float]) -> Outcome:
        return Outcome(rendered, (), NOWHERE, Review(0.0, 0.0, ()), timings)


def run(setting: Setting) -> list[Table]:
    count = setting.count(500, quick=30)
    rows: list[tuple[Cell, ...]] = []
    with setting.folder("gpu") as folder:
        for latency_ms in LATENCIES_MS:
            for batch, workers in ((1, 1), (1, 2), (8, 1), (8, 2)):
                found = _through(folder / "gpu", count, latency_ms / 1000, batch, workers)
                rows.append((latency_ms, batch, workers, *found))
    columns = (
        "ms an image",
        "in batches of",
        "workers",
        "images a second",
        "the model's own ceiling",
        "computing, % of the time",
        "between two batches, mean ms",
        "CPU ms an image",
    )
    notes = (
        (
            f"The fake engine holds a lock that long, which its workers share; {count} images of"
            f" {PROXY[1]}x{PROXY[0]}, {IN_FLIGHT} in flight."
        ),
        "CPU is that of both sides of the conversation. Between two batches the GPU has nothing to do.",
        "What a driver adds is not in it: see the real one.",
    )
    return [Table(TITLE, columns, tuple(rows), notes)]


def _through(gpu: Path, count: int, latency: float, batch: int, workers: int) -> tuple[Cell, ...]:
    card = load_card(FAKE, card_folders(CARDS)).model_copy(
        update={
            "latency_s": latency * batch,
            "max_batch": batch,
            "max_batch_cpu": batch,
            "options": {"gpu": str(gpu)},
        }
    )
    wall, used = through(prepare(card, None), count, batch, workers, card.max_delay_ms / 1000)
    busy = 100 * count * latency / wall
    return (
        count / wall,
        1 / latency,
        busy,
        1000 * (wall - count * latency) * batch / count,
        1000 * used / count,
    )


def through(
    launch: Launch, count: int, batch: int, workers: int, max_delay: float, in_flight: int = IN_FLIGHT
) -> tuple[float, float]:
    """Seconds, and CPU seconds of both sides, for `count` proxies by so many workers, in batches of up to `batch`."""
    crew = Crew(launch, wanted=lambda _: workers)
    crew.start()
    runner = Runner(
        _Ready(),
        crew,
        Batcher(batch, max_delay),
        threads=2,
        lanes=crew.size,
        budget=PixelBudget(10**12),
        timeout=60.0,
    )
    try:
        jobs = _jobs()
        _feed(runner, jobs, in_flight, in_flight)
        pids = children(os.getpid())
        cpu = time.process_time() + sum(map(cpu_seconds, pids))
        began = time.perf_counter()
        _feed(runner, jobs, count, in_flight)
        wall = time.perf_counter() - began
        used = time.process_time() + sum(map(cpu_seconds, pids)) - cpu
    finally:
        runner.close()
        crew.close()
    return wall, used


def _jobs() -> Iterator[Job]:
    for number in itertools.count(1):
        yield Job(number, Source("hot", f"{number}.jpg", Stamp(number, number)), attempts=1, fence=1)


def _feed(runner: Runner, jobs: Iterator[Job], count: int, in_flight: int) -> None:
    """Put `count` jobs through, with `in_flight` of them under way."""
    running: deque[Future[Outcome]] = deque()
    for job in itertools.islice(jobs, count):
        running.append(runner.submit(job))
        if len(running) == in_flight:
            running.popleft().result()
    for future in running:
        future.result()
