"""Which messages are worth sending, on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.digest import MOST_NAMES, PATIENCE_S, Digest, Ending, Sight
from watcher.notify_settings import EVENTS

ALL = frozenset(EVENTS)


def sight(waiting: int = 0, **names: set[str]) -> Sight:
    """`names`: what is `away`, `lost`, `stuck` or `held`."""
    return Sight({"in": waiting}, names.pop("away", set()), names.pop("lost", set()), **names)


def done(count: int, folder: str = "in") -> list[Ending]:
    return [Ending(folder, f"{number}.jpg", False) for number in range(count)]


@pytest.fixture
def digest() -> Digest:
    return Digest(every=300, events=ALL)


def texts(digest: Digest, seen: Sight, now: float) -> list[str]:
    return [notice.text for notice in digest.due(seen, now)]


def test_a_folder_is_done_when_nothing_waits_and_that_is_said_once(digest):
    digest.note(done(3))
    assert texts(digest, sight(5), 0) == []
    digest.note(done(5))
    assert texts(digest, sight(0), 2) == ["folder in: 8 photos done, nothing waits"]
    assert texts(digest, sight(0), 1000) == []


def test_one_message_a_folder_in_the_time_however_often_its_queue_runs_empty(digest):
    said = []
    for second in range(600):
        digest.note(done(1))
        said += texts(digest, sight(0), second)
    assert said == ["folder in: 1 photo done, nothing waits", "folder in: 300 photos done, nothing waits"]


def test_failures_are_said_with_their_first_names_also_while_others_wait(digest):
    digest.note([Ending("in", f"day1/{number}.jpg", True) for number in range(8)])
    [notice] = digest.due(sight(100), 0)
    assert notice.text == "folder in: 8 photos failed: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 3 more"
    assert notice.as_json() == {
        "type": "hotmatte.folder",
        "folder": "in",
        "events": ["failed"],
        "done": 0,
        "failed": 8,
        "failed_names": [f"{number}.jpg" for number in range(MOST_NAMES)],
        "text": notice.text,
    }


def test_one_folder_does_not_keep_another_from_being_told_of(digest):
    digest.note(done(1, "in"))
    assert len(digest.due(sight(0), 0)) == 1
    digest.note(done(1, "other"))
    assert texts(digest, sight(0), 1) == ["folder other: 1 photo done, nothing waits"]


def test_offline_is_said_at_once_and_back_when_it_is(digest):
    assert texts(digest, sight(away={"in"}), 0) == ["folder in: is offline"]
    assert texts(digest, sight(away={"in"}), 500) == []
    assert texts(digest, sight(), 900) == ["folder in: is back"]


def test_a_share_that_comes_and_goes_is_no_flood(digest):
    said = []
    for second in range(600):
        said += texts(digest, sight(away={"in"} if second % 7 < 3 else set()), second)
    assert len(said) <= 2


def test_a_folder_whose_disk_is_full_is_told_of_after_a_minute_and_when_it_has_got_on_for_one(digest):
    paused = "folder in: is paused, its photos wait; `hotmatte status` says why"
    assert texts(digest, sight(9, stuck={"in"}), 0) == []
    assert texts(digest, sight(9, stuck={"in"}), PATIENCE_S - 1) == []
    assert texts(digest, sight(9, stuck={"in"}), PATIENCE_S) == [paused]
    assert texts(digest, sight(9, stuck={"in"}), 500) == []
    # A daemon that was restarted has not met the wall yet.
    assert texts(digest, sight(9), 510) == []
    assert texts(digest, sight(9, stuck={"in"}), 515) == []
    digest.note(done(9))
    assert texts(digest, sight(3), 600) == []
    assert texts(digest, sight(0), 600 + PATIENCE_S) == ["folder in: 9 photos done, nothing waits; goes on"]


@pytest.mark.parametrize("otherwise", [{"away": {"in"}}, {"stuck": {"in"}, "held": {"in"}}])
def test_whether_a_folder_that_is_away_or_held_would_get_on_is_not_guessed(otherwise):
    digest = Digest(every=300, events={"paused"})
    for second in range(600):
        assert texts(digest, sight(9, **otherwise), second) == []
    assert texts(digest, sight(9, stuck={"in"}), 600) == []
    assert len(texts(digest, sight(9, stuck={"in"}), 600 + PATIENCE_S)) == 1
    for second in range(1000, 1600):
        assert texts(digest, sight(9, **otherwise), second) == []


def test_a_folder_that_is_paused_for_moments_only_is_not_told_of(digest):
    for second in range(600):
        assert texts(digest, sight(1, stuck={"in"} if second % 59 else set()), second) == []


def test_a_short_absence_of_daemon_or_engine_is_no_news(digest):
    gone = Sight({}, None, None)
    assert texts(digest, gone, 0) == []
    assert texts(digest, gone, PATIENCE_S - 1) == []
    assert texts(digest, sight(), PATIENCE_S) == []
    assert texts(digest, gone, 100) == []
    assert texts(digest, gone, 100 + PATIENCE_S) == ["the daemon: does not work"]
    assert texts(digest, sight(lost={"modnet"}), 600) == ["the daemon: works again"]
    assert texts(digest, sight(lost={"modnet"}), 600 + PATIENCE_S) == ["engine modnet: does not work"]


def test_while_no_daemon_speaks_what_it_said_last_stands(digest):
    texts(digest, sight(away={"in"}), 0)
    assert texts(digest, Sight({}, None, None), 400) == []
    assert texts(digest, sight(away={"in"}), 450) == []
    assert texts(digest, sight(), 500) == ["folder in: is back"]


def test_what_nobody_wants_to_hear_is_not_said():
    digest = Digest(every=300, events={"failed"})
    digest.note([*done(3), Ending("in", "bad.jpg", True)])
    seen = Sight({"in": 0}, {"in"}, {"modnet"})
    assert texts(digest, seen, 0) == ["folder in: 1 photo failed: bad.jpg"]
    assert texts(digest, Sight({}, None, None), 5000) == []


@given(st.text(max_size=400))
def test_a_name_is_one_short_line_whatever_is_in_it(name):
    digest = Digest(every=300, events=ALL)
    digest.note([Ending("in", name, True)])
    [notice] = digest.due(sight(0), 0)
    assert notice.text.isprintable()
    assert len(notice.text) < 150
