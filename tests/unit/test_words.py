"""Words about photos are heard together where many are under way, and at once where few are."""

from __future__ import annotations

import threading
import time

import pytest

from watcher import runs
from watcher.domain import Job, Source, Stamp
from watcher.runs import Word, Words


@pytest.fixture(autouse=True)
def _long_gather(monkeypatch) -> None:
    monkeypatch.setattr(runs, "GATHER_S", 20.0)


def word(number: int) -> Word:
    return Word(Job(number, Source("in", f"{number}.jpg", Stamp(1, 1)), 1, 1), lambda: None)


def heard(words: Words, *, crowded: bool, patience: float = 20.0) -> tuple[list[int], float]:
    began = time.monotonic()
    numbers = [word.job.id for word in words.hear(patience, crowded=crowded)]
    return numbers, time.monotonic() - began


def test_a_lone_word_is_heard_at_once() -> None:
    words = Words(most=40)
    words.say(word(1))
    numbers, took = heard(words, crowded=False)
    assert (numbers, took < 5) == ([1], True)


def test_where_many_are_under_way_the_first_waits_for_others_until_there_are_enough() -> None:
    words = Words(most=40)

    def speak() -> None:
        for number in range(10):
            time.sleep(0.02)
            words.say(word(number))

    speaker = threading.Thread(target=speak)
    speaker.start()
    numbers, took = heard(words, crowded=True)
    speaker.join()
    assert (numbers, took < 15) == (list(range(10)), True)


def test_the_first_waits_no_longer_than_it_may(monkeypatch) -> None:
    monkeypatch.setattr(runs, "GATHER_S", 0.05)
    words = Words(most=40)
    words.say(word(1))
    numbers, took = heard(words, crowded=True)
    assert (numbers, took < 5) == ([1], True)


def test_nobody_waits_once_there_is_a_hurry() -> None:
    words = Words(most=40)
    words.say(word(1))
    threading.Timer(0.1, words.hurry).start()
    numbers, took = heard(words, crowded=True)
    assert (numbers, took < 15) == ([1], True)
    words.say(word(2))
    assert heard(words, crowded=True)[1] < 15


def test_silence_is_heard_as_nothing() -> None:
    assert heard(Words(most=4), crowded=True, patience=0.01)[0] == []
