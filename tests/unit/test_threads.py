"""The kernel may refuse a thread; what was handed to others is done, or it is said that it is not."""

from __future__ import annotations

import errno
import os
import threading
import time

import pytest

from watcher import threads
from watcher.errors import HostError
from watcher.threads import Team


@pytest.fixture
def allowed(monkeypatch):
    """`allowed(n)`: so many more threads may be started."""
    left = [10**6]
    start = threading.Thread.start

    def refusing(thread: threading.Thread) -> None:
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    return lambda count: left.__setitem__(0, count)


def test_those_that_there_are_do_what_no_further_thread_can_be_started_for(allowed):
    team = Team(3, "test")
    allowed(1)
    team.open()
    futures = [team.submit(lambda number: (number, threading.get_ident()), number) for number in range(20)]
    done = [future.result(20) for future in futures]
    assert [number for number, _ in done] == list(range(20))
    assert len({who for _, who in done}) == 1
    team.shutdown()


def test_where_nobody_is_there_it_is_said_and_nothing_is_done_later(allowed):
    team, done = Team(3, "test"), []
    allowed(0)
    for attempt in (team.open, lambda: team.submit(done.append, 1)):
        with pytest.raises(HostError, match=r"cannot start a thread \(test\)") as caught:
            attempt()
        assert "TasksMax" in caught.value.remedy
    allowed(5)
    assert team.submit(done.append, 2).result(20) is None
    team.shutdown()
    assert done == [2], "what was refused has been tried again by whoever heard of it"


def test_a_team_tells_what_went_wrong_and_goes_on():
    team = Team(1, "test")

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        team.submit(fails).result(20)
    assert team.submit(max, 3, 4).result(20) == 4
    team.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        team.submit(max, 3, 4)


def test_a_single_thread_that_cannot_be_started_is_the_machine_s_fault(allowed):
    allowed(0)
    with pytest.raises(HostError, match=r"cannot start a thread \(loop\)"):
        threads.start(threading.Thread(target=time.time, name="loop"))


def test_only_a_fork_that_was_refused_is_about_tasks():
    full = threads.fork_refused(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "reads photos")
    assert full is not None and "cannot start a process that reads photos" in str(full)
    assert threads.fork_refused(FileNotFoundError(errno.ENOENT, "no"), "reads photos") is None
