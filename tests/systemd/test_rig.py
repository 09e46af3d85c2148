"""The machine boots whole or not at all, and what it stands on is never touched."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine import RIG, can_boot

NAME = f"refused{os.getpid()}"
STATE = Path(f"/run/sdboot.{NAME}")


@pytest.fixture(autouse=True)
def _nothing_is_left(real_part: Callable[[str, object, str], None]) -> Iterator[None]:
    """Not even before `stop`, which has nothing to do then; and the host's /tmp is as it was."""
    lacking = can_boot()
    real_part("systemd", not lacking, lacking)
    try:
        with tempfile.NamedTemporaryFile(dir="/tmp", prefix="hotmatte-marker-") as marker:
            yield
            assert Path(marker.name).exists()
        assert not STATE.exists()
        assert not any(STATE.name in folders for _, folders, _ in os.walk("/sys/fs/cgroup"))
        running = subprocess.run(["pgrep", "-fa", NAME], capture_output=True, text=True, check=False)
        assert not running.stdout
    finally:
        stopped = rig("stop")
    assert (stopped.returncode, stopped.stderr) == (0, "")


def rig(verb: str, *words: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RIG, verb, NAME, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": path},
    )


@pytest.mark.parametrize(
    ("tool", "does", "line"),
    [
        ("mount", "false", 'mount -t tmpfs -o "size=${SIZE:-3g}" tmpfs "$STATE/disk"'),
        ("mount", "true", 'mountpoint -q "$root"'),
        ("pivot_root", "false", "pivot_root . .sdboot"),
        ("pivot_root", "true", '[ "$(stat -c %d /)" = "$device" ]'),
    ],
)
def test_the_first_step_that_fails_or_only_says_it_worked_ends_the_boot(
    tmp_path: Path, tool: str, does: str, line: str
) -> None:
    fake = tmp_path / tool
    fake.write_text(f"#!/bin/sh\n{does}\n")
    fake.chmod(0o755)
    started = rig("start", path=f"{tmp_path}:{os.environ['PATH']}")
    assert started.returncode == 1
    assert f"failed: {line}\n" in started.stderr
    # Noticed, not waited for.
    assert started.stderr.endswith(f"sdboot: {NAME} ended while it booted\n")


def test_a_folder_that_is_not_there_cannot_be_bound(tmp_path: Path) -> None:
    started = rig("start", f"{tmp_path / 'absent'}:/mnt/absent")
    assert started.returncode == 1
    assert started.stderr.endswith(f"sdboot: there is no {tmp_path / 'absent'} to bind\n")


def test_nobody_boots_into_the_namespaces_they_are_in() -> None:
    booted = rig("boot")
    assert (booted.returncode, booted.stderr) == (1, "sdboot: only start boots\n")


def test_a_command_never_runs_in_a_process_that_got_the_number_of_the_machine(tmp_path: Path) -> None:
    STATE.mkdir()
    (STATE / "pid").write_text(f"{os.getpid()}\n")
    (STATE / "outer").write_text(f"{os.getpid()}\n")
    (STATE / "cgroups").touch()
    ran = rig("exec", "touch", str(tmp_path / "touched"))
    assert (ran.returncode, ran.stderr) == (1, f"sdboot: {NAME} is not running\n")
    assert not (tmp_path / "touched").exists()
    # Nor is that one killed.
    assert rig("stop").returncode == 0
