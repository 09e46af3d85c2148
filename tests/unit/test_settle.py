from __future__ import annotations

import itertools
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from watcher.domain import Stamp
from watcher.intake.settle import LONGEST_PAUSE_S, Settler

QUIET = 3.0
GIVE_UP = 20.0


def _settler() -> Settler:
    return Settler(QUIET, give_up=GIVE_UP)


def _said(ripe):
    return [(item.relpath, item.stamp) for item in ripe]


def test_an_unchanged_stamp_does_not_restart_the_wait():
    settler = _settler()
    for now in (0.0, 1.0, 2.0, 2.9):
        settler.note("a.jpg", Stamp(10, 1), now)
    assert settler.pop_ripe(2.99) == []
    assert _said(settler.pop_ripe(3.0)) == [("a.jpg", Stamp(10, 1))]


def test_a_growing_file_is_never_ripe():
    settler = _settler()
    for second in range(10_000):
        settler.note("a.jpg", Stamp(second, second), float(second))
        assert settler.pop_ripe(float(second)) == []
    assert settler.oldest() == ("a.jpg", 0.0, "")


def test_a_file_that_vanished_is_never_ripe():
    settler = _settler()
    settler.note("a.jpg", Stamp(1, 1), 0.0)
    settler.note("a.jpg", None, 1.0)
    assert settler.next_deadline() is None
    assert settler.oldest() is None
    assert settler.pop_ripe(100.0) == []


def test_a_name_that_is_not_utf8_settles_like_any_other():
    settler = _settler()
    settler.note("caf\udce9.jpg", Stamp(1, 1), 0.0)
    assert _said(settler.pop_ripe(QUIET)) == [("caf\udce9.jpg", Stamp(1, 1))]


def test_a_file_without_its_end_is_looked_at_ever_more_rarely_and_let_go_when_overdue():
    settler, now, looks = Settler(1.0, give_up=600.0), 0.0, []
    settler.note("a.jpg", Stamp(1, 1), now)
    while True:
        now = settler.next_deadline()
        (ripe,) = settler.pop_ripe(now)
        looks.append(now)
        if ripe.overdue:
            break
        settler.put_back(ripe, ripe.stamp, now)
    assert looks[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert max(later - sooner for sooner, later in itertools.pairwise(looks)) <= LONGEST_PAUSE_S
    assert looks[-1] == 600.0
    assert ripe.first_seen == 0.0


def test_whoever_asks_is_told_why_a_quiet_file_waits_until_it_changes_again():
    settler = _settler()
    settler.note("a.jpg", Stamp(1, 1), 0.0)
    (ripe,) = settler.pop_ripe(3.0)
    settler.put_back(ripe, ripe.stamp, 3.0, "its end is missing")
    assert settler.oldest() == ("a.jpg", 0.0, "its end is missing")
    settler.note("a.jpg", Stamp(2, 2), 4.0)
    assert settler.oldest() == ("a.jpg", 0.0, "")


def test_a_file_without_its_end_that_grows_waits_anew_but_stays_known_since_the_beginning():
    settler = _settler()
    settler.note("a.jpg", Stamp(1, 1), 0.0)
    (ripe,) = settler.pop_ripe(3.0)
    settler.put_back(ripe, Stamp(2, 2), 19.0)
    assert settler.oldest() == ("a.jpg", 0.0, "")
    assert settler.next_deadline() == 22.0
    (ripe,) = settler.pop_ripe(22.0)
    assert not ripe.overdue


def test_a_change_shortens_a_long_pause():
    settler = Settler(1.0, give_up=600.0)
    settler.note("a.jpg", Stamp(1, 1), 0.0)
    for _ in range(8):
        (ripe,) = settler.pop_ripe(settler.next_deadline())
        settler.put_back(ripe, ripe.stamp, ripe.since + 100.0)
    settler.note("a.jpg", Stamp(2, 2), 101.0)
    assert settler.next_deadline() == 102.0


def cost(waiting: int) -> int:
    """Function calls, those into C included, that a hundred looks at so many waiting files take."""
    settler = _settler()
    for number in range(waiting):
        settler.note(f"{number}.jpg", Stamp(1, number), float(number) / 1000)
    calls = 0

    def count(frame, what, argument):
        nonlocal calls
        calls += what in ("call", "c_call")

    sys.setprofile(count)
    try:
        for _ in range(100):
            settler.next_deadline()
            settler.pop_ripe(-1.0)
            settler.oldest()
    finally:
        sys.setprofile(None)
    return calls


def test_a_look_at_many_waiting_files_costs_the_same_as_at_few():
    assert cost(20_000) <= cost(20)


STEP = st.tuples(
    st.floats(0, 4),
    st.sampled_from(["a.jpg", "b.jpg", "c/d.jpg"]),
    st.one_of(st.none(), st.integers(0, 2)),
    st.sampled_from(["admit", "incomplete", "changed"]),
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=60))
def test_ripe_means_quiet_and_is_said_once(steps):
    """Model: a table kept by hand, of when each path was first seen, last changed, and is due."""
    settler, now, model = _settler(), 0.0, {}
    for delay, name, size, fate in steps:
        now += delay
        stamp = None if size is None else Stamp(size, size)
        _model_note(model, name, stamp, now)
        settler.note(name, stamp, now)
        expected = {path for path, row in model.items() if row["due"] <= now}
        ripe = settler.pop_ripe(now)
        assert {item.relpath for item in ripe} == expected
        assert len(ripe) == len(expected)
        for item in ripe:
            row = model.pop(item.relpath)
            assert (item.stamp, item.first_seen) == (row["stamp"], row["first"])
            assert item.overdue == (now - row["since"] >= GIVE_UP)
            _model_fate(model, settler, item, row, fate, now)
        assert len(settler) == len(model)
        assert settler.next_deadline() == min((row["due"] for row in model.values()), default=None)
        oldest = settler.oldest()
        assert (oldest and oldest[1]) == min((row["first"] for row in model.values()), default=None)
        assert oldest is None or oldest[0] in model


def _model_note(model, name, stamp, now):
    if stamp is None:
        model.pop(name, None)
    elif name not in model:
        model[name] = {"stamp": stamp, "first": now, "since": now, "due": now + QUIET, "pauses": 0}
    elif model[name]["stamp"] != stamp:
        model[name].update(stamp=stamp, since=now, due=now + QUIET, pauses=0)


def _model_fate(model, settler, item, row, fate, now):
    if fate == "changed":
        stamp = Stamp(row["stamp"].size + 100, 0)
        settler.put_back(item, stamp, now)
        model[item.relpath] = {**row, "stamp": stamp, "since": now, "due": now + QUIET, "pauses": 0}
    elif fate == "incomplete":
        settler.put_back(item, item.stamp, now)
        pause = min(60.0, QUIET * 2 ** row["pauses"])
        end = row["since"] + GIVE_UP
        due = end if now < end < now + pause else now + pause
        model[item.relpath] = {**row, "due": due, "pauses": row["pauses"] + 1}


def test_what_kept_a_file_may_be_over_before_its_pause_is():
    settler = _settler()
    settler.note("a.jpg", Stamp(1, 1), 0.0)
    [ripe] = settler.pop_ripe(QUIET)
    settler.put_back(ripe, ripe.stamp, QUIET)
    settler.hasten("a.jpg", QUIET + 0.01)
    settler.hasten("unknown.jpg", QUIET + 0.01)
    assert [item.relpath for item in settler.pop_ripe(QUIET + 0.01)] == ["a.jpg"]
