"""A service with fewer tasks (TasksMax=) than its threads and processes could be: slower, but every photo is done."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from daemonrig import DaemonRig, check_set, drop, jpeg

# RLIMIT_NPROC counts all tasks of a user, and root has no limit: somebody else, with root's powers over files.
SETPRIV = ("setpriv", "--reuid={uid}", "--regid=65534", "--clear-groups")
POWERS = ("--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search")


def nobody() -> list[str]:
    return [word.format(uid=53_000 + os.getpid() % 1000) for word in (*SETPRIV, *POWERS)]


def allow(pid: int, tasks: int) -> None:
    subprocess.run([*nobody(), "prlimit", f"--pid={pid}", f"--nproc={tasks}:4000"], check=True)


@pytest.fixture
def limited(rig, real_part):
    """`limited(tasks, settings)`: a daemon that may have so many. Its user has no other processes."""
    there = os.geteuid() == 0 and bool(shutil.which("setpriv") and shutil.which("prlimit"))
    real_part("setpriv", there, "only root may become somebody with a limit of tasks")

    def start(tasks: int, **settings: Any) -> DaemonRig:
        daemon = rig(card="tiny", **settings)
        # Powers over files do not count for access(2), by which a daemon finds out whether a folder lets it in.
        for folder in (daemon.root, *daemon.root.parents):
            if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
                folder.chmod(0o777)
        daemon.start(command=[*nobody(), "prlimit", f"--nproc={tasks}:4000", *daemon.command("run")])
        return daemon

    return start


@pytest.mark.parametrize("rendering", ["threads", "processes"])
def test_fewer_tasks_than_threads_cost_time_not_photos(limited, rendering):
    daemon = limited(48, folders={"a": {}, "b": {}}, limits={"threads": 24, "rendering": rendering})
    for name in ("a", "b"):
        drop(daemon.hot(name) / "first.jpg", jpeg(1, width=320, height=240))
        daemon.wait_done("first.jpg", name)
    for number in range(60):
        for name in ("a", "b"):
            drop(daemon.hot(name) / f"{number}.jpg", jpeg(number, width=320, height=240))
    daemon.wait(lambda: daemon.counts().get("done") == 122, timeout=60)
    for name in ("a", "b"):
        assert len(daemon.sidecars(name)) == 61 and not daemon.reports(name)
        for sidecar, content in daemon.sidecars(name).items():
            check_set(sidecar, content, daemon.out(name))
    assert "Traceback" not in daemon.log()
    assert daemon.stop() == 0


def test_a_service_with_too_few_tasks_says_so_and_goes_on_when_there_are_more(limited):
    daemon = limited(4000, limits={"threads": 4})
    allow(daemon.pid, 4)
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait(lambda: "cannot start a thread" in daemon.log(), timeout=20)
    assert "Raise TasksMax= of the service" in daemon.log()
    allow(daemon.pid, 4000)
    daemon.wait_done("a.jpg")
    assert "Traceback" not in daemon.log()
    assert daemon.stop() == 0
