"""System calls that fail, or are the last: whichever write, sync or rename of the journal and of an archive it is.

strace makes the kernel refuse the n-th call of a kind on files of one place, or kill the daemon at it.
`HOTMATTE_FAULTS=full` tries every n there is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from aftermath import Versions, check_journal, check_results, check_sources, settled
from daemonrig import DaemonRig, drop, jpeg, sha256

from watcher.health import JOURNAL

FULL = os.environ.get("HOTMATTE_FAULTS") == "full"
RETIRING = "rename,renameat,renameat2,link,linkat,unlink,unlinkat,fsync"
# (calls, n): what the daemon is killed at. A journal is written by pwrite64 and fdatasync.
DEATHS: Sequence[tuple[str, int]] = (
    [
        *[(calls, n) for calls in ("pwrite64", "fdatasync") for n in range(1, 13)],
        *[(RETIRING, n) for n in range(1, 5)] * 3,
    ]
    if FULL
    else [("pwrite64", 9), ("fdatasync", 2), (RETIRING, 1), (RETIRING, 2), (RETIRING, 3)]
)
# A call that is not made in this time is not on the way.
REACHED_S = 10.0
TRACED = "strace", "-D", "-f", "-q", "-o", os.devnull


@pytest.fixture(autouse=True)
def _strace(real_part) -> None:
    real_part("strace", shutil.which("strace"), "it makes system calls fail")


def inject(calls: str, what: str, paths: Sequence[Path]) -> list[str]:
    places = [word for path in paths for word in ("-P", str(path))]
    return ["-e", f"trace={calls}", "-e", f"inject={calls}:{what}", *places]


@contextlib.contextmanager
def failing(daemon: DaemonRig, calls: str, error: str, paths: Sequence[Path]) -> Iterator[None]:
    """From now until the block ends, `calls` of the running daemon on `paths` fail with `error`."""
    words = inject(calls, f"error={error}", paths)
    tracer = subprocess.Popen(
        ["strace", "-f", "-o", os.devnull, *words, "-p", str(daemon.pid)],
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=20)


def journal_files(daemon: DaemonRig) -> list[Path]:
    journal = daemon.state / JOURNAL
    return [journal, journal.with_name(f"{JOURNAL}-wal"), journal.with_name(f"{JOURNAL}-shm")]


def test_a_journal_that_cannot_be_written_for_a_while_loses_nothing(rig):
    daemon: DaemonRig = rig(folders={"in": {"source": "archive"}}, card="tiny")
    daemon.start()
    versions: Versions = {}
    for calls in ("pwrite64", "fdatasync"):
        said = daemon.log().count("I/O error")
        with failing(daemon, calls, "EIO", journal_files(daemon)):
            for number in range(2):
                content = jpeg(len(versions))
                drop(daemon.hot() / f"{calls} {number}.jpg", content)
                versions["in", f"{calls} {number}.jpg"] = [sha256(content)]
            daemon.wait(lambda said=said: daemon.log().count("I/O error") > said, timeout=30)
        for _, name in versions:
            assert daemon.wait_done(name, timeout=40).job.attempts == 1
    daemon.wait(lambda: not list(daemon.hot().iterdir()), timeout=30)
    assert daemon.stop() == 0
    check_results(daemon, versions)
    check_sources(daemon, versions)
    check_journal(daemon)


def test_whichever_system_call_is_the_last_nothing_is_lost_or_doubled(rig):
    retry = {"max_attempts": 100, "base_delay_s": 0.02, "max_delay_s": 0.2}
    daemon: DaemonRig = rig(
        folders={"in": {"source": "archive"}, "drain": {"source": "delete"}}, card="tiny", retry=retry
    )
    daemon.start()
    assert daemon.stop() == 0
    versions: Versions = {}
    reached = 0
    for round_, (calls, n) in enumerate(DEATHS):
        name = f"{round_ % 3}.jpg"  # the same names over and over, so that archives number them
        for folder in ("in", "drain"):
            content = jpeg(1000 * (round_ + 1) + len(folder))
            drop(daemon.hot(folder) / name, content)
            versions.setdefault((folder, name), []).append(sha256(content))
        places = _of_retiring(daemon, name) if calls == RETIRING else journal_files(daemon)
        words = inject(calls, f"signal=KILL:when={n}", places)
        daemon.start(ready=False, command=[*TRACED, *words, *daemon.command("run")])
        reached += died(daemon, [daemon.hot(folder) / name for folder in ("in", "drain")])
    print(f"\nsystem calls: {reached} of {len(DEATHS)} deaths")
    assert reached >= len(DEATHS) // 2
    daemon.start()
    daemon.wait(lambda: settled(daemon, versions), timeout=60)
    assert daemon.stop() == 0
    check_results(daemon, versions)
    check_sources(daemon, versions)
    check_journal(daemon)
    assert daemon.leftovers() == []


def died(daemon: DaemonRig, photos: Sequence[Path]) -> bool:
    """Whether it died of the call; not if all photos are gone, and some time after that it still lives."""
    assert daemon.child is not None
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        daemon.wait(lambda: not any(photo.exists() for photo in photos), timeout=REACHED_S)
        daemon.child.wait(1.0)
    ended = daemon.child.poll()
    if ended is None:
        daemon.kill()
    return ended == -signal.SIGKILL


def _of_retiring(daemon: DaemonRig, name: str) -> list[Path]:
    """strace looks for paths by their letters: each step of archiving and deleting has one of these."""
    files = [daemon.hot("in") / name, daemon.archive("in") / name, daemon.hot("drain") / name]
    return [*files, daemon.archive("in"), daemon.hot("drain")]
