"""What the service had not told when it ended is there for the next one, once."""

from __future__ import annotations

import time

import pytest

from watcher.digest import Digest, Ending, Notice, Sight
from watcher.messenger import Letter, Messenger
from watcher.notify_settings import EVENTS
from watcher.web.untold import LONGEST_S, UNTOLD, Untold, keep, take
from watcher.webhook import NotSent

NOTICE = Notice("folder", "in", ("failed",), 0, 1, ("a.jpg",))


def test_what_was_kept_is_taken_once(tmp_path):
    digest = Digest(every=300, events=EVENTS)
    digest.note([Ending("in", "a.jpg", True), Ending("in", "b.jpg", False)])
    left = Untold(5.0, [(7, 4.5)], digest.untold(), {"webhook": [Letter(NOTICE, "msg_1", 3)]}, time.time())
    keep(tmp_path, left)
    assert (tmp_path / UNTOLD).stat().st_mode & 0o777 == 0o600
    found = take(tmp_path)
    assert (found.since, found.seen, found.ledgers) == (5.0, [(7, 4.5)], left.ledgers)
    assert found.letters == left.letters
    assert take(tmp_path) == Untold()


@pytest.mark.parametrize("passed", [LONGEST_S + 60, -60])
def test_what_was_kept_long_ago_or_by_a_clock_that_was_set_back_is_history(tmp_path, passed):
    keep(tmp_path, Untold(5.0, at=time.time() - passed))
    assert take(tmp_path) == Untold()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"since": 1, "seen": [1], "at": 1}'])
def test_a_damaged_file_is_no_reason_not_to_start(tmp_path, content):
    (tmp_path / UNTOLD).write_bytes(content)
    assert take(tmp_path) == Untold()
    assert not (tmp_path / UNTOLD).exists()


def test_a_digest_goes_on_where_the_last_one_ended():
    first, second = (Digest(every=300, events=EVENTS) for _ in range(2))
    away = Sight({"in": 3}, {"share"}, set())
    first.note([Ending("in", "a.jpg", True)])
    assert len(first.due(away, 0)) == 2
    first.note([Ending("in", "b.jpg", True), Ending("in", "c.jpg", False)])
    second.take_up(first.untold())
    assert [one.text for one in second.due(away, 0)] == ["folder in: 1 photo failed: b.jpg"]
    back = Sight({"in": 0}, set(), set())
    texts = {one.text for one in second.due(back, 400)}
    assert texts == {"folder in: 1 photo done, nothing waits", "folder share: is back"}


def test_what_is_not_delivered_at_the_end_is_handed_back_with_its_id(eventually):
    def refused(notice: Notice, id_: str) -> None:
        raise NotSent("the server answers 503")

    first = Messenger("webhook", refused, first=60)
    first.put(NOTICE)
    first.put(NOTICE)
    left = first.close()
    assert [letter.notice for letter in left] == [NOTICE, NOTICE]
    assert first.failed == 0
    sent: list[str] = []
    second = Messenger("webhook", lambda _, id_: sent.append(id_), waiting=left)
    eventually(lambda: sent == [letter.id for letter in left])
    assert second.close() == []
