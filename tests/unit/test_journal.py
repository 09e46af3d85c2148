"""What the journal promises beyond its state machine."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from watcher.desk import Desk
from watcher.domain import JobState, Source, Stamp
from watcher.errors import ConfigError, HostError
from watcher.journal import Journal
from watcher.journal_file import JournalCorrupt


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened


def source(name: str = "a.jpg", *, size: int = 1, folder: str = "in") -> Source:
    return Source(folder, name, Stamp(size, 0))


def steps(journal: Journal, work) -> int:
    """How many instructions SQLite's virtual machine runs for `work`: a cost without a clock."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    journal._db.set_progress_handler(tick, 10)
    work()
    journal._db.set_progress_handler(None, 0)
    return count


def claim_cost(journal: Journal) -> int:
    return steps(journal, lambda: journal.claim(["in"], limit=4, now=1.0, lease=60.0))


def test_a_claim_costs_the_same_with_many_waiting_as_with_few(journal):
    journal.admit_many([source(f"{i}.jpg") for i in range(10)])
    few = claim_cost(journal)
    journal.admit_many([source(f"more-{i}.jpg") for i in range(100_000)])
    assert claim_cost(journal) <= few * 1.5 + 10


def test_jobs_that_must_wait_do_not_make_a_claim_dearer(journal):
    journal.admit_many([source(f"{i}.jpg") for i in range(2_000)])
    for job in journal.claim(["in"], limit=2_000, now=1.0, lease=60.0):
        journal.retry(job, not_before=1e12, charge=True)
    journal.admit_many([source(f"new-{i}.jpg") for i in range(4)])
    assert claim_cost(journal) < 100
    assert journal.claim(["in"], limit=4, now=1.0, lease=60.0) == []


def test_a_name_that_is_not_utf8_comes_back_as_it_was(journal):
    name = "sub/f\udcffoo.jpg"
    assert journal.admit(source(name))
    assert journal.claim(["in"], limit=1, now=1.0, lease=60.0)[0].source.relpath == name
    assert list(journal.known("in")) == [name]


def test_a_newer_version_replaces_a_waiting_one(journal):
    journal.admit(source(size=1))
    journal.admit(source(size=2))
    claimed = journal.claim(["in"], limit=9, now=1.0, lease=60.0)
    assert [job.source.stamp.size for job in claimed] == [2]


def test_of_two_versions_that_both_wait_the_newer_goes_first_and_alone(journal):
    """The older one comes back from a holder that died, after the newer one was admitted."""
    journal.admit(source(size=1))
    (older,) = journal.claim(["in"], limit=1, now=1.0, lease=1.0)
    journal.admit(source(size=2))
    assert journal.reap(now=9.0) == 1
    (newer,) = journal.claim(["in"], limit=4, now=9.0, lease=60.0)
    assert newer.source.stamp.size == 2
    assert journal.claim(["in"], limit=4, now=9.0, lease=60.0) == []
    # Where the newer one has to wait, the older one need not: it is put aside when it is read.
    assert journal.retry(newer, not_before=100.0, charge=True)
    (again,) = journal.claim(["in"], limit=4, now=9.0, lease=60.0)
    assert (again.id, again.attempts) == (older.id, 2)


def test_several_ends_are_one_transaction_and_a_lost_claim_among_them_changes_nothing(journal):
    journal.admit_many([source("a.jpg"), source("b.jpg")])
    one, lost = journal.claim(["in"], limit=2, now=1.0, lease=60.0)
    journal.retry(lost, not_before=0.0, charge=False)
    [again] = journal.claim(["in"], limit=1, now=1.0, lease=60.0)
    assert journal.finish_many([(one, "{}"), (lost, "{}")]) == [True, False]
    assert journal.counts() == {"in": {"done": 1, "running": 1}}
    assert journal.finish(again, "{}")


def test_an_archived_photo_dropped_again_is_new_work(journal):
    journal.admit(source())
    [job] = journal.claim(["in"], limit=1, now=1.0, lease=60.0)
    journal.finish(job, "{}")
    assert not journal.admit(source())
    journal.mark_gone("in", ["a.jpg"])
    assert journal.admit(source())


def test_only_present_failures_are_listed_and_can_be_retried(journal):
    journal.admit_many([source("a.jpg"), source("b.jpg")])
    for job in journal.claim(["in"], limit=2, now=1.0, lease=60.0):
        journal.quarantine(job, "because")
    journal.mark_gone("in", ["a.jpg"])
    [failed] = journal.records(JobState.QUARANTINED)
    assert (failed.job.source.relpath, failed.outcome) == ("b.jpg", "because")
    assert journal.requeue([failed.job.id])[0].attempts == 0
    assert journal.find("in", "b.jpg").state is JobState.QUEUED


def test_a_clock_set_back_does_not_make_a_retry_wait_for_ever(journal):
    journal.admit(source())
    [job] = journal.claim(["in"], limit=1, now=1e9, lease=60.0)
    journal.retry(job, not_before=1e9 + 5, charge=True)
    assert journal.mend_clock(now=1.0, longest=300.0) == 1
    assert journal.next_due(["in"]) == 301.0


@pytest.mark.parametrize("was_retired", [True, False])
def test_what_a_daemon_did_before_whoever_put_it_there_said_so_stays_done(journal, was_retired):
    journal.admit(source())
    [job] = journal.claim(["in"], limit=1, now=1e9, lease=60.0)
    journal.finish(job, "{}")
    if was_retired:
        journal.mark_gone("in", ["a.jpg"])
    assert journal.admit_placed([source(), source("b.jpg")]) == [False, True]
    assert journal.find("in", "a.jpg").state is JobState.DONE
    assert journal.find("in", "b.jpg").state is JobState.QUEUED


def test_what_waits_is_counted_but_not_where_somebody_paused(journal):
    journal.admit_many(
        [source(f"{n}.jpg", folder=folder) for folder in ("in", "on", "off") for n in range(3)]
    )
    journal.claim(["in"], limit=1, now=1e9, lease=60.0)
    Desk(journal).hold("on")
    assert journal.waiting(["in", "on"]) == 2


def test_a_journal_from_the_future_is_refused(tmp_path):
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="newer"):
        Journal(path)


def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"holiday photos" * 1000)
    with pytest.raises(JournalCorrupt, match="not a database"):
        Journal(path)
    assert path.read_bytes().startswith(b"holiday photos")


def test_a_disk_that_refuses_is_the_machines_fault(tmp_path):
    with pytest.raises(HostError, match="cannot open the journal"):
        Journal(tmp_path / "missing" / "journal.sqlite")


def test_writing_is_durable_before_it_is_said(journal):
    assert journal._read("PRAGMA synchronous") == [(2,)]
    assert journal._read("PRAGMA journal_mode") == [("wal",)]


def test_the_half_of_a_pair_that_is_passed_over_is_known_and_never_claimed(journal):
    journal.pass_over(source("a.cr2"), "a.jpg")
    assert journal.known("in") == {"a.cr2": (source("a.cr2").stamp, JobState.DONE)}
    assert journal.claim(["in"], limit=9, now=1.0, lease=60.0) == []
    assert not journal.admit(source("a.cr2"))
    assert json.loads(journal.find("in", "a.cr2").outcome) == {"companion_of": "a.jpg"}
    assert journal.versions("in", ["a.cr2"]) == []


def test_versions_that_are_gone_are_remembered_for_their_other_half(journal):
    journal.admit(source("a.jpg"))
    [job] = journal.claim(["in"], limit=1, now=1.0, lease=60.0)
    journal.finish(job, "{}")
    journal.mark_gone("in", ["a.jpg"])
    assert journal.versions("in", ["a.jpg", "a.JPG"]) == [("a.jpg", source("a.jpg").stamp)]


def test_a_half_that_was_passed_over_and_has_changed_is_new_work(journal):
    journal.pass_over(source("a.cr2", size=1), "a.jpg")
    assert journal.admit(source("a.cr2", size=2))
    [job] = journal.claim(["in"], limit=9, now=1.0, lease=60.0)
    assert job.source.stamp.size == 2


def test_what_was_passed_over_is_forgotten_when_its_other_half_goes_without_a_result(journal):
    for name in ("done", "bad", "waiting", "bad.more"):
        journal.admit_many([source(f"{name}.jpg")])
        if name != "waiting":
            [job] = journal.claim(["in"], limit=1, now=100.0, lease=60.0)
            if name == "done":
                journal.finish_many([(job, "{}")])
            else:
                journal.quarantine(job, "{}")
        journal.pass_over(source(f"{name}.cr2"), f"{name}.jpg")
    gone = ["done.jpg", "bad.jpg", "waiting.jpg"]
    journal.mark_gone("in", gone)
    assert journal.free_companions("in", gone) == ["bad.cr2", "waiting.cr2"]
    assert journal.free_companions("in", gone) == []
    assert journal.halves_waited_for("in") == ["bad.more.jpg", "done.jpg"]
    assert {"done.cr2", "bad.more.cr2"} <= journal.known("in").keys()
    assert journal.known("in").keys().isdisjoint({"bad.cr2", "waiting.cr2"})


@pytest.mark.parametrize("raw", ["a.cr2", "A.CR2", "\udce9.cr2"])
def test_what_was_passed_over_is_freed_when_its_half_fails_or_is_dropped_while_it_runs(journal, raw):
    half = raw.replace("cr2", "jpg").lower()
    journal.admit(source(half))
    journal.pass_over(source(raw), half)
    assert journal.free_companions("in", [half]) == []  # it waits for its turn
    [job] = journal.claim(["in"], limit=1, now=100.0, lease=60.0)
    journal.mark_gone("in", [half])
    assert journal.free_companions("in", [half]) == []  # it may yet be done
    assert not journal.failed("in", half)
    journal.quarantine(job, "{}")
    assert journal.failed("in", half)
    assert journal.free_companions("in", [half]) == [raw]

    journal.pass_over(source(raw), "b.jpg")
    journal.admit(source("b.jpg"))
    [job] = journal.claim(["in"], limit=1, now=100.0, lease=60.0)
    journal.forget(job)
    assert journal.free_companions("in", ["b.jpg"]) == [raw]


DAY_NS = 24 * 3600 * 10**9


def done_and_archived(journal, earlier: Source) -> None:
    journal.admit(earlier)
    [job] = journal.claim(["in"], limit=1, now=100.0, lease=60.0)
    journal.finish(job, '{"outputs": ["a.png"]}')
    journal.mark_gone("in", [earlier.relpath])


@pytest.mark.parametrize("fails", [True, False])
def test_a_result_of_an_earlier_shot_of_the_same_name_is_none_of_this_shot(journal, fails):
    done_and_archived(journal, Source("in", "a.jpg", Stamp(7, -DAY_NS)))
    half = source("a.jpg")
    journal.pass_over(source("a.cr2"), "a.jpg", half.stamp)
    assert journal.other_half(journal.find("in", "a.cr2")) is None  # not settled yet
    journal.admit(half)
    assert journal.other_half(journal.find("in", "a.cr2")).job.source == half
    [job] = journal.claim(["in"], limit=1, now=time.time() + 1.0, lease=60.0)
    if fails:
        journal.quarantine(job, "{}")
    else:
        journal.finish(job, "{}")
        journal.mark_gone("in", ["a.jpg"])
        assert journal.other_half(journal.find("in", "a.cr2")).job.source == half
    assert journal.free_companions("in", ["a.jpg"]) == (["a.cr2"] if fails else [])


def test_an_earlier_shot_of_the_same_name_that_is_being_overwritten_is_none_of_this_shot_either(journal):
    journal.admit(Source("in", "a.jpg", Stamp(7, -DAY_NS)))
    [job] = journal.claim(["in"], limit=1, now=time.time() + 1.0, lease=60.0)
    journal.finish(job, "{}")
    journal.pass_over(source("a.cr2"), "a.jpg", source("a.jpg").stamp)
    journal.admit(source("a.jpg"))
    [job] = journal.claim(["in"], limit=1, now=time.time() + 1.0, lease=60.0)
    journal.quarantine(job, "{}")
    assert journal.free_companions("in", ["a.jpg"]) == ["a.cr2"]


def test_what_was_passed_over_for_a_half_that_was_done_stays_so_whatever_becomes_of_that_half(journal):
    """Times of change that a server made up as files arrived: far apart, and one shot all the same."""
    half = Source("in", "a.jpg", Stamp(7, -DAY_NS))
    journal.admit(half)
    [job] = journal.claim(["in"], limit=1, now=100.0, lease=60.0)
    journal.finish(job, "{}")
    journal.pass_over(source("a.cr2"), "a.jpg", half.stamp)
    journal.mark_gone("in", ["a.jpg"])
    assert journal.free_companions("in", ["a.jpg"]) == []
    assert journal.other_half(journal.find("in", "a.cr2")).job.source == half


def test_a_journal_of_the_second_version_is_taken_over(tmp_path):
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.pass_over(source("a.cr2"), "a.jpg")
    with sqlite3.connect(path) as db:
        db.execute("DROP INDEX job_companion")
        db.execute("PRAGMA user_version = 2")
    db.close()
    with Journal(path) as journal:
        assert journal.free_companions("in", ["a.jpg"]) == ["a.cr2"]


def test_jobs_of_one_very_sub_folder_can_wait_while_the_others_go_on(journal):
    inside = ["a/1.jpg", "a/2.jpg"]
    outside = ["1.jpg", "a.jpg", "a/b/1.jpg", "ab/1.jpg", "a 2/1.jpg", "b/a/1.jpg"]
    journal.admit_many([source(name) for name in (*inside, *outside)])
    journal.admit(Source("other", "a/1.jpg", Stamp(1, 1)))
    journal.postpone(source("a/1.jpg"), until=100.0)
    journal.postpone(source("a/1.jpg"), until=50.0)
    claimed = journal.claim(["in", "other"], limit=99, now=99.0, lease=1.0)
    assert sorted(job.source.relpath for job in claimed) == sorted([*outside, "a/1.jpg"])
    assert {job.source.folder for job in claimed if job.source.relpath == "a/1.jpg"} == {"other"}
    assert {job.source.relpath for job in journal.claim(["in"], limit=99, now=100.0, lease=1.0)} == set(
        inside
    )
