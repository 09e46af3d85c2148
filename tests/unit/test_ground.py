"""Where results lie is asked before and after they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from watcher import ground, mounts
from watcher.errors import HostError
from watcher.ground import Ground, device_of

OUT = Path("/mnt/nas/out")
MOUNTED = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:40 / /mnt/nas rw - nfs4 nas:/x rw\n"
AWAY = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Sets the table of mounts and the device that OUT is on."""
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")

    def be(table: str, device: int) -> None:
        (tmp_path / "mountinfo").write_text(table)
        monkeypatch.setattr(ground, "device_of", lambda _: device)

    return be


def test_a_place_on_the_disk_below_its_mount_point_is_refused_until_it_is_back(machine):
    firm = Ground()
    machine(MOUNTED, 40)
    firm.note(OUT, point="/mnt/nas", device=40)
    firm.check(OUT)
    machine(AWAY, 8)
    with pytest.raises(HostError, match="/mnt/nas/out is not mounted: it was on /mnt/nas"):
        firm.check(OUT)
    machine(MOUNTED, 41)  # a mount gets a new number each time
    firm.check(OUT)
    machine("", 41)  # and is asked for no table while that is so
    firm.check(OUT)


def test_what_nobody_has_looked_at_counts_as_firm(machine):
    machine(AWAY, 8)
    Ground().check(OUT)
    Ground().check(None)


def test_a_place_that_is_not_there_yet_is_where_it_will_be_made(tmp_path):
    assert device_of(tmp_path / "not" / "yet") == tmp_path.stat().st_dev
    (tmp_path / "file").touch()
    assert device_of(tmp_path / "file" / "below") == tmp_path.stat().st_dev
