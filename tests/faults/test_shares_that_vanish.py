"""Shares that hang, go stale, go away, come back, or are not what they were: one folder waits, the rest works."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from daemonrig import DaemonRig, drop, jpeg
from rigs.shares import Share, can_mount

from watcher.config import Folder
from watcher.domain import JobState
from watcher.intake.guard import Guard
from watcher.intake.polled import Polled
from watcher.intake.watch import FolderWatch
from watcher.journal import Journal
from watcher.mounts import identity, mount_of

POLL_S = 0.5


@pytest.fixture(scope="module")
def nas(tmp_path_factory, real_part) -> Iterator[tuple[DaemonRig, Share]]:
    """A daemon with a hot folder on a share and one on the local disk."""
    real_part("FUSE", can_mount(), "apt install fuse3, and a machine that lets root mount")
    root = tmp_path_factory.mktemp("nas")
    share = Share(root / "server", root / "mnt")
    (share.source / "photos").mkdir()
    folders = {
        "nas": {"path": str(share.point / "photos"), "create": False, "poll_interval_s": POLL_S},
        "local": {},
    }
    daemon = DaemonRig(root / "rig", folders=folders, card="tiny")
    share.mount()
    try:
        # No loop is given up for a share: the watchdog would notice long before anything comes back.
        daemon.start(WATCHDOG_USEC="2000000")
        yield daemon, share
        assert "hangs: " not in daemon.log()
        assert daemon.stop() == 0
        assert daemon.leftovers() == []
    finally:
        share.fail()
        daemon.close()
        share.unmount()


def state(daemon: DaemonRig, name: str = "nas") -> str:
    return str(daemon.status()["folders"][name]["state"])


def reason(daemon: DaemonRig, name: str = "nas") -> str:
    return str(daemon.status()["folders"][name]["reason"])


def others_work(daemon: DaemonRig, number: int) -> None:
    drop(daemon.hot("local") / f"{number}.jpg", jpeg(number))
    daemon.wait_done(f"{number}.jpg", "local")


def comes_back(daemon: DaemonRig, share: Share, number: int) -> None:
    """It is watched again; what came meanwhile is done, and nothing else is."""
    before = {path: path.stat().st_ino for path in daemon.out("nas").rglob("*.json")}
    drop(share.source / "photos" / f"back {number}.jpg", jpeg(number))
    daemon.wait(lambda: state(daemon) == "watching", timeout=30)
    daemon.wait_done(f"back {number}.jpg", "nas")
    after = {path: path.stat().st_ino for path in daemon.out("nas").rglob("*.json")}
    assert after.keys() - before.keys() == {daemon.out("nas") / f"back {number}.matte.json"}
    assert before.items() <= after.items()
    with daemon.journal() as journal:
        assert {record.job.attempts for record in journal.records(JobState.DONE)} == {1}


def test_a_share_is_polled_by_itself_and_what_others_write_there_is_seen(nas):
    daemon, share = nas
    status = daemon.status()["folders"]
    assert (status["nas"]["observer"], status["local"]["observer"]) == ("polling", "native")
    assert "raises no event" in status["nas"]["observer_reason"]
    # Behind the back of this mount, as another machine does.
    drop(share.source / "photos" / "from another machine.jpg", jpeg(1))
    daemon.wait_done("from another machine.jpg", "nas")
    # What that costs is told.
    daemon.wait(lambda: daemon.status()["folders"]["nas"]["files"] == 1, timeout=20)
    assert daemon.status()["folders"]["nas"]["listing_s"] >= 0


def test_on_a_share_that_does_not_tell_capitals_a_name_that_only_changed_in_these_is_gone(nas):
    daemon, share = nas
    photos = share.source / "photos"
    share.fail(fold=True)
    drop(photos / "Shoot" / "Capitals.JPG", jpeg(2))
    drop(photos / "Stays.jpg", jpeg(3))
    daemon.wait_done("Shoot/Capitals.JPG", "nas")
    daemon.wait_done("Stays.jpg", "nas")
    (photos / "Shoot" / "Capitals.JPG").rename(photos / "Shoot" / "capitals.jpg")
    (photos / "Shoot").rename(photos / "shoot")
    daemon.wait_done("shoot/capitals.jpg", "nas")

    def known() -> set[str]:
        with daemon.journal() as journal:
            return {
                name
                for name in journal.known("nas")
                if name.casefold().endswith(("capitals.jpg", "stays.jpg"))
            }

    # The server still finds it under its former name: only a listing tells.
    daemon.wait(lambda: known() == {"shoot/capitals.jpg", "Stays.jpg"}, timeout=20)
    share.fail()


def test_a_share_that_hangs_while_its_photos_are_read_takes_nothing_with_it(nas):
    daemon, share = nas
    # More than there are threads and places in flight: all of them would be lost.
    for number in range(8):
        drop(share.source / "photos" / f"stuck {number}.jpg", jpeg(number))
    share.fail(hang=["getattr", "read"], match="*stuck*")
    daemon.wait(lambda: state(daemon) == "offline", timeout=40)
    assert "has not answered" in reason(daemon)
    others_work(daemon, 3)
    share.fail()
    daemon.wait(lambda: state(daemon) == "watching", timeout=30)
    for number in range(8):
        daemon.wait_done(f"stuck {number}.jpg", "nas", timeout=30)
    comes_back(daemon, share, 3)


@pytest.mark.parametrize(
    ("number", "operations"), [(errno.ESTALE, ["getattr", "readdir", "open"]), (errno.EIO, ["readdir"])]
)
def test_a_stale_share_is_offline_with_the_reason(nas, number, operations):
    daemon, share = nas
    share.fail(errno=dict.fromkeys(operations, number))
    daemon.wait(lambda: state(daemon) == "offline", timeout=30)
    assert {errno.ESTALE: "Stale file handle", errno.EIO: "Input/output error"}[number] in reason(daemon)
    others_work(daemon, number)
    share.fail()
    comes_back(daemon, share, number)


def test_photos_that_cannot_be_read_for_a_while_are_not_given_up(nas):
    daemon, share = nas
    share.fail(errno={"read": errno.EIO}, match="*unreadable*")
    drop(share.source / "photos" / "unreadable.jpg", jpeg(4))
    daemon.wait(lambda: "unreadable" in str(daemon.status()["folders"]["nas"]["oldest"]), timeout=20)
    others_work(daemon, 4)
    share.fail()
    daemon.wait_done("unreadable.jpg", "nas", timeout=40)
    comes_back(daemon, share, 4)


def test_an_unmounted_share_is_not_an_empty_folder_and_comes_back_by_itself(nas):
    daemon, share = nas
    known = daemon.counts()
    share.unmount()
    daemon.wait(lambda: state(daemon) == "offline", timeout=30)
    daemon.wait(lambda: "cannot be reached" in reason(daemon), timeout=20)
    others_work(daemon, 15)
    share.mount()
    comes_back(daemon, share, 15)
    # The two that came, and nothing forgotten.
    assert daemon.counts()["done"] == known["done"] + 2


def test_a_share_whose_mount_point_shows_through_is_another_folder(nas):
    daemon, share = nas
    share.unmount()
    bare = share.point / "photos"
    bare.mkdir()
    drop(bare / "on the wrong disk.jpg", jpeg(6))
    daemon.wait(lambda: f"is not mounted: it was on {share.point}" in reason(daemon), timeout=30)
    others_work(daemon, 6)
    shutil.rmtree(bare)
    share.mount()
    comes_back(daemon, share, 6)
    assert daemon.state_of("on the wrong disk.jpg", "nas") is None


def test_an_unmounted_share_is_away_although_all_its_photos_were_archived(rig, tmp_path, real_part):
    """Nothing that is known of it could be lost: the empty mount point is no hot folder all the same."""
    real_part("FUSE", can_mount(), "apt install fuse3, and a machine that lets root mount")
    share = Share(tmp_path / "server", tmp_path / "mnt")
    shared = {"path": str(share.point), "source": "archive", "create": False, "poll_interval_s": 0.3}
    daemon = rig(folders={"in": shared}, card="tiny")
    share.mount()
    try:
        daemon.start()
        drop(share.source / "a.jpg", jpeg(1))
        daemon.wait(lambda: (daemon.archive() / "a.jpg").exists(), timeout=30)
        share.unmount()
        daemon.wait(lambda: f"is not mounted: it was on {share.point}" in reason(daemon, "in"), timeout=30)
        photo = tmp_path / "b.jpg"
        photo.write_bytes(jpeg(2))
        assert "another folder than before" in daemon.hotmatte("submit", str(photo)).stderr
        assert not list(share.point.iterdir())
        # Nor after a restart.
        assert daemon.stop() == 0
        daemon.start()
        assert state(daemon, "in") == "offline"
        share.mount()
        drop(share.source / "c.jpg", jpeg(3))
        daemon.wait(lambda: (daemon.archive() / "c.jpg").exists(), timeout=30)
        # Where that is how it shall be from now on, a word is enough.
        share.unmount()
        daemon.wait(lambda: "is not mounted" in reason(daemon, "in"), timeout=30)
        assert daemon.hotmatte("accept", "in").returncode == 0
        daemon.wait(lambda: state(daemon, "in") == "watching", timeout=30)
        assert daemon.stop() == 0
    finally:
        share.unmount()


def test_another_disk_mounted_over_it_is_another_folder(nas):
    daemon, share = nas
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "other-disk", share.point / "photos"], check=True
    )
    try:
        drop(share.point / "photos" / "on another disk.jpg", jpeg(7))
        daemon.wait(lambda: state(daemon) == "offline", timeout=30)
        daemon.wait(lambda: "other-disk" in reason(daemon), timeout=30)
        others_work(daemon, 7)
    finally:
        subprocess.run(["umount", "-l", share.point / "photos"], check=True)
    comes_back(daemon, share, 7)
    assert daemon.state_of("on another disk.jpg", "nas") is None


def test_a_root_that_was_deleted_and_made_anew_is_watched_again(nas):
    daemon, share = nas
    aside = share.source / "aside"
    (share.source / "photos").rename(aside)
    daemon.wait(lambda: state(daemon) == "offline", timeout=30)
    others_work(daemon, 8)
    (share.source / "photos").mkdir()
    for path in aside.iterdir():
        path.rename(share.source / "photos" / path.name)
    aside.rmdir()
    comes_back(daemon, share, 8)


def test_a_share_that_hangs_at_start_stops_neither_the_start_nor_the_other_folders(rig, tmp_path, real_part):
    real_part("FUSE", can_mount(), "apt install fuse3, and a machine that lets root mount")
    share = Share(tmp_path / "server", tmp_path / "mnt")
    (share.source / "photos").mkdir()
    # Results on the share as well: what a crash left there cannot be looked for.
    (share.source / "mattes").mkdir()
    leftover = share.source / "mattes" / ".a.matte.png.17.hotmatte.tmp"
    leftover.write_bytes(b"half a matte")
    folders = {
        "nas": {
            "path": str(share.point / "photos"),
            "output": str(share.point / "mattes"),
            "poll_interval_s": POLL_S,
        },
        "local": {},
    }
    daemon = rig(folders=folders, card="tiny")
    drop(share.source / "photos" / "waiting.jpg", jpeg(9))
    share.fail(hang=["readdir"], match="/mattes*")
    share.mount()
    try:
        daemon.start(ready=False)
        daemon.wait(lambda: "local" in daemon.status().get("folders", {}), timeout=30)
        others_work(daemon, 9)
        daemon.wait(daemon.is_ready, timeout=40)
        assert state(daemon) == "offline"
        assert leftover.exists()
        assert daemon.record("waiting.jpg", "nas") is None
        share.fail()
        daemon.wait_done("waiting.jpg", "nas", timeout=30)
        assert not leftover.exists()
        assert daemon.stop() == 0
    finally:
        share.fail()
        daemon.close()
        share.unmount()


def test_results_are_not_put_on_the_disk_below_a_share_that_is_not_mounted(rig, tmp_path, real_part):
    real_part("FUSE", can_mount(), "apt install fuse3, and a machine that lets root mount")
    share = Share(tmp_path / "server", tmp_path / "mnt")
    daemon = rig(folders={"in": {"output": str(share.point / "mattes")}, "local": {}}, card="tiny")
    share.mount()
    try:
        daemon.start()
        drop(daemon.hot() / "a.jpg", jpeg(1))
        daemon.wait_done("a.jpg")
        assert daemon.stop() == 0
        share.unmount()
        daemon.start()
        drop(daemon.hot() / "b.jpg", jpeg(2))
        assert state(daemon, "in") == "offline"
        assert f"(output) is not mounted: it was on {share.point}" in reason(daemon, "in")
        others_work(daemon, 2)
        assert not list(share.point.iterdir())
        share.mount()
        daemon.wait_done("b.jpg", timeout=30)
        assert (share.source / "mattes" / "b.matte.json").exists()
        # Nor while it runs; where that is what is wanted, a word is enough.
        share.unmount()
        daemon.wait(lambda: state(daemon, "in") == "offline", timeout=20)
        assert daemon.hotmatte("accept", "in").returncode == 0
        drop(daemon.hot() / "c.jpg", jpeg(3))
        daemon.wait_done("c.jpg", timeout=30)
        assert (share.point / "mattes" / "c.matte.json").exists()
        assert daemon.stop() == 0
    finally:
        share.unmount()


def test_nothing_is_put_on_the_disk_below_a_share_that_goes_while_photos_are_worked_on(
    rig, tmp_path, real_part
):
    real_part("FUSE", can_mount(), "apt install fuse3, and a machine that lets root mount")
    share = Share(tmp_path / "server", tmp_path / "mnt")
    places = {"output": str(share.point / "mattes"), "archive": str(share.point / "kept")}
    daemon = rig(folders={"in": {"source": "archive"}}, card="tiny")
    daemon.settings["folders"]["in"] |= places
    daemon.configure()
    share.mount()
    try:
        daemon.start()
        drop(daemon.hot() / "first.jpg", jpeg(1))
        daemon.wait((share.source / "kept" / "first.jpg").exists, timeout=20)
        share.unmount()
        # Long before the next look at the mounts, as a rule.
        for number in range(9):
            drop(daemon.hot() / f"{number}.jpg", jpeg(number))
        daemon.wait(lambda: "is not mounted: it was on" in reason(daemon, "in"), timeout=20)
        assert not list(share.point.iterdir())
        assert len(list(daemon.hot().glob("*.jpg"))) == 9
        share.mount()
        daemon.wait(lambda: len(list((share.source / "kept").glob("?.jpg"))) == 9, timeout=40)
        assert len(list((share.source / "mattes").glob("?.matte.json"))) == 9
        with daemon.journal() as journal:
            assert {record.job.attempts for record in journal.records(JobState.DONE)} == {1}
        assert daemon.stop() == 0
    finally:
        share.unmount()


def test_bindfs_is_known_for_a_share_and_locked_by_a_file(tmp_path, real_part):
    real_part("bindfs", shutil.which("bindfs"), "apt install bindfs")
    server, mounted = tmp_path / "server", tmp_path / "mnt"
    for folder in (server, mounted):
        folder.mkdir()
    subprocess.run(["bindfs", server, mounted], check=True)
    try:
        assert mount_of(mounted / "photos").is_network
        assert "fuse" in identity(mounted)
        guard = Guard("in", Folder(path=tmp_path / "hot", output=mounted))
        guard.take()
        lock = mounted / ".hotmatte.lock"
        assert subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 1
        guard.release()
        assert subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 0
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)


class CountedWatch(FolderWatch):
    """Knows how many times it has looked, and at which look something new was seen first."""

    looks = 0
    seen_at: int | None = None

    def _poll(self, polled: Polled) -> None:
        self.looks += 1
        super()._poll(polled)
        if self.seen_at is None and len(self._settler):
            self.seen_at = self.looks


def test_what_is_written_on_the_other_side_of_bindfs_is_seen_by_the_second_look(
    tmp_path, real_part, eventually
):
    real_part("bindfs", shutil.which("bindfs"), "apt install bindfs")
    server, mounted = tmp_path / "server", tmp_path / "mnt"
    for place in (server, mounted):
        place.mkdir()
    # Without a memory of its own: what the mount does not tell yet, no look can find.
    fresh = ["-o", "attr_timeout=0,entry_timeout=0,negative_timeout=0"]
    subprocess.run(["bindfs", *fresh, server, mounted], check=True)
    folder = Folder(path=mounted, output=tmp_path / "out", quiet_s=0.1, poll_interval_s=0.1)
    with Journal(tmp_path / "journal.sqlite") as journal:
        watch = CountedWatch("in", folder, journal, on_admit=lambda _: None, on_source_done=lambda _: None)
        watch.start()
        try:
            eventually(lambda: watch.looks)
            assert watch.status().observer == "polling"
            for name in ("new.jpg", "sub/new.jpg", "new.jpg"):  # the last one written over in place
                drop(server / name, jpeg(watch.looks), how="write")
                before, watch.seen_at = watch.looks, None
                eventually(lambda: watch.seen_at)
                assert watch.seen_at is not None
                assert watch.seen_at - before <= 2
                eventually(lambda: len(watch._settler) == 0)
            assert {record.job.source.relpath for record in journal.records(JobState.QUEUED)} == {
                "new.jpg",
                "sub/new.jpg",
            }
        finally:
            assert watch.stop(10)
            subprocess.run(["umount", "-l", mounted], check=True)


def test_a_disk_that_photos_are_only_read_from_can_be_unmounted_while_it_is_watched(rig, tmp_path, real_part):
    real_part("mount", os.geteuid() == 0, "only root may mount")
    card = tmp_path / "card"
    card.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "card", card], check=True)
    daemon = rig(folders={"in": {"path": str(card)}}, card="tiny")
    try:
        drop(card / "a.jpg", jpeg(1))
        daemon.start()
        daemon.wait_done("a.jpg")
    finally:
        subprocess.run(["umount", card], check=True)  # without -l: as a file manager ejects it
    daemon.wait(lambda: state(daemon, "in") == "offline", timeout=20)
    assert daemon.stop() == 0
