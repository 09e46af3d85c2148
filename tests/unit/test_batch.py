from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from watcher.domain import Frame, Job, Metadata, Source, Stamp
from watcher.pipeline.batch import Batcher

DELAY = 2.0


def frame(id_: int, *, height: int = 4, width: int = 4, attempts: int = 1) -> Frame:
    job = Job(id_, Source("in", f"{id_}.jpg", Stamp(1, 1)), attempts, 1)
    pixels = np.zeros((height, width, 3), np.uint8)
    return Frame(job, Path("a"), pixels, None, None, Metadata(), pixels, "", "jpeg")


def test_a_suspect_travels_alone_and_at_once():
    batcher = Batcher(max_batch=4, max_delay=DELAY)
    batcher.add(frame(1), 0.0)
    suspect = frame(2, attempts=2)
    assert batcher.add(suspect, 0.0) == [suspect]


def test_a_lonely_frame_waits_no_longer_than_the_card_says():
    batcher = Batcher(max_batch=4, max_delay=DELAY)
    lonely = frame(1)
    assert batcher.add(lonely, 10.0) == []
    assert batcher.next_deadline() == 10.0 + DELAY
    assert batcher.pop_overdue(11.9) == []
    assert batcher.pop_overdue(12.0) == [[lonely]]
    assert batcher.next_deadline() is None


@given(
    max_batch=st.integers(1, 4),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 2), st.booleans()), max_size=40),
)
def test_every_frame_leaves_once_with_its_like_and_in_time(max_batch, steps):
    """Model: a list a shape, cut by hand."""
    batcher, now = Batcher(max_batch, DELAY), 0.0
    model: dict[int, list[tuple[float, Frame]]] = defaultdict(list)
    for id_, (delay, height, suspect) in enumerate(steps):
        now += delay
        late = [[f for _, f in q] for q in model.values() if q and q[0][0] + DELAY <= now]
        assert sorted(map(ids, batcher.pop_overdue(now))) == sorted(map(ids, late))
        for queue in model.values():
            if queue and queue[0][0] + DELAY <= now:
                queue.clear()
        new = frame(id_, height=height, attempts=1 + suspect)
        got = batcher.add(new, now)
        if suspect or max_batch == 1:
            assert got == [new]
            continue
        model[height].append((now, new))
        full = len(model[height]) == max_batch
        assert got == ([f for _, f in model[height]] if full else [])
        if full:
            model[height].clear()


def ids(frames: list[Frame]) -> list[int]:
    return [frame.job.id for frame in frames]
