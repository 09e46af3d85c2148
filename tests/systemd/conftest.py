"""One machine, with the package installed, shared by the tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from machine import Machine, can_boot

ROOT = Path(__file__).parents[2]
# Makes hung and lost photos matter within a test's patience.
QUICK = {"quiet_s": 0.1, "create": True, "scan_interval_s": 60}
CARD = """\
name: {name}
title: Luminance, no matte at all
engine: fake
licence: {{weights: none, code: Apache-2.0, attribution: hotmatte, commercial: true, url: "https://example.org"}}
input: {{short_side: 64, multiple: 1, max_side: 512}}
max_batch: 1
max_batch_cpu: 1
warmup: [8, 8]
options: {{latency_s: {latency_s}}}
"""


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
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        ["/usr/bin/python3", str(ROOT / "deploy/debian/build.py"), str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built_one,) = folder.glob("*.deb")
    return built_one


@pytest.fixture(scope="session")
def machine(package: Path) -> Iterator[Machine]:
    """Booted, with the package installed and a service that runs on a fake engine."""
    machine = Machine(f"hotmatte{os.getpid()}", {package.parent: "/mnt/dist"})
    try:
        yield machine
    finally:
        machine.stop()


def settings(hot: str = "/srv/hotmatte/hot", out: str = "/srv/hotmatte/mattes", **more: object) -> str:
    """A configuration on the fake engine."""
    return yaml.safe_dump(
        {
            "state_dir": "/var/lib/hotmatte",
            "folders": {"hot": {**QUICK, "path": hot, "output": out}},
            "profiles": {"portrait": {"model": "quick", "device": "cpu"}},
            "models": {"cards": "/etc/hotmatte/cards", "cache": "/var/cache/hotmatte/models"},
            **more,
        }
    )


@pytest.fixture(scope="session")
def installed(machine: Machine, package: Path) -> Machine:
    """The package installed by dpkg, without a network, and the service stopped."""
    machine.run("dpkg", "-i", "--force-unsafe-io", f"/mnt/dist/{package.name}")
    assert machine.show("hotmatte", "ActiveState")["ActiveState"] in ("activating", "active")
    machine.run("systemctl", "stop", "hotmatte")
    return machine
