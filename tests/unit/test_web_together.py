"""Threads that ask at the same time share one call, and each gets his own answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from watcher.web.together import Together


def test_those_who_come_while_one_is_served_are_served_together() -> None:
    lists: list[list[int]] = []
    inside, go = threading.Event(), threading.Event()

    def many(numbers: list[int]) -> list[int]:
        lists.append(numbers)
        inside.set()
        assert go.wait(60)
        return [number * number for number in numbers]

    square = Together(many)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(square, 2)
        assert inside.wait(60)
        others = [pool.submit(square, number) for number in range(3, 8)]
        while len(square._wishes) < 5:
            threading.Event().wait(0.001)
        go.set()
        assert first.result(60) == 4
        assert [other.result(60) for other in others] == [9, 16, 25, 36, 49]
    assert lists[0] == [2]
    assert sorted(lists[1]) == [3, 4, 5, 6, 7]


def test_a_failure_is_told_to_everybody_and_the_next_one_is_served() -> None:
    def many(numbers: list[int]) -> list[int]:
        if 13 in numbers:
            raise OSError("the disk is full")
        return numbers

    same = Together(many)
    with pytest.raises(OSError, match="disk is full"):
        same(13)
    assert same(14) == 14


def test_nobody_is_forgotten_in_a_crowd() -> None:
    same = Together(lambda numbers: list(numbers))
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(same, range(5000))) == list(range(5000))
