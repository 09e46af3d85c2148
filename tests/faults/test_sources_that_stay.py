"""Sources that cannot be retired: they stay, whole; their folder says why, goes on by itself, and stops no other."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest
from daemonrig import DaemonRig, drop, jpeg, sha256
from rigs.shares import Share, can_mount

FOLDERS = ("in", "drain")
# Fewer than are dropped: those that hang must not take every place.
IN_FLIGHT = 3


@pytest.fixture(scope="module")
def nas(tmp_path_factory, real_part) -> Iterator[tuple[DaemonRig, Share]]:
    """One lane: a folder whose archive is on a share, one on that share whose photos are deleted, a local one."""
    real_part("FUSE", can_mount(), "apt install fuse3, and a machine that lets root mount")
    root = tmp_path_factory.mktemp("nas")
    share = Share(root / "server", root / "mnt")
    for name in ("archive", "drain"):
        (share.source / name).mkdir()
    folders = {
        "in": {"source": "archive", "archive": str(share.point / "archive")},
        "drain": {"source": "delete", "path": str(share.point / "drain"), "poll_interval_s": 0.3},
        "other": {"source": "archive"},
    }
    daemon = DaemonRig(root / "rig", folders=folders, card="tiny", limits={"max_in_flight": IN_FLIGHT})
    share.mount()
    try:
        daemon.start()
        yield daemon, share
        assert daemon.stop() == 0
        assert daemon.leftovers() == []
    finally:
        share.fail()
        daemon.close()
        share.unmount()


def says(daemon: DaemonRig, name: str) -> str:
    status = daemon.status()["folders"][name]
    return str(status["reason"]) if status["state"] in ("paused", "offline") else ""


def others_work(daemon: DaemonRig, name: str) -> None:
    drop(daemon.hot("other") / name, jpeg(99))
    daemon.wait_done(name, "other")
    daemon.wait(lambda: (daemon.archive("other") / name).exists(), timeout=20)


def test_an_archive_that_hangs_stops_neither_its_folder_for_good_nor_any_other(nas):
    daemon, share = nas
    # Looking at the archive works, so that nothing but the photos themselves tells that it hangs.
    share.fail(hang=["create", "mkdir", "rename", "write"], match="/archive/*")
    names = [f"stuck {number}.jpg" for number in range(2 * IN_FLIGHT)]
    for number, name in enumerate(names):
        drop(daemon.hot() / name, jpeg(number))
    for name in names[:IN_FLIGHT]:
        daemon.wait_done(name)
    others_work(daemon, "beside a hanging archive.jpg")
    others_work(daemon, "and again.jpg")
    assert all((daemon.hot() / name).read_bytes() == jpeg(number) for number, name in enumerate(names))
    share.fail()
    for name in names:
        daemon.wait_done(name)
    daemon.wait(lambda: not list(daemon.hot().iterdir()), timeout=30)
    archived = {path.name: path.read_bytes() for path in (share.source / "archive").glob("*.jpg")}
    assert archived == {name: jpeg(number) for number, name in enumerate(names)}


def test_deletions_that_hang_stop_no_other_folder(nas):
    daemon, share = nas
    share.fail(hang=["unlink", "rename"], match="/drain/*")
    for number in range(2 * IN_FLIGHT):
        drop(share.source / "drain" / f"deaf {number}.jpg", jpeg(number))
    daemon.wait_done("deaf 0.jpg", "drain")
    others_work(daemon, "beside hanging deletions.jpg")
    share.fail()
    daemon.wait(lambda: not list((share.source / "drain").glob("*.jpg")), timeout=30)


@pytest.mark.parametrize(
    ("operation", "number"),
    [("create", errno.EDQUOT), ("write", errno.EIO), ("write", errno.ENOSPC), ("create", errno.ESTALE)],
    ids=lambda value: value if isinstance(value, str) else errno.errorcode[value],
)
def test_an_archive_that_refuses_pauses_its_folder_and_takes_the_photos_later(nas, operation, number):
    daemon, share = nas
    content, name = jpeg(1000 + number), f"{errno.errorcode[number]}.jpg"
    share.fail(errno={operation: number}, match="/archive/*")
    drop(daemon.hot() / name, content)
    daemon.wait(lambda: os.strerror(number) in says(daemon, "in"), timeout=20)
    assert (daemon.hot() / name).read_bytes() == content
    assert not list((share.source / "archive").glob(f"*{name}*"))
    others_work(daemon, f"beside {name}")
    share.fail()
    daemon.wait(lambda: not (daemon.hot() / name).exists(), timeout=30)
    assert sha256((share.source / "archive" / name).read_bytes()) == sha256(content)
    daemon.wait(lambda: says(daemon, "in") == "", timeout=20)
    record = daemon.record(name)
    assert record is not None
    assert (record.job.attempts, daemon.reports()) == (1, {})


def test_an_archive_whose_server_keeps_times_and_modes_to_itself_takes_the_photos(nas):
    """As a CIFS mount that shows everything as root's: its files may be written, and belong to somebody else."""
    daemon, share = nas
    share.fail(errno={"utimens": errno.EPERM, "chmod": errno.EPERM}, match="/archive/*")
    try:
        drop(daemon.hot() / "borrowed.jpg", jpeg(5))
        daemon.wait(lambda: not (daemon.hot() / "borrowed.jpg").exists(), timeout=30)
    finally:
        share.fail()
    assert (share.source / "archive" / "borrowed.jpg").read_bytes() == jpeg(5)
    assert says(daemon, "in") == ""


def test_a_hot_folder_that_is_read_only_says_so_and_is_emptied_when_it_can_be(nas):
    daemon, share = nas
    drop(share.source / "drain" / "first.jpg", jpeg(1))
    daemon.wait(lambda: not (share.source / "drain" / "first.jpg").exists(), timeout=20)
    refuses = ("create", "rename", "unlink", "mkdir", "write", "chmod")
    share.fail(errno=dict.fromkeys(refuses, errno.EROFS), match="/drain/*")
    try:
        drop(share.source / "drain" / "kept.jpg", jpeg(2))
        daemon.wait(lambda: "Read-only file system" in says(daemon, "drain"), timeout=20)
        remedy = daemon.status()["folders"]["drain"]["remedy"]
        assert "source: leave" in remedy
        daemon.wait_done("kept.jpg", "drain")
        assert (share.source / "drain" / "kept.jpg").read_bytes() == jpeg(2)
        # Nor does anybody get a photo in there by us without a word.
        photo = daemon.root / "new.jpg"
        photo.write_bytes(jpeg(3))
        refused = daemon.hotmatte("submit", "--folder", "drain", str(photo))
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr
        assert not list((share.source / "drain").glob("new*"))
    finally:
        share.fail()
    daemon.wait(lambda: not list((share.source / "drain").glob("*.jpg")), timeout=30)
    daemon.wait(lambda: says(daemon, "drain") == "", timeout=20)
