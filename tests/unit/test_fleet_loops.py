"""The loops of a lane whose engines are elsewhere: one that dies is missed by whoever watches over them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from watcher.engine.card import load_card
from watcher.fleet.remote import Fleet, RemoteRunner
from watcher.fleet.roster import Roster
from watcher.fleet.shares import Shares
from watcher.fleet_settings import STATE, Queue
from watcher.pulse import Vigil

CARDS = Path(__file__).parents[2] / "config" / "models"
NOBODY = "redis://127.0.0.1:1"
LATER = 3600.0


@pytest.fixture
def lane(tmp_path):
    """A lane without a broker, on a share of its own."""
    runners = []

    def begin():
        fleet = Fleet("watcher", Queue(url=NOBODY), NOBODY, Shares({"nas": tmp_path}), lambda _: True)
        runners.append(RemoteRunner(fleet, load_card("modnet", [CARDS]), {}))
        return runners[-1]

    yield begin
    for runner in runners:
        runner.close()


def test_loops_that_look_for_their_broker_live_and_end_on_purpose(lane, eventually):
    runner = lane()
    eventually(lambda: all(pulse.due for pulse in runner.pulses()))
    assert Vigil().hung(runner.pulses(), time.monotonic() + LATER) == {}
    runner.close()
    assert [pulse.due for pulse in runner.pulses()] == [None, None, None]


def test_a_share_on_which_nothing_can_be_put_ends_no_loop(lane, tmp_path, eventually):
    (tmp_path / STATE).write_text("a file in the place of our folder")
    runner = lane()
    eventually(lambda: runner._state.told)
    assert Vigil().hung(runner.pulses(), time.monotonic() + LATER) == {}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_an_error_ends_is_missed(lane, eventually, monkeypatch):
    def look(self, now):
        raise OSError("nobody thought of that")

    monkeypatch.setattr(Roster, "look", look)
    runner = lane()
    eventually(lambda: all(pulse.due for pulse in runner.pulses()))

    def missed():
        found = Vigil().hung(runner.pulses(), time.monotonic() + LATER)
        return {pulse.name: why for pulse, why in found.items()}

    eventually(lambda: missed() == {"fleet-mind": "its thread has ended"})
