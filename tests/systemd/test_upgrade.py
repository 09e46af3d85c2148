"""The package over its life: upgrade, removal, purge. Photos and results outlive all of it."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from configured import CARD, settings
from daemonrig import jpeg
from machine import Machine

pytestmark = pytest.mark.timeout(400)

HOT, OUT = "/srv/hotmatte/hot", "/srv/hotmatte/mattes"
CONFIG = "/etc/hotmatte/hotmatte.yaml"


def newer(package: Path, version: str, folder: Path) -> Path:
    """The same package under another version: only its control part is made anew."""
    subprocess.run(["dpkg-deb", "--control", package, folder / "control"], check=True)
    control = folder / "control/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    plain = folder / "control.tar"
    with tarfile.open(plain, "w") as archive:
        archive.add(folder / "control", arcname=".")
    subprocess.run(["ar", "x", package], cwd=folder, check=True)
    (data,) = folder.glob("data.tar.*")
    target = package.with_name(f"hotmatte_{version}.deb")
    subprocess.run(["ar", "rc", target, "debian-binary", plain.name, data.name], cwd=folder, check=True)
    data.unlink()
    return target


def jobs(machine: Machine) -> str:
    """What the journal holds of each photo, by number: the same number is the same job."""
    code = (
        "import sqlite3; db = sqlite3.connect('/var/lib/hotmatte/journal.sqlite');"
        "print(db.execute('select id, relpath, state from job order by id').fetchall())"
    )
    return machine.out("python3", "-c", code)


def drop_and_wait(machine: Machine, name: str) -> None:
    machine.write(f"{HOT}/{name}.jpg", jpeg(len(name)))
    machine.eventually(lambda: machine.exists(f"{OUT}/{name}.matte.json"))


def test_upgrade_and_removal_keep_everything_and_purge_takes_only_our_state(
    installed: Machine, package: Path, tmp_path: Path
) -> None:
    machine = installed
    machine.write("/etc/hotmatte/cards/quick.yaml", CARD.format(name="quick", latency_s=0))
    machine.write(CONFIG, settings())
    machine.run("systemctl", "restart", "hotmatte")
    drop_and_wait(machine, "first")
    before, pid = jobs(machine), machine.pid()

    # An upgrade stops the service, keeps the edited configuration, starts it again.
    upgrade = newer(package, "9.9.9", tmp_path)
    try:
        machine.run("dpkg", "-i", "--force-unsafe-io", f"/mnt/dist/{upgrade.name}")
    finally:
        upgrade.unlink()
    assert machine.out("dpkg-query", "-W", "-f", "${Version}", "hotmatte") == "9.9.9"
    machine.eventually(machine.is_active)
    assert machine.pid() != pid
    assert machine.read(CONFIG).decode() == settings()
    drop_and_wait(machine, "second")
    assert jobs(machine).startswith(before[:-1])

    # One that was disabled stays disabled, over a removal as well.
    machine.run("systemctl", "disable", "--now", "hotmatte")
    kept = jobs(machine)
    machine.run("dpkg", "--remove", "hotmatte")
    assert not machine.exists("/opt/hotmatte")
    assert not machine.exists("/usr/bin/hotmatte")
    assert machine.run("pgrep", "-u", "hotmatte", check=False).returncode == 1
    assert jobs(machine) == kept
    assert machine.read(CONFIG).decode() == settings()
    machine.write(f"{HOT}/third.jpg", jpeg(3))
    machine.run("dpkg", "-i", "--force-unsafe-io", "--force-downgrade", f"/mnt/dist/{package.name}")
    unit = machine.show("hotmatte", "ActiveState", "UnitFileState")
    assert unit == {"ActiveState": "inactive", "UnitFileState": "disabled"}
    machine.run("systemctl", "enable", "--now", "hotmatte")
    machine.eventually(lambda: machine.exists(f"{OUT}/third.matte.json"))
    assert jobs(machine).startswith(kept[:-1])

    # Somebody's results in our state folder are still somebody's results.
    machine.write("/var/lib/hotmatte/out/precious.png", b"x")
    machine.run("hotmatte", "keys", "add", "desk")
    machine.run("dpkg", "--purge", "hotmatte")
    left = machine.out(
        "find", "/var/lib/hotmatte", "/etc/hotmatte", "/opt", "-name", "*", "-type", "f"
    ).splitlines()
    assert "/var/lib/hotmatte/out/precious.png" in left
    assert not [path for path in left if "journal" in path or "/opt/hotmatte" in path or path == CONFIG]
    # The pipe and the hashes of keys included.
    assert "/var/lib/hotmatte/out" == machine.out(
        "find", "/var/lib/hotmatte", "-mindepth", "1", "-maxdepth", "1"
    )
    assert not machine.exists("/var/cache/hotmatte")
    for name in ("first", "second", "third"):
        assert machine.exists(f"{HOT}/{name}.jpg")
        assert machine.exists(f"{OUT}/{name}.matte.png")
    assert machine.run("systemctl", "cat", "hotmatte", check=False).returncode != 0
    # Files on shares keep their owner's name.
    assert machine.owner(f"{OUT}/first.matte.png") == "hotmatte:hotmatte 664"
