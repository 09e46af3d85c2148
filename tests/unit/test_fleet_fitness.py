"""Nodes that get no work, and photos that nobody can do, are told in words."""

from __future__ import annotations

import logging

import pytest

from watcher import __version__
from watcher.fleet.fitness import Vacancy, unfit
from watcher.fleet.messages import PROTOCOL

FIT = {"hotmatte": __version__, "protocol": PROTOCOL, "models": {"modnet": "abc"}}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({**FIT, "models": {"modnet": "xyz"}}, "its model card modnet differs"),
        ({**FIT, "models": {"u2netp": "abc"}}, "it has no model modnet"),
        ({**FIT, "models": {}}, "it has no model modnet"),
        ({**FIT, "hotmatte": "9.1.0"}, "node gpu1 runs hotmatte 9.1.0"),
        ({**FIT, "trouble": "the broker amqp://desk: it does not let us in"}, "it does not let us in"),
        ({}, "node gpu1 runs hotmatte None"),
    ],
)
def test_why_a_node_gets_no_work_is_told_in_words(said, words):
    assert words in (unfit("gpu1", said, model="modnet", card="abc") or "")


def test_one_that_gets_work_is_not_complained_of():
    assert unfit("gpu1", FIT, model="modnet", card="abc") is None


def test_photos_that_no_node_can_do_are_told_of_once_and_so_is_the_end_of_it(caplog):
    caplog.set_level(logging.INFO)
    vacancy = Vacancy("modnet", patience=15.0)
    other = {"x": {**FIT, "models": {"u2netp": "abc"}}}

    def look(now: float, living: dict, out: int = 3) -> list[str]:
        caplog.clear()
        vacancy.look(living, card="abc", out=out, now=now)
        return [record.getMessage() for record in caplog.records]

    assert look(0.0, {}, out=0) == look(100.0, {}) == look(114.0, {}) == []
    [words] = look(115.0, {})
    assert "no node can do modnet, for which 3 photos wait" in words
    assert look(200.0, {}) == look(300.0, other) == []
    assert "is there again" in look(301.0, {**other, "y": FIT})[0]
    assert look(302.0, {"y": FIT}) == look(303.0, other) == look(317.0, other) == []
    assert "no node can do" in look(318.0, other)[0]


def test_nobody_is_missed_while_nothing_waits(caplog):
    vacancy = Vacancy("modnet", patience=15.0)
    for now, out in ((0.0, 1), (10.0, 0), (20.0, 1), (34.0, 1)):
        vacancy.look({}, card="abc", out=out, now=now)
    assert caplog.records == []
