"""A worker that dies is replaced, one that does not boot is given up: with the real worker process."""

from __future__ import annotations

import threading

import pytest
from moodrig import launch, proxy
from moody import BUG, CRASH, HANG, OOM, REJECT

from watcher.engine.supervisor import Supervisor, pause_before_boot
from watcher.errors import (
    EngineCrashed,
    EngineOutOfMemory,
    EngineTimeout,
    EngineUnavailable,
    InputRejected,
)


@pytest.fixture
def supervise():
    made = []

    def open_(model="", pause=lambda strikes: 0.0, **changes):
        supervisor = Supervisor(launch(model, **changes), pause=pause)
        made.append(supervisor)
        return supervisor

    yield open_
    for supervisor in made:
        supervisor.close()


@pytest.mark.parametrize(
    ("mood", "error"), [(CRASH, EngineCrashed), (HANG, EngineTimeout), (BUG, EngineCrashed)]
)
def test_a_lost_worker_is_replaced_on_the_next_call(supervise, mood, error):
    supervisor = supervise()
    assert supervisor.about is None
    with pytest.raises(error):
        supervisor.infer([proxy(mood)], timeout=0.5)
    assert supervisor.infer([proxy()], timeout=10)
    assert supervisor.restarts == 1
    assert supervisor.about.device == "cpu"


@pytest.mark.parametrize(("mood", "error"), [(OOM, EngineOutOfMemory), (REJECT, InputRejected)])
def test_a_polite_failure_costs_no_worker(supervise, mood, error):
    supervisor = supervise()
    with pytest.raises(error):
        supervisor.infer([proxy(mood)], timeout=10)
    assert supervisor.infer([proxy()], timeout=10)
    assert supervisor.restarts == 0


def test_a_worker_that_died_while_idle_costs_no_file_an_attempt(supervise, eventually):
    supervisor = supervise()
    supervisor.start()
    supervisor._client.kill()
    eventually(lambda: not supervisor._client.alive)
    assert supervisor.infer([proxy()], timeout=10)
    assert supervisor.restarts == 1


def test_three_failed_boots_in_a_row_are_the_end(supervise, tmp_path):
    boots = tmp_path / "boots"
    (tmp_path / "boots.broken").touch()
    supervisor = supervise(f"counted:{boots}")
    for count in (1, 2, 3):
        assert not supervisor.fatal
        with pytest.raises(EngineUnavailable, match="driver broken"):
            supervisor.infer([proxy()], timeout=10)
        assert supervisor.failed_boots == count
    assert supervisor.fatal
    with pytest.raises(EngineUnavailable, match="driver broken"):
        supervisor.start()
    assert boots.read_bytes() == b"..."


def test_a_boot_that_succeeds_forgives_those_that_failed(supervise, tmp_path):
    broken = tmp_path / "boots.broken"
    broken.touch()
    supervisor = supervise(f"counted:{tmp_path / 'boots'}")
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            supervisor.start()
    broken.unlink()
    supervisor.start()
    assert supervisor.failed_boots == 0
    assert supervisor.restarts == 0


def test_close_cuts_a_boot_short(supervise, eventually):
    supervisor = supervise("slow", boot_timeout=3600.0)
    errors = []

    def boot():
        try:
            supervisor.start()
        except EngineUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=boot)
    thread.start()
    eventually(lambda: supervisor._client is not None)
    supervisor.close()
    thread.join(60)  # the boot would take an hour
    assert "shut down" in str(errors[0])
    assert supervisor.failed_boots == 0


def test_close_cuts_the_wait_before_a_boot_short(supervise, eventually):
    supervisor = supervise(pause=lambda strikes: 3600.0)
    with pytest.raises(EngineCrashed):
        supervisor.infer([proxy(CRASH)], timeout=10)

    def wait_for_boot():
        with pytest.raises(EngineUnavailable, match="shut down"):
            supervisor.start()

    thread = threading.Thread(target=wait_for_boot)
    thread.start()
    eventually(supervisor._turn.locked)
    supervisor.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_closed_supervisor_boots_no_more(supervise):
    supervisor = supervise()
    supervisor.start()
    supervisor.close()
    with pytest.raises(EngineUnavailable, match="shut down"):
        supervisor.infer([proxy()], timeout=10)


def test_the_first_replacement_comes_at_once_and_later_ones_wait_longer_but_not_for_ever():
    pauses = [pause_before_boot(strikes) for strikes in range(40)]
    assert pauses[:5] == [0, 0, 0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0
