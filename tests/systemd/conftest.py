"""One machine, with the package installed, shared by the tests of this folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from configured import ROOT
from machine import Machine, can_boot


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, real_part: Callable[[str, object, str], None]) -> Path:
    """What `make deb` builds. HOTMATTE_DEB names one that is built already."""
    lacking = can_boot()
    real_part("systemd", not lacking, lacking)
    tools = all(map(shutil.which, ("dpkg-deb", "gcc", "pkg-config", "ar")))
    headers = Path("/usr/include/systemd/sd-daemon.h").exists()
    real_part(
        "what builds the package", tools and headers, "apt install gcc pkg-config libsystemd-dev python3-dev"
    )
    if built := os.environ.get("HOTMATTE_DEB"):
        return Path(built).resolve()
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # what is above is that of all processes of this run
        folder = folder.parent
    folder /= "dist"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built_one = folder / "built"
        if not built_one.exists():
            built_one.write_text(str(_build(folder)))
    return Path(built_one.read_text())


def _build(folder: Path) -> Path:
    done = subprocess.run(
        ["/usr/bin/python3", str(ROOT / "deploy/debian/build.py"), str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=500,
        check=False,
        env={**os.environ, "DEB_LEVEL": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = folder.glob("*.deb")
    return package


@pytest.fixture(scope="session")
def machine(package: Path) -> Iterator[Machine]:
    """Booted, with the package installed and a service that runs on a fake engine."""
    machine = Machine(f"hotmatte{os.getpid()}", {package.parent: "/mnt/dist"})
    try:
        yield machine
    finally:
        machine.stop()


@pytest.fixture(scope="session")
def installed(machine: Machine, package: Path) -> Machine:
    """The package installed by dpkg, without a network, and the service stopped."""
    machine.run("dpkg", "-i", "--force-unsafe-io", f"/mnt/dist/{package.name}")
    unit = machine.show("hotmatte", "ActiveState", "Job")
    # On its way: it waits for its weights, and the installation does not.
    assert unit["ActiveState"] in ("activating", "active") or int(unit.get("Job") or 0)
    machine.run("systemctl", "stop", "hotmatte")
    return machine
