"""The dispatcher with a real journal; only the work itself is played."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from watcher.dispatch import Dispatcher
from watcher.domain import JobState, Outcome, Review, Source, Stamp
from watcher.errors import (
    ConfigError,
    EngineUnavailable,
    HostError,
    InputChanged,
    InputNotReady,
    InputRejected,
    RetryPolicy,
)
from watcher.journal import Journal

QUICK = RetryPolicy(max_attempts=3, base_delay=0.01, max_delay=0.05)


class Play:
    """Runs by script: `script[name]` is a list of endings, the last one repeats; None is success."""

    def __init__(self, script=None) -> None:
        self.script, self.seen, self.held = script or {}, [], {}
        self.together = []
        self.open = set()

    def submit(self, job):
        result: Future[Outcome] = Future()
        name = job.source.relpath
        self.seen.append((name, job.attempts))
        self.open.add(name)
        self.together.append(set(self.open))
        endings = self.script.get(name, [None])
        end = endings.pop(0) if len(endings) > 1 else endings[0]
        if end == "hold":
            self.held[name] = (job, result)
        else:
            threading.Thread(target=self.settle, args=(job, result, end)).start()
        return result

    def release(self, name):
        job, result = self.held.pop(name)
        self.settle(job, result, None)

    def settle(self, job, result, end):
        self.open.discard(job.source.relpath)
        if end is None:
            result.set_result(Outcome(job, (), Path("s"), Review(0.5, 0.1)))
        else:
            result.set_exception(end)


class Ends:
    def __init__(self) -> None:
        self.retired, self.reports = [], {}
        self.error: Exception | None = None
        self.full = 0  # so many reports find no room

    def done(self, outcome):
        if self.error:
            raise self.error
        self.retired.append(outcome.job.source.relpath)

    def quarantined(self, job, failure):
        if self.full:
            self.full -= 1
            raise HostError("disk full")
        self.reports[job.source.relpath] = failure


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "j.sqlite") as opened:
        yield opened


@pytest.fixture
def dispatch(journal):
    started = []

    def start(play, *, folders=("in",), max_in_flight=4, policy=QUICK, **more):
        ends, halted = Ends(), []
        dispatcher = Dispatcher(
            journal,
            play,
            folders,
            ends=ends,
            policy=policy,
            max_in_flight=max_in_flight,
            on_halt=halted.append,
            **more,
        )
        started.append(dispatcher)
        dispatcher.start()
        return dispatcher, ends, halted

    yield start
    for dispatcher in started:
        dispatcher.stop()
        assert dispatcher.join(60)


def admit(journal, *names, folder="in"):
    journal.admit_many([Source(folder, name, Stamp(1, 1)) for name in names])


def states(journal, folder="in"):
    return journal.counts().get(folder, {})


def test_a_clock_set_back_by_an_hour_makes_nobody_wait_for_it(journal, dispatch, eventually, monkeypatch):
    from watcher import dispatch as module

    shift = [0.0]
    clock = SimpleNamespace(time=lambda: time.time() + shift[0], monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", clock)
    policy = RetryPolicy(max_attempts=3, base_delay=0.5, max_delay=1.0)
    admit(journal, "a.jpg")
    play = Play({"a.jpg": [InputNotReady("later"), None]})
    dispatcher, _, _ = dispatch(play, policy=policy)
    eventually(lambda: len(play.seen) == 1 and states(journal) == {"queued": 1})
    shift[0] = -3600.0
    dispatcher.wake()
    eventually(lambda: states(journal) == {"done": 1})


def test_a_clock_set_forward_changes_nothing(journal, dispatch, eventually, monkeypatch):
    from watcher import dispatch as module

    shift = [0.0]
    clock = SimpleNamespace(time=lambda: time.time() + shift[0], monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", clock)
    admit(journal, "held.jpg", "b.jpg")
    play = Play({"held.jpg": ["hold"]})
    dispatcher, _, _ = dispatch(play)
    eventually(lambda: states(journal) == {"running": 1, "done": 1})
    shift[0] = 10 * 86_400.0
    dispatcher.wake()
    admit(journal, "c.jpg")
    dispatcher.wake()
    eventually(lambda: states(journal) == {"running": 1, "done": 2})
    play.release("held.jpg")
    eventually(lambda: states(journal) == {"done": 3})
    assert play.seen.count(("held.jpg", 1)) == 1


def test_a_folder_that_is_closed_keeps_its_jobs_and_its_neighbours_go_on(journal, eventually):
    shut = {"in"}
    play, ends = Play({"stuck.jpg": ["hold"]}), Ends()
    dispatcher = Dispatcher(
        journal,
        play,
        ("in", "out"),
        ends=ends,
        policy=QUICK,
        max_in_flight=1,
        on_halt=lambda error: None,
        is_open=lambda name: name not in shut,
    )
    admit(journal, "stuck.jpg")
    dispatcher.start()
    try:
        admit(journal, "a.jpg", folder="out")
        dispatcher.wake()
        eventually(lambda: states(journal, "out") == {"done": 1})
        assert states(journal) == {"queued": 1}
        shut.clear()
        dispatcher.wake()
        eventually(lambda: states(journal) == {"running": 1})
        # It hangs now, in the only place there is; then its share is found to be dead.
        admit(journal, "b.jpg", folder="out")
        shut.add("in")
        dispatcher.wake()
        eventually(lambda: states(journal, "out") == {"done": 2})
        shut.clear()
        play.release("stuck.jpg")
        eventually(lambda: states(journal) == {"done": 1})
    finally:
        dispatcher.stop()
        assert dispatcher.join(60)


def test_waiting_jobs_are_done_and_then_retired(journal, dispatch, eventually):
    names = [f"{i}.jpg" for i in range(20)]
    admit(journal, *names)
    _, ends, _ = dispatch(Play())
    eventually(lambda: states(journal) == {"done": 20})
    eventually(lambda: sorted(ends.retired) == sorted(names))


def test_no_more_jobs_are_in_flight_than_allowed(journal, dispatch, eventually):
    admit(journal, *[f"{i}.jpg" for i in range(30)])
    play = Play()
    dispatch(play, max_in_flight=3)
    eventually(lambda: states(journal) == {"done": 30})
    assert max(map(len, play.together)) <= 3


@pytest.mark.parametrize(
    ("endings", "state", "tries"),
    [
        ([InputRejected("no")], "quarantined", 1),
        ([InputNotReady("torn")], "quarantined", 3),
        ([InputNotReady("torn"), None], "done", 2),
        ([ZeroDivisionError("bug")], "quarantined", 1),
    ],
)
def test_each_error_ends_as_the_policy_says(journal, dispatch, eventually, endings, state, tries):
    admit(journal, "a.jpg")
    play = Play({"a.jpg": endings})
    _, ends, _ = dispatch(play)
    eventually(lambda: states(journal) == {state: 1})
    assert len(play.seen) == tries
    assert list(ends.reports) == (["a.jpg"] if state == "quarantined" else [])
    if state == "quarantined":
        [record] = journal.records(JobState.QUARANTINED)
        assert set(json.loads(record.outcome)) == {"error", "reason", "remedy"}


def test_a_source_that_changed_is_dropped(journal, dispatch, eventually):
    admit(journal, "a.jpg")
    dispatch(Play({"a.jpg": [InputChanged("other")]}))
    eventually(lambda: states(journal) == {})


def test_a_full_disk_pauses_one_folder_and_charges_nobody(journal, dispatch, eventually):
    admit(journal, "a.jpg", folder="full")
    admit(journal, "b.jpg", folder="fine")
    slow = RetryPolicy(max_attempts=3, base_delay=0.3, max_delay=0.3)
    play = Play({"a.jpg": [HostError("disk full"), HostError("disk full"), None]})
    dispatcher, _, _ = dispatch(play, folders=("full", "fine"), policy=slow)
    eventually(lambda: states(journal, "fine") == {"done": 1})
    eventually(lambda: "full" in dispatcher.status().pauses)
    assert states(journal, "full") == {"queued": 1}
    eventually(lambda: states(journal, "full") == {"done": 1})
    assert [attempts for name, attempts in play.seen if name == "a.jpg"] == [1, 1, 1]
    assert dispatcher.status().pauses == {}


def test_nobody_is_quarantined_without_a_report(journal, dispatch, eventually):
    play = Play({"a.jpg": [InputRejected("no")]})
    _, ends, _ = dispatch(play)
    ends.full = 2
    admit(journal, "a.jpg")
    eventually(lambda: states(journal) == {"quarantined": 1})
    assert list(ends.reports) == ["a.jpg"]
    # Nothing is charged for the disk.
    assert play.seen == [("a.jpg", 1)] * 3


def test_an_engine_that_is_away_pauses_every_folder_of_its_lane(journal, dispatch, eventually):
    admit(journal, "a.jpg", folder="one")
    slow = RetryPolicy(base_delay=60.0)
    dispatcher, _, _ = dispatch(
        Play({"a.jpg": [EngineUnavailable("no")]}), folders=("one", "two"), policy=slow
    )
    eventually(lambda: dispatcher.status().pauses)
    admit(journal, "b.jpg", folder="two")
    dispatcher.wake()
    assert states(journal, "two") == {"queued": 1}
    dispatcher.resume()


def test_a_wrong_configuration_halts(journal, dispatch, eventually):
    admit(journal, "a.jpg")
    _, _, halted = dispatch(Play({"a.jpg": [ConfigError(["no"])]}), policy=RetryPolicy(base_delay=60.0))
    assert eventually(lambda: halted)


def test_a_file_that_kills_the_daemon_travels_alone_and_is_given_up(journal, dispatch, eventually):
    admit(journal, "a.jpg", "poison.jpg", "b.jpg")
    for _ in range(2):
        journal.claim(["in"], limit=3, now=1e12, lease=-1)
        journal.reap(now=2e12)
    play = Play()
    dispatcher, _, _ = dispatch(play)
    eventually(lambda: states(journal) == {"done": 3})
    assert max(map(len, play.together)) == 1
    dispatcher.stop()
    assert dispatcher.join(60)
    admit(journal, "worse.jpg")
    for _ in range(3):
        journal.claim(["in"], limit=3, now=1e12, lease=-1)
        journal.reap(now=2e12)
    _, ends, _ = dispatch(Play())
    eventually(lambda: states(journal).get("quarantined") == 1)
    assert "died 3 times" in ends.reports["worse.jpg"].reason


def test_a_folder_with_a_backlog_does_not_starve_its_neighbour(journal, dispatch, eventually):
    admit(journal, *[f"{i}.jpg" for i in range(200)], folder="big")
    admit(journal, "small.jpg", folder="small")
    play = Play()
    dispatch(play, folders=("big", "small"), max_in_flight=2)
    eventually(lambda: states(journal, "small") == {"done": 1})
    assert [name for name, _ in play.seen].index("small.jpg") < 20
    eventually(lambda: states(journal, "big") == {"done": 200}, timeout=30)


def test_stopping_claims_nothing_more_and_waits_for_what_runs(journal, dispatch, eventually):
    admit(journal, "a.jpg", "b.jpg")
    play = Play({"a.jpg": ["hold"]})
    dispatcher, _, _ = dispatch(play, max_in_flight=1)
    eventually(lambda: "a.jpg" in play.held)
    dispatcher.stop()
    assert not dispatcher.join(0.1)
    play.release("a.jpg")
    assert dispatcher.join(60)
    assert states(journal) == {"done": 1, "queued": 1}


def test_a_source_that_cannot_be_retired_is_done_all_the_same(journal, dispatch, eventually):
    admit(journal, "a.jpg")
    play = Play({"a.jpg": ["hold"]})
    _, ends, _ = dispatch(play)
    ends.error = HostError("archive full")
    eventually(lambda: "a.jpg" in play.held)
    play.release("a.jpg")
    eventually(lambda: states(journal) == {"done": 1})


def test_a_journal_that_refuses_stops_the_work_and_loses_no_result(
    journal, dispatch, eventually, monkeypatch
):
    admit(journal, "a.jpg", "b.jpg")
    full = threading.Event()
    really = Journal.finish_many

    def finish(self, ended):
        if full.is_set():
            raise HostError("cannot write the journal: disk full")
        return really(self, ended)

    monkeypatch.setattr(Journal, "finish_many", finish)
    full.set()
    play = Play()
    dispatcher, _, _ = dispatch(play, max_in_flight=1)
    eventually(lambda: dispatcher.status().pauses)
    full.clear()
    eventually(lambda: states(journal) == {"done": 2}, timeout=15)
    assert [name for name, _ in play.seen] == ["a.jpg", "b.jpg"]


def test_a_folder_with_a_higher_priority_goes_first(journal, dispatch, eventually):
    admit(journal, *[f"{i}.jpg" for i in range(4)], folder="slow")
    admit(journal, *[f"{i}.jpg" for i in range(4)], folder="fast")
    play = Play()
    seen = []
    submit = play.submit
    play.submit = lambda job: (seen.append(job.source.folder), submit(job))[1]
    dispatch(play, folders=("slow", "fast"), max_in_flight=1, priority={"fast": 5})
    eventually(lambda: len(seen) == 8)
    assert seen == ["fast"] * 4 + ["slow"] * 4
    eventually(lambda: states(journal, "slow") == {"done": 4})


def test_where_others_compute_a_death_of_the_daemon_makes_nobody_suspect(journal, dispatch, eventually):
    admit(journal, "a.jpg", "b.jpg")
    for _ in range(5):
        journal.claim(["in"], limit=2, now=1e12, lease=-1)
        journal.reap(now=2e12)
    play = Play({"a.jpg": ["hold"], "b.jpg": ["hold"]})
    dispatch(play, blames=False)
    eventually(lambda: len(play.held) == 2)
    play.release("a.jpg")
    play.release("b.jpg")
    eventually(lambda: states(journal) == {"done": 2})


def test_what_ends_while_the_disk_syncs_is_recorded_in_one_transaction(
    journal, dispatch, eventually, monkeypatch
):
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    admit(journal, *names)
    synced, sizes, really = threading.Event(), [], Journal.finish_many

    def finish(self, ended):
        sizes.append(len(ended))
        assert synced.wait(10)
        return really(self, ended)

    monkeypatch.setattr(Journal, "finish_many", finish)
    play = Play({name: ["hold"] for name in names[:3]} | {"d.jpg": [InputRejected("torn")]})
    dispatcher, ends, _ = dispatch(play)
    eventually(lambda: len(play.held) == 3 and states(journal).get("quarantined") == 1)
    play.release("a.jpg")
    eventually(lambda: sizes == [1])
    play.release("b.jpg")
    play.release("c.jpg")
    synced.set()
    eventually(lambda: states(journal) == {"done": 3, "quarantined": 1})
    assert sizes == [1, 2]
    eventually(lambda: ends.retired == names[:3] and dispatcher.status().done == 3)


def test_whoever_was_passed_over_for_a_photo_hears_that_no_result_will_come_of_it(
    journal, dispatch, eventually
):
    lost = []
    script = {"bad": [InputRejected("x")], "gone": [InputChanged("x")], "late": [InputNotReady("x"), None]}
    admit(journal, *script, "good")
    dispatch(Play(script), on_lost=lambda source: lost.append(source.relpath))
    eventually(lambda: states(journal) == {"done": 2, "quarantined": 1})
    eventually(lambda: sorted(lost) == ["bad", "gone"])
