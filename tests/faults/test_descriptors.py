"""Few files may be open, from the start on: the daemon says so, blames no photo, and goes on where more may be."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
from pathlib import Path

import pytest
from aftermath import Versions, check_journal, check_results, check_sources, settled
from daemonrig import DaemonDied, DaemonRig, drop, jpeg, sha256

# The fewest let no engine start; with the most a few photos at a time get through. Where in between a daemon
# gets stuck differs with versions of Python and of watchdog.
FEW = (14, 20, 26)
SAID = "Too many open files"


@pytest.fixture
def daemon(rig, real_part) -> DaemonRig:
    real_part("prlimit", shutil.which("prlimit"), "apt install util-linux")
    folders = {"in": {"source": "archive"}, "drain": {"source": "delete"}}
    made: DaemonRig = rig(folders=folders, card="tiny")
    return made


def limited(daemon: DaemonRig, limit: str) -> list[str]:
    return ["prlimit", f"--nofile={limit}", *daemon.command("run")]


def test_however_few_files_may_be_open_no_photo_is_blamed_and_none_is_lost(daemon):
    versions: Versions = {}
    for few in FEW:
        for folder in ("in", "drain"):
            for number in range(4):
                content = jpeg(few * 100 + number + (50 if folder == "in" else 0))
                drop(daemon.hot(folder) / f"{few} {number}.jpg", content)
                versions[folder, f"{few} {number}.jpg"] = [sha256(content)]
        before = daemon.log().count(SAID)
        daemon.start(ready=False, command=limited(daemon, f"{few}:{few}"))
        with contextlib.suppress(DaemonDied):
            daemon.wait(
                lambda before=before: daemon.log().count(SAID) > before or settled(daemon, versions),
                timeout=30,
            )
            daemon.stop()
        # SIGTERM may meet one that is on its way out already.
        assert daemon.wait_exit(timeout=120) in (0, 69, 74, -signal.SIGTERM), daemon.log()[-2000:]
        assert daemon.reports("in") == daemon.reports("drain") == {}
    assert "LimitNOFILE=" in daemon.log()
    assert f"only {FEW[0]} files may be open" in daemon.log()
    assert "Traceback" not in daemon.log()
    # As a login shell has it: little at first, but more for who asks.
    daemon.start(command=limited(daemon, "64:2048"))
    assert re.search(r"Max open files +2048 +2048 ", Path(f"/proc/{daemon.pid}/limits").read_text())
    daemon.wait(lambda: settled(daemon, versions), timeout=60)
    again = [line for line in daemon.log().splitlines() if "tried again" in line]
    assert {daemon.record(name, folder).job.attempts for folder, name in versions} == {1}, again
    assert daemon.stop() == 0
    check_results(daemon, versions)
    check_sources(daemon, versions)
    check_journal(daemon)
    assert daemon.leftovers() == []
