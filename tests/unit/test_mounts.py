from __future__ import annotations

import os
from pathlib import Path

import pytest

from watcher import mounts
from watcher.mounts import Mount, identity, is_same, mount_of, parse

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv rw,relatime shared:2 master:1 - xfs /dev/sdb1 rw,attr2
31 30 0:50 /photos /srv/my\\040share rw - cifs //nas/media rw,vers=3.1.1
32 22 0:51 / /mnt rw - fuse.sshfs host:/home rw
33 22 0:52 / /mnt2 rw - tmpfs  rw
"""


def on(path: str) -> Mount:
    return mount_of(Path(path), parse(TABLE))


def test_a_path_lies_on_the_innermost_mount_around_it() -> None:
    assert on("/home/a").source == "/dev/sda1"
    assert on("/srv/x").kind == "xfs"
    assert on("/srv/my share/a.jpg") == Mount("/srv/my share", "cifs", "//nas/media", "/photos")


def test_a_name_that_only_begins_like_a_mount_point_is_outside() -> None:
    assert on("/srvice/x").point == "/"
    assert on("/mnt2").kind == "tmpfs"
    assert on("/mnt/../srv/x").point == "/srv"


def test_of_two_mounts_on_one_point_the_later_one_is_seen() -> None:
    table = TABLE + "40 30 0:60 / /srv rw - nfs4 nas:/export rw\n"
    assert mount_of(Path("/srv/x"), parse(table)).kind == "nfs4"


def test_shares_and_fuse_are_network_file_systems_and_local_ones_are_not() -> None:
    network = {kind for kind in ("nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse.sshfs", "fuse")}
    local = {"ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "zfs", "unknown"}
    assert {kind for kind in network | local if Mount("/", kind, "x", "/").is_network} == network


def test_lines_that_make_no_sense_are_passed_over() -> None:
    assert parse("\nnonsense\n1 2 3 - x\n") == []
    assert mount_of(Path("/a"), []).kind == "unknown"


def test_an_empty_source_is_kept() -> None:
    assert on("/mnt2/x").source == ""


@pytest.mark.parametrize("char", ["\r", "\x0b", "\u2028", "\x85", "\udcff"])
def test_any_name_of_a_mount_point_is_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, char: str
) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_bytes(os.fsencode(f"31 30 0:50 / /srv/a{char}b rw - nfs4 nas:/x rw\n"))
    monkeypatch.setattr(mounts, "MOUNTINFO", mountinfo)
    assert mount_of(Path(f"/srv/a{char}b/c")).kind == "nfs4"


def test_identity_tells_a_share_from_the_empty_folder_below_it() -> None:
    mounted = parse(TABLE)
    without = [mount for mount in mounted if mount.kind != "cifs"]
    path = Path("/srv/my share/inbox")
    assert identity(path, mounted) == "cifs //nas/media /photos/inbox"
    assert identity(path, without) == "xfs /dev/sdb1 /my share/inbox"


def test_identity_survives_another_mount_point_of_the_same_thing() -> None:
    moved = TABLE.replace("/srv/my\\040share", "/media/nas")
    assert identity(Path("/media/nas/inbox"), parse(moved)) == identity(
        Path("/srv/my share/inbox"), parse(TABLE)
    )


def test_what_the_first_versions_remembered_of_a_folder_is_still_the_same_folder() -> None:
    assert is_same("xfs /dev/sdb1 //inbox", "xfs /dev/sdb1 /inbox")
    assert is_same("cifs //nas/media //", "cifs //nas/media /")
    assert not is_same("xfs /dev/sdb1 //inbox", "xfs /dev/sdb1 /outbox")
    assert not is_same("xfs /dev/sdb1 /inbox", "xfs /dev/sdc1 /inbox")


def test_the_kernel_s_own_table_is_understood() -> None:
    assert mount_of(Path("/proc/self")).kind == "proc"
    assert not mount_of(Path("/proc/self")).is_network
