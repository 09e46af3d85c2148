"""Disks that are full, out of inodes, over quota or broken: the folder pauses, says so, and goes on by itself."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonrig import DaemonRig, drop, jpeg, sha256
from rigs.shares import Share, can_mount

PLACES = ("output", "archive", "state")


class Disk:
    """A small disk in memory, mounted on `point`."""

    def __init__(self, point: Path, size: str) -> None:
        self.point = point
        point.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "small", point], check=True)

    def fill(self) -> None:
        """To the last byte, and the last inode."""
        with (self.point / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def fill_inodes(self) -> None:
        (self.point / "many").mkdir()
        number = 0
        try:
            while True:
                (self.point / "many" / str(number)).touch()
                number += 1
        except OSError as error:
            assert error.errno == errno.ENOSPC

    def free(self) -> None:
        subprocess.run(["rm", "-rf", self.point / "ballast", self.point / "many"], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.point], check=True)


@pytest.fixture(scope="module")
def daemon_on_disks(tmp_path_factory, real_part) -> Iterator[tuple[DaemonRig, dict[str, Disk]]]:
    """Outputs, archive and state each on a small disk of its own, and a folder that uses none of them."""
    real_part("mount", os.geteuid() == 0, "only root may mount")
    root = tmp_path_factory.mktemp("disks")
    disks = {name: Disk(root / name, "size=4m,nr_inodes=200") for name in PLACES}
    folders = {
        "output": {"output": str(disks["output"].point / "out")},
        "archive": {
            "source": "archive",
            "archive": str(disks["archive"].point / "archive"),
            "scan_interval_s": 1,
        },
        "state": {},
    }
    daemon = DaemonRig(root / "rig", folders=folders, card="tiny")
    daemon.settings["state_dir"] = str(disks["state"].point / "state")
    daemon.state = disks["state"].point / "state"
    daemon.configure()
    try:
        daemon.start()
        yield daemon, disks
        assert daemon.stop() == 0
        assert daemon.leftovers() == []
    finally:
        daemon.close()
        for disk in disks.values():
            disk.unmount()


def says(daemon: DaemonRig, name: str) -> str:
    status = daemon.status()["folders"][name]
    return str(status["reason"]) if status["state"] in ("paused", "offline") else ""


@pytest.mark.parametrize("kind", ["bytes", "inodes"])
def test_a_full_output_pauses_its_folder_and_goes_on_when_there_is_room(daemon_on_disks, kind):
    daemon, disks = daemon_on_disks
    disk = disks["output"]
    disk.fill() if kind == "bytes" else disk.fill_inodes()
    content = jpeg(1 if kind == "bytes" else 2)
    drop(daemon.hot("output") / f"{kind}.jpg", content)
    daemon.wait(lambda: "No space left" in says(daemon, "output"), timeout=20)
    # Nothing partial is left to be seen, and the others work.
    assert not [path for path in daemon.out("output").rglob("*") if kind in path.name]
    drop(daemon.hot("state") / f"beside {kind}.jpg", jpeg(3))
    daemon.wait_done(f"beside {kind}.jpg", "state")
    disk.free()
    record = daemon.wait_done(f"{kind}.jpg", "output", timeout=30)
    assert record.job.attempts == 1  # nobody was charged
    daemon.wait(lambda: says(daemon, "output") == "", timeout=10)
    assert daemon.reports("output") == {}


@pytest.mark.parametrize("kind", ["bytes", "inodes"])
def test_a_full_archive_keeps_the_photo_where_it_is_until_there_is_room(daemon_on_disks, kind):
    daemon, disks = daemon_on_disks
    disk, content = disks["archive"], jpeg(4 if kind == "bytes" else 5)
    disk.fill() if kind == "bytes" else disk.fill_inodes()
    photo = daemon.hot("archive") / f"{kind}.jpg"
    drop(photo, content)
    daemon.wait_done(photo.name, "archive")
    daemon.wait(lambda: "No space left" in says(daemon, "archive"), timeout=20)
    assert photo.read_bytes() == content
    disk.free()
    daemon.wait(lambda: not photo.exists(), timeout=30)
    assert (daemon.archive("archive") / photo.name).read_bytes() == content
    assert (daemon.out("archive") / f"{kind}.matte.json").exists()
    daemon.wait(lambda: says(daemon, "archive") == "", timeout=10)


def test_a_state_folder_without_inodes_stops_nothing(daemon_on_disks):
    daemon, disks = daemon_on_disks
    disks["state"].fill_inodes()
    drop(daemon.hot("state") / "no inode.jpg", jpeg(6))
    # The journal has its files, and so work goes on; only the snapshot cannot be made anew.
    daemon.wait_done("no inode.jpg", "state")
    daemon.wait(lambda: "cannot write" in daemon.log(), timeout=20)
    disks["state"].free()
    daemon.wait(lambda: daemon.status()["done"] and not says(daemon, "state"), timeout=20)


def test_a_full_state_folder_stops_nothing_for_good(daemon_on_disks):
    daemon, disks = daemon_on_disks
    disks["state"].fill()
    for number in range(3):
        drop(daemon.hot("state") / f"{number}.jpg", jpeg(10 + number))
    daemon.wait(lambda: "cannot write the journal" in daemon.log(), timeout=30)
    assert daemon.is_alive()
    disks["state"].free()
    for number in range(3):
        daemon.wait_done(f"{number}.jpg", "state", timeout=40)
    daemon.wait(lambda: says(daemon, "state") == "", timeout=20)
    [one] = [c for c in daemon.sidecars("state").values() if c["source"]["path"] == "1.jpg"]
    assert one["source"]["sha256"] == sha256(jpeg(11))


@pytest.mark.parametrize("state", ["no journal yet", "a journal"])
def test_a_state_folder_that_is_full_at_start_is_waited_for(rig, tmp_path, real_part, state):
    real_part("mount", os.geteuid() == 0, "only root may mount")
    disk = Disk(tmp_path / "disk", "size=2m")
    daemon = rig(card="tiny")
    daemon.state = disk.point / "state"
    daemon.settings["state_dir"] = str(daemon.state)
    daemon.configure()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    try:
        if state == "a journal":
            daemon.start()
            daemon.wait_done("a.jpg")
            assert daemon.stop() == 0
        else:
            daemon.state.mkdir()
        disk.fill()
        daemon.start(ready=False)
        daemon.wait(
            lambda: f"waiting: the disk of the state folder {daemon.state} is full" in daemon.log(),
            timeout=20,
        )
        disk.free()
        daemon.wait(daemon.is_ready, timeout=30)
        daemon.wait_done("a.jpg")
        assert len(daemon.sidecars()) == 1
        assert daemon.stop() == 0
        # Whatever was still under way: it leaves nothing that would be room for the next.
        assert list(daemon.state.glob("journal.sqlite-*")) == []
        assert list(daemon.state.glob("journal.corrupt-*")) == []
        disk.fill()
        daemon.start(ready=False)
        daemon.wait(lambda: daemon.log().count("waiting: the disk") == 2, timeout=20)
        assert daemon.stop() == 0
    finally:
        daemon.close()
        disk.unmount()


# --- Broken shares for results -------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon_on_share(tmp_path_factory, real_part) -> Iterator[tuple[DaemonRig, Share]]:
    real_part("FUSE", can_mount(), "apt install fuse3, and a machine that lets root mount")
    root = tmp_path_factory.mktemp("share")
    share = Share(root / "server", root / "mnt")
    folders = {"in": {"output": str(share.point / "out")}, "other": {}}
    daemon = DaemonRig(root / "rig", folders=folders, card="tiny")
    share.mount()
    try:
        daemon.start()
        yield daemon, share
        assert daemon.stop() == 0
    finally:
        share.fail()
        daemon.close()
        share.unmount()


@pytest.mark.parametrize(
    ("operation", "number"),
    [
        ("create", errno.EROFS),
        ("create", errno.EDQUOT),
        ("write", errno.EDQUOT),
        ("write", errno.EIO),
        ("fsync", errno.EIO),
        ("rename", errno.ESTALE),
    ],
    ids=str,
)
def test_a_share_that_refuses_results_pauses_its_folder_only(daemon_on_share, operation, number):
    daemon, share = daemon_on_share
    name = f"{operation} {errno.errorcode[number]}.jpg"
    share.fail(errno={operation: number})
    drop(daemon.hot() / name, jpeg(number))
    daemon.wait(lambda: os.strerror(number) in says(daemon, "in"), timeout=20)
    drop(daemon.hot("other") / name, jpeg(number))
    daemon.wait_done(name, "other")
    share.fail()
    record = daemon.wait_done(name, timeout=30)
    assert record.job.attempts == 1
    stem = name.removesuffix(".jpg")
    found = sorted(path.name for path in daemon.out().iterdir() if stem in path.name)
    assert found == [f"{stem}.cutout.png", f"{stem}.matte.json", f"{stem}.matte.png"]


def test_permission_that_is_lost_pauses_and_regained_goes_on(daemon_on_share):
    daemon, share = daemon_on_share
    share.fail(errno={"create": errno.EACCES})
    drop(daemon.hot() / "denied.jpg", jpeg(40))
    daemon.wait(lambda: "Permission denied" in says(daemon, "in"), timeout=20)
    share.fail()
    assert daemon.wait_done("denied.jpg", timeout=30).job.attempts == 1


# --- The process ---------------------------------------------------------------------------


def test_a_daemon_that_was_stopped_and_continued_goes_on_where_it_was(daemon_on_share):
    daemon, _ = daemon_on_share
    daemon.signal(signal.SIGSTOP)
    for number in range(5):
        drop(daemon.hot("other") / f"asleep {number}.jpg", jpeg(number))
    daemon.signal(signal.SIGCONT)
    for number in range(5):
        assert daemon.wait_done(f"asleep {number}.jpg", "other").job.attempts == 1


def open_files(pid: int) -> int:
    time.sleep(0.01)
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_descriptors_that_run_out_are_the_machines_fault_and_nobody_is_charged(daemon_on_share):
    daemon, _ = daemon_on_share
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    # At rest: what is open for a moment only would be room for the photo.
    used = min(open_files(daemon.pid) for _ in range(50))
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used, before[1]))
    try:
        drop(daemon.hot("other") / "no descriptor.jpg", jpeg(1))
        daemon.wait(lambda: "Too many open files" in daemon.log(), timeout=30)
        assert daemon.is_alive()
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
    assert daemon.wait_done("no descriptor.jpg", "other", timeout=40).job.attempts == 1
    assert not daemon.reports("other")
