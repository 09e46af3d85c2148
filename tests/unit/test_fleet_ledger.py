"""Which jobs are sent again, and that each ends once."""

from __future__ import annotations

import random
import threading

import pytest

from watcher.domain import Job, Source, Stamp
from watcher.fleet.brokers import Patience
from watcher.fleet.roster import BEAT_S, Roster, clear_torn, fall_silent, tell
from watcher.fleet.sending import SETTLING_S, Ledger, Pending


def pending(number: int) -> Pending:
    return Pending(Job(number, Source("in", f"{number}.jpg", Stamp(1, 1)), 1, 1))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(resend_after=60.0)


def sent(ledger: Ledger, *numbers: int, now: float = 0.0) -> list[Pending]:
    jobs = [pending(number) for number in numbers]
    for job in jobs:
        ledger.add(job)
        ledger.sent(job, now=now, generation=ledger.generation)
    return jobs


def again(ledger: Ledger, now: float, *, held: set[int] = frozenset(), idle: bool = False) -> list[int]:
    return [job.job.id for job in ledger.to_resend(set(held), now, idle=idle)]


def test_a_long_queue_is_no_reason_to_send_anything_again(ledger: Ledger) -> None:
    sent(ledger, 1, 2, 3)
    assert again(ledger, 1e6) == []


def test_a_job_that_was_overtaken_and_that_nobody_holds_is_sent_again(ledger: Ledger) -> None:
    sent(ledger, 1, 2, 3)
    ledger.answered(2)
    assert again(ledger, 59.0) == []
    assert again(ledger, 61.0) == [1]
    assert again(ledger, 1e6) == []  # counts as unsent until it is sent


def test_what_a_living_node_holds_is_left_to_it_however_slow_it_is(ledger: Ledger) -> None:
    sent(ledger, 1, 2, 3)
    ledger.answered(3)
    assert again(ledger, 1e6, held={1, 2}) == []
    assert again(ledger, 1e6, held={2}) == [1]


def test_where_a_node_has_room_nothing_can_be_waiting(ledger: Ledger) -> None:
    sent(ledger, 1)
    assert again(ledger, 61.0) == []
    assert again(ledger, 61.0, idle=True) == [1]


def test_a_broker_that_came_back_may_have_forgotten_everything(ledger: Ledger) -> None:
    sent(ledger, 1, 2)
    ledger.lost()
    assert again(ledger, 1e6) == []  # sending is pointless meanwhile
    ledger.regained(100.0)
    assert again(ledger, 100.0 + SETTLING_S / 2) == []  # nodes have not yet said what they hold
    assert again(ledger, 101.0 + SETTLING_S, held={2}) == [1]


def test_a_job_ends_once() -> None:
    ledger = Ledger(resend_after=60.0)
    [job] = sent(ledger, 1)
    assert [ledger.take(job), ledger.take(job)] == [True, False]
    assert ledger.answered(1) is None


def test_a_new_claim_is_not_taken_for_the_old_one(ledger: Ledger) -> None:
    [old] = sent(ledger, 1)
    [new] = sent(ledger, 1)
    assert not ledger.take(old)
    assert ledger.take(new)


def test_whatever_is_lost_everything_is_answered_in_the_end() -> None:
    """A queue that loses a third of what goes through it, nodes that die with another third."""
    chance = random.Random(8)
    ledger, queue, now = Ledger(resend_after=60.0), [], 0.0
    for job in (pending(number) for number in range(200)):
        ledger.add(job)
        ledger.sent(job, now=now, generation=0)
        queue.append(job)
    ends: list[int] = []
    while len(ledger) and now < 1e5:
        now += 10.0
        for _ in range(min(20, len(queue))):
            job = queue.pop(0)
            if chance.random() < 0.33:
                ledger.answered(job.job.id)
                if ledger.take(job):
                    ends.append(job.job.id)
        for job in ledger.to_resend(set(), now, idle=not queue):
            ledger.sent(job, now=now, generation=0)
            queue.append(job)
    assert sorted(ends) == list(range(200))


# --- Who is there --------------------------------------------------------------------------


def test_a_node_lives_while_its_file_changes_whatever_its_clock_says(tmp_path) -> None:
    roster = Roster([tmp_path], lost_after=15.0)
    said = {"state": "working", "models": {"m": "c"}, "capacity": 2, "holds": [["w", 7]], "beat": 1}
    tell(tmp_path, "a", said)
    roster.look(100.0)
    assert roster.alive(100.0) == {}  # the file may be a year old
    tell(tmp_path, "a", {**said, "beat": 2})
    roster.look(100.0 + BEAT_S)
    assert roster.held("w", 110.0) == {7}
    assert roster.has_room("m", "c", 110.0)
    assert not roster.has_room("m", "other card", 110.0)
    roster.look(116.0)
    assert roster.held("w", 118.0) == set()
    assert [node["state"] for node in roster.snapshot("w", 140.0)] == ["silent"]


def test_a_share_that_is_away_or_a_torn_file_does_not_stop_the_look(tmp_path) -> None:
    roster = Roster([tmp_path / "gone", tmp_path], lost_after=15.0)
    roster.look(0.0)
    tell(tmp_path, "a", {"beat": 1})
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text("[]")
    roster.look(0.0)
    roster.look(1.0)
    assert [(node["node"], node["state"]) for node in roster.snapshot("w", 1.0)] == [
        ("a", "")
    ]  # new, so alive


def test_a_node_removes_what_its_killed_predecessor_left_and_nothing_of_others(tmp_path) -> None:
    for name in (".a.17.tmp", ".a.b.17.tmp", ".ab.17.tmp", ".a.x.tmp"):
        (tmp_path / name).touch()
    tell(tmp_path, "a", {})
    clear_torn(tmp_path, "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".a.b.17.tmp",
        ".a.x.tmp",
        ".ab.17.tmp",
        "a.json",
    ]
    clear_torn(tmp_path / "no share", "a")
    fall_silent(tmp_path, "a")
    assert not (tmp_path / "a.json").exists()


# --- Patience ------------------------------------------------------------------------------


def test_patience_knows_when_things_are_well_again_and_forgets_what_was_told() -> None:
    stopping = threading.Event()
    stopping.set()  # so that nobody really waits
    patience = Patience(stopping)
    assert not patience.well()
    patience.wait()
    patience.told = "away"
    assert patience.well()
    assert not patience.told and not patience.well()
