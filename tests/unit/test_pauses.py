"""What a lane waits for, with clocks of our own."""

from __future__ import annotations

import errno

import pytest

from watcher.domain import Job, Source, Stamp
from watcher.errors import HostError, RetryPolicy, SubfolderClosed
from watcher.pauses import LONGEST, Pauses
from watcher.tally import CROWDED, STUCK_S, Tally


def refusal(number: int) -> HostError:
    try:
        raise HostError("cannot archive a.jpg") from OSError(number, "no")
    except HostError as error:
        return error


@pytest.fixture
def pauses() -> Pauses:
    return Pauses(RetryPolicy(base_delay=2.0, max_delay=300.0))


def test_a_folder_that_fails_waits_longer_each_time_until_something_works(pauses):
    pauses.failed("in", HostError("full"), 0.0)
    pauses.failed("in", HostError("full"), 1.0)  # the same wall
    assert pauses.closed(1.9) == {"in"}
    assert pauses.closed(2.1) == set()
    pauses.failed("in", HostError("full"), 3.0)
    assert pauses.next_end(99.0) == 7.0
    pauses.worked("in")
    assert pauses.report([]) == {}


def test_no_pause_is_longer_than_a_minute(pauses):
    now = 0.0
    for _ in range(12):
        pauses.failed("in", HostError("full"), now)
        now = pauses.next_end(0.0)
    pauses.failed("in", HostError("full"), now)
    assert pauses.next_end(0.0) - now == LONGEST


def test_a_full_archive_pauses_until_a_source_can_go_or_another_try_is_due(pauses):
    pauses.retired("in", refusal(errno.ENOSPC), 0.0)
    assert pauses.is_keeping("in")
    assert pauses.closed(1.0) == {"in"}
    assert "cannot archive" in pauses.report([])["in"].reason
    pauses.worked("in")  # that a matte is done says nothing about the archive
    assert pauses.closed(1.0) == {"in"}
    assert pauses.over(LONGEST - 1) == []
    assert pauses.over(LONGEST + 1) == ["in"]
    assert pauses.over(LONGEST + 1) == []
    pauses.retired("in", refusal(errno.ENOSPC), 100.0)
    pauses.retired("in", None, 101.0)
    assert pauses.report([]) == {}


def test_one_photo_that_cannot_be_moved_does_not_keep_the_others_waiting(pauses):
    pauses.retired("in", refusal(errno.EACCES), 0.0)
    assert pauses.closed(1.0) == set()


def test_a_folder_whose_photos_take_for_ever_to_go_says_so_after_a_while(pauses):
    tally = Tally()
    for number in range(2):
        tally.ending[Job(number, Source("in", f"{number}.jpg", Stamp(1, 1)), 1, 1, 0)] = 0.0
    assert tally.crowded(3) == []
    assert tally.crowded(2) == ["in"]
    assert tally.stuck(2, STUCK_S - 1) == []
    assert pauses.report(tally.stuck(2, STUCK_S + 1)) == {"in": CROWDED}


def test_a_sub_folder_that_refuses_results_is_told_once_and_closes_no_other(pauses, caplog):
    source, other = Source("in", "a/1.jpg", Stamp(1, 1)), Source("in", "b/1.jpg", Stamp(1, 1))
    assert pauses.shut(source, HostError("full"), 0.0) == 0.0
    assert pauses.shut(source, SubfolderClosed("no a"), 0.0) == LONGEST
    assert pauses.shut(source, SubfolderClosed("no a"), LONGEST + 1) == LONGEST
    assert pauses.shut(other, SubfolderClosed("no b"), LONGEST + 1) == LONGEST
    assert pauses.closed(1.0) == set()
    assert [one.reason for one in pauses.shut_in(LONGEST + 2)["in"]] == ["no a", "no b"]
    assert [record.getMessage() for record in caplog.records] == ["waiting: no a", "waiting: no b"]
    # Nothing of it was heard any more: somebody has opened it.
    assert pauses.shut_in(4 * LONGEST) == {}
    pauses.shut(source, SubfolderClosed("no a"), 5 * LONGEST)
    pauses.clear()
    assert pauses.shut_in(5 * LONGEST) == {}
