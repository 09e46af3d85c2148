from __future__ import annotations

import os
import socket
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.config import Folder
from watcher.domain import JobState, Stamp
from watcher.errors import HostError
from watcher.intake.inbox import Inbox
from watcher.intake.names import Rules
from watcher.intake.pace import BURST, CALM_S, LONGEST_S, Pace
from watcher.intake.scan import compare, reconcile, walk


@pytest.fixture
def hot(tmp_path):
    root = tmp_path / "hot"
    root.mkdir()
    return root


def _walk(hot, **settings):
    return walk(str(hot), Rules(Folder(path=hot, output=hot / "mattes", **settings)))


def test_only_regular_files_that_are_wanted_are_listed(hot, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for place in (hot, hot / "sub" / "deep", hot / "mattes", hot / "@eaDir", outside):
        place.mkdir(parents=True, exist_ok=True)
        (place / "a.jpg").write_bytes(b"x")
    (hot / "notes.txt").write_bytes(b"x")
    os.mkfifo(hot / "pipe.jpg")
    (hot / "folder.jpg").mkdir()
    (hot / "link.jpg").symlink_to(outside / "a.jpg")
    (hot / "out").symlink_to(outside)
    (hot / "circle").symlink_to(hot)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(hot / "socket.jpg"))
        walked = _walk(hot)
        listing = dict(walked)
    assert set(listing) == {"a.jpg", "sub/deep/a.jpg"}
    assert listing["a.jpg"] == Stamp.of((hot / "a.jpg").stat())
    assert walked.symlinks == 3
    assert walked.ignored == 3  # notes, pipe, socket
    assert walked.unreadable == []


def test_a_name_that_is_not_utf8_is_listed(hot):
    with open(os.fsencode(hot) + b"/caf\xe9.jpg", "wb"):
        pass
    assert [relpath for relpath, _ in _walk(hot)] == ["caf\udce9.jpg"]


def test_a_file_that_vanishes_while_listing_is_passed_over(hot):
    for name in "abc":
        (hot / f"{name}.jpg").write_bytes(b"x")
    seen = []
    walked = _walk(hot)
    for relpath, _ in walked:
        seen.append(relpath)
        for path in hot.iterdir():
            path.unlink()
    assert len(seen) == 1
    assert walked.unreadable == []


def test_an_absent_root_is_an_error_and_not_an_empty_list(tmp_path):
    with pytest.raises(HostError, match=r"cannot list .*gone"):
        list(_walk(tmp_path / "gone"))


def test_a_sub_folder_that_cannot_be_read_is_reported(hot, permissions):
    (hot / "closed").mkdir()
    (hot / "closed" / "a.jpg").write_bytes(b"x")
    (hot / "b.jpg").write_bytes(b"x")
    (hot / "closed").chmod(0)
    try:
        walked = _walk(hot)
        assert [relpath for relpath, _ in walked] == ["b.jpg"]
        assert walked.unreadable == ["closed"]
    finally:
        (hot / "closed").chmod(stat.S_IRWXU)


NAMES = st.sampled_from(["a.jpg", "b.jpg", "sub/a.jpg", "sub/in/b.jpg", "subway/a.jpg"])
STAMPS = st.integers(0, 1).map(lambda number: Stamp(number, number))


@given(
    st.dictionaries(NAMES, STAMPS),
    st.dictionaries(NAMES, st.tuples(STAMPS, st.sampled_from(JobState))),
    st.sets(st.sampled_from(["sub", "sub/in", "a.jpg"])),
)
def test_a_scan_splits_into_new_done_and_absent(listing, known, unreadable):
    found = reconcile(listing, known, unreadable=unreadable)
    for relpath in {*listing, *known}:
        there, was = listing.get(relpath), known.get(relpath)
        hidden = any(relpath == place or relpath.startswith(place + "/") for place in unreadable)
        assert ((relpath, there) in found.fresh) == (there is not None and (was is None or was[0] != there))
        assert ((relpath, there) in found.done) == (was == (there, JobState.DONE))
        assert (relpath in found.absent) == (there is None and not hidden)
    before = {relpath: stamp for relpath, (stamp, _) in known.items()}
    assert compare(listing, before, unreadable=unreadable) == type(found)(found.fresh, [], found.absent)


def test_a_burst_of_hints_asks_for_a_scan_once_it_is_calm_again():
    pace = Pace(300.0)
    pace.scanned(0.0, 0.01)
    pace.hinted(BURST - 1, 10.0)
    assert pace.deadline() == 300.0
    pace.hinted(1, 10.5)
    assert pace.deadline() == 10.5 + CALM_S
    pace.hinted(1, 10.8)
    assert pace.deadline() == 10.8 + CALM_S
    pace.scanned(11.4, 11.5)
    assert pace.deadline() == 11.4 + 300.0


def test_hints_that_trickle_ask_for_nothing():
    pace = Pace(300.0)
    pace.scanned(0.0, 0.01)
    for second in range(100):
        pace.hinted(BURST - 1, second * 1.5)
    assert pace.deadline() == 300.0


def test_a_scan_that_is_wanted_does_not_wait_for_ever():
    pace = Pace(300.0)
    pace.scanned(0.0, 0.01)
    for tick in range(200):
        pace.want(1.0 + tick * 0.1)
    assert pace.deadline() == 1.0 + LONGEST_S


def test_scans_take_at_most_a_tenth_of_the_time():
    pace = Pace(1.0)
    pace.scanned(100.0, 103.0)
    pace.want(103.0)
    assert pace.deadline() == pytest.approx(130.0)


def test_an_inbox_says_each_path_once_and_counts_every_hint():
    inbox = Inbox()
    for relpath in ("a.jpg", "b.jpg", "a.jpg"):
        inbox.put(relpath)
    hints = inbox.take(0.0)
    assert (hints.relpaths, hints.count, hints.rescan) == (("a.jpg", "b.jpg"), 3, False)
    assert inbox.take(0.0).count == 0


def test_an_inbox_that_is_full_asks_for_a_listing_instead():
    inbox = Inbox(capacity=2)
    for relpath in ("a.jpg", "b.jpg", "a.jpg"):
        inbox.put(relpath)
    assert not inbox.take(0.0).rescan
    for relpath in ("a.jpg", "b.jpg", "c.jpg"):
        inbox.put(relpath)
    hints = inbox.take(0.0)
    assert (hints.relpaths, hints.rescan) == (("a.jpg", "b.jpg"), True)
