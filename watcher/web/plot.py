"""Figures as geometry: where each bar of a plot lies. Pure; templates draw them as SVG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from watcher.desk import Bucket

# All kinds of waiting are one colour: what is left is work.
STAGES = ("wait", "decode", "infer", "refine", "encode", "publish")
HEIGHT = 100.0


@dataclass(frozen=True, slots=True)
class Bar:
    """In units of the plot: `HEIGHT` high, y downwards."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Plot:
    """`top` is the value at the upper edge; `width` in the units of its bars."""

    bars: tuple[Bar, ...]
    width: float
    top: float


@dataclass(frozen=True, slots=True)
class StageRow:
    """Milliseconds over the jobs looked at; `share`: of the median work, 0..1."""

    stage: str
    median: float
    p95: float
    share: float


def throughput(buckets: Sequence[Bucket], *, until: float, step: float, count: int) -> Plot:
    """A bar for each of the last `count` steps: done, and on top of it failed."""
    last = math.floor(until / step)
    by_step = {round(bucket.start / step): bucket for bucket in buckets}
    top = nice(max((bucket.done + bucket.failed for bucket in buckets), default=0))
    bars: list[Bar] = []
    for place in range(count):
        bucket = by_step.get(last - count + 1 + place)
        if bucket is None:
            continue
        title = f"{count - 1 - place} min ago: {bucket.done} done, {bucket.failed} failed"
        done, failed = HEIGHT * bucket.done / top, HEIGHT * bucket.failed / top
        bars.append(Bar(place * 10 + 1, HEIGHT - done, 8, done, "done", title))
        if failed:
            bars.append(Bar(place * 10 + 1, HEIGHT - done - failed, 8, failed, "failed", title))
    return Plot(tuple(bars), count * 10.0, top)


def grouped(stages_ms: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds in each of STAGES; what is none of them counts as waiting only if it says so."""
    sums = dict.fromkeys(STAGES, 0.0)
    for stage, spent in stages_ms.items():
        key = "wait" if stage.startswith("wait") else stage
        sums[key] = sums.get(key, 0.0) + spent
    return sums


def columns(jobs: Sequence[tuple[str, Mapping[str, float]]]) -> Plot:
    """A column for each job (name, stages), its stages on top of each other, the oldest on the left."""
    sums = [(name, grouped(stages)) for name, stages in jobs]
    top = nice(max((sum(stages.values()) for _, stages in sums), default=0))
    bars: list[Bar] = []
    for place, (name, stages) in enumerate(sums):
        floor = HEIGHT
        for stage in STAGES:
            height = HEIGHT * stages[stage] / top
            if height > 0:
                floor -= height
                title = f"{name}: {stage} {stages[stage]:.0f} ms of {sum(stages.values()):.0f}"
                bars.append(Bar(place * 10 + 1, floor, 8, height, stage, title))
    return Plot(tuple(bars), max(10.0, len(sums) * 10.0), top)


def stage_rows(jobs: Sequence[Mapping[str, float]]) -> list[StageRow]:
    """Median and 95th percentile of each stage."""
    sums = [grouped(stages) for stages in jobs]
    if not sums:
        return []
    medians = {stage: statistics.median(row[stage] for row in sums) for stage in STAGES}
    whole = max(sum(medians.values()), 1e-9)
    return [
        StageRow(
            stage, medians[stage], _percentile([row[stage] for row in sums], 0.95), medians[stage] / whole
        )
        for stage in STAGES
    ]


def _percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: a value that was there."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def nice(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is not below `value`."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
