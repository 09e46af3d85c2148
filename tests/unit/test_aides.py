"""A pool of processes: who waits, who gets one, and what happens where none can be started."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from watcher.errors import HostError
from watcher.pipeline.aides import Aide, Aides


class Fake:
    """As much of an Aide as the pool touches."""

    def __init__(self, idle_s: float) -> None:
        self.keeps = idle_s == 0

    def close(self) -> int:
        return 0


class Factory:
    def __init__(self) -> None:
        self.made: list[Fake] = []
        self.refuses = False

    def __call__(self, idle_s: float) -> Aide:
        if self.refuses:
            raise HostError("no more processes")
        self.made.append(Fake(idle_s))
        return cast(Aide, self.made[-1])


def test_who_cannot_have_one_more_waits_for_those_that_there_are():
    factory = Factory()
    pool = Aides(factory, idle_s=1.0, patience=0.0)
    first = pool.borrow()
    factory.refuses = True
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(pool.borrow)
        with pytest.raises(TimeoutError):
            second.result(0.2)
        pool.give_back(first)
        assert second.result(20) is first
    assert len(factory.made) == 1


def test_without_any_it_is_said():
    factory = Factory()
    pool = Aides(factory, idle_s=1.0, patience=0.0)
    first = pool.borrow()
    factory.refuses = True
    with pytest.raises(HostError, match="no more processes"):
        pool.replace(first)  # dead, and there is none for its seat
    with pytest.raises(HostError, match="no more processes"):
        pool.borrow()
    factory.refuses = False
    assert pool.borrow() is factory.made[-1], "it is tried again at once: nobody else could do the work"


def test_whoever_waits_for_one_that_died_starts_another():
    factory = Factory()
    pool = Aides(factory, idle_s=1.0, patience=60.0, most=1)
    first = pool.borrow()
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(pool.borrow)
        with pytest.raises(TimeoutError):
            second.result(0.2)
        factory.refuses = True
        with pytest.raises(HostError):
            pool.replace(first)
        # It need not wait for somebody who will not come.
        with pytest.raises(HostError):
            second.result(20)
        factory.refuses = False
        assert pool.borrow() is factory.made[-1]


def test_many_at_one_time_share_at_most_so_many():
    factory = Factory()
    pool = Aides(factory, idle_s=1.0, patience=0.0, most=3)
    held, most, lock = [0], [0], threading.Lock()

    def work(_: int) -> None:
        aide = pool.borrow()
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        threading.Event().wait(0.002)
        with lock:
            held[0] -= 1
        pool.give_back(aide)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(200)))
    assert most[0] <= 3 and len(factory.made) <= 3
