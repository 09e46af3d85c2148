"""The journal is damaged, at rest or in use: it is kept, a new one is built, and nothing is done again."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from daemonrig import DaemonRig, drop, jpeg, sha256

from watcher import exits
from watcher.domain import JobState
from watcher.health import JOURNAL

FOLDERS = {"keep": {}, "store": {"source": "archive"}, "drain": {"source": "delete"}}
BROKEN = b"these are not the photos you are looking for"


def start_and_finish_some(daemon: DaemonRig) -> None:
    daemon.start()
    for name in FOLDERS:
        for number in range(3):
            drop(daemon.hot(name) / "day" / f"{number}.jpg", jpeg(number))
    drop(daemon.hot("keep") / "broken.jpg", BROKEN)
    daemon.wait_quarantined("broken.jpg", "keep")
    daemon.wait(lambda: daemon.counts().get("done") == 9, timeout=30)
    daemon.wait(lambda: not sources(daemon, "store") and not sources(daemon, "drain"), timeout=20)


def sources(daemon: DaemonRig, name: str) -> list[Path]:
    return [path for path in daemon.hot(name).rglob("*") if path.is_file()]


def results(daemon: DaemonRig) -> dict[Path, tuple[int, bytes]]:
    """Every file of results, by inode and content: done again, it would be another one."""
    return {
        path: (path.stat().st_ino, path.read_bytes())
        for path in (daemon.root / "out").rglob("*")
        if path.is_file()
    }


def check_rebuilt(daemon: DaemonRig, before: dict[Path, tuple[int, bytes]]) -> None:
    assert results(daemon) == before
    assert daemon.state_of("day/1.jpg", "keep") is JobState.DONE
    assert daemon.state_of("broken.jpg", "keep") is JobState.QUARANTINED
    assert "broken.jpg" in daemon.hotmatte("failed").stdout
    # And it goes on from there.
    drop(daemon.hot("keep") / "new.jpg", jpeg(77))
    daemon.wait_done("new.jpg", "keep")
    assert results(daemon).items() >= before.items()
    assert list(daemon.state.glob("journal.corrupt-*Z"))


def test_a_journal_damaged_at_rest_is_rebuilt_from_the_sidecars(rig):
    daemon = rig(folders=FOLDERS, card="tiny")
    start_and_finish_some(daemon)
    assert daemon.stop() == 0
    # A photo whose matte is safe but which was not archived before the end: it must be, and not be done again.
    drop(daemon.hot("store") / "late.jpg", jpeg(50))
    daemon.start()
    daemon.wait(lambda: daemon.archive("store").joinpath("late.jpg").exists(), timeout=20)
    assert daemon.stop() == 0
    late = daemon.archive("store") / "late.jpg"
    late.rename(daemon.hot("store") / "late.jpg")
    before = results(daemon)
    journal = daemon.state / JOURNAL
    content = bytearray(journal.read_bytes())
    content[4096:12288] = b"\xa5" * 8192
    journal.write_bytes(content)
    daemon.start()
    daemon.wait(lambda: late.exists(), timeout=20)
    check_rebuilt(daemon, before)
    assert "set aside as" in daemon.log()
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


def test_a_journal_damaged_in_use_is_rebuilt_without_a_restart(rig):
    daemon = rig(folders=FOLDERS, card="tiny")
    start_and_finish_some(daemon)
    before = results(daemon)
    damage_in_use(daemon.state / JOURNAL)
    drop(daemon.hot("keep") / "during.jpg", jpeg(60))
    daemon.wait(lambda: list(daemon.state.glob("journal.corrupt-*Z")), timeout=30)
    daemon.wait(lambda: daemon.is_ready() and daemon.status()["generation"] == 2, timeout=30)
    daemon.wait_done("during.jpg", "keep", timeout=30)
    during = daemon.out("keep") / "during.matte.json"
    assert daemon.sidecars("keep")[during]["source"]["sha256"] == sha256(jpeg(60))
    before |= {path: found for path, found in results(daemon).items() if path.name.startswith("during.")}
    check_rebuilt(daemon, before)
    assert daemon.stop() == 0


def damage_in_use(path: Path) -> None:
    """What a failing disk does below SQLite: the pages in the file are others than were written."""
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # A write by somebody else, after which no connection trusts the pages it remembers.
        other.execute("UPDATE folder SET identity = identity")
        other.commit()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.write(b"\x5a" * path.stat().st_size)
    with pytest.raises(sqlite3.DatabaseError):
        other.execute("SELECT count(*) FROM job").fetchall()
    other.close()


def test_a_journal_that_is_removed_in_use_is_rebuilt_without_a_restart(rig):
    daemon = rig(folders=FOLDERS, card="tiny")
    start_and_finish_some(daemon)
    before = results(daemon)
    (daemon.state / JOURNAL).unlink()
    daemon.wait(lambda: "was removed or replaced while in use" in daemon.log(), timeout=20)
    daemon.wait(lambda: daemon.counts().get("done") == 9 and daemon.is_ready(), timeout=30)
    assert results(daemon) == before, "nothing is done again"
    drop(daemon.hot("keep") / "new.jpg", jpeg(77))
    daemon.wait_done("new.jpg", "keep")
    assert "broken.jpg" in daemon.hotmatte("failed").stdout
    assert daemon.stop() == 0


def test_a_state_folder_that_is_removed_in_use_ends_the_daemon_in_words(rig):
    daemon = rig(folders=FOLDERS, card="tiny")
    start_and_finish_some(daemon)
    shutil.rmtree(daemon.state, ignore_errors=True)
    assert daemon.wait_exit(timeout=20) == exits.IO
    assert "was removed while in use" in daemon.log()
    assert "Traceback" not in daemon.log()
