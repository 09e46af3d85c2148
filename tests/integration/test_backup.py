"""`hotmatte backup` and `restore`: a lost state folder is made good, and nothing is done twice."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

from daemonrig import DaemonRig, drop, jpeg

from watcher import exits
from watcher.domain import JobState
from watcher.health import JOURNAL


def test_a_copy_made_while_the_daemon_works_makes_a_lost_state_folder_good(
    rig: Callable[..., DaemonRig],
) -> None:
    daemon = rig()
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    done = daemon.wait_done("a.jpg")
    copy = daemon.root / "copy.sqlite"
    # Writers at work: pages change under the copy, which is taken again where they did.
    for number in range(20):
        drop(daemon.hot() / f"more {number}.jpg", jpeg(100 + number))
    said = daemon.hotmatte("backup", str(copy))
    assert said.returncode == 0, said.stderr
    assert "copy.sqlite: " in said.stdout
    daemon.wait(lambda: daemon.counts().get("done") == 21, timeout=20)

    refused = daemon.hotmatte("restore", str(copy))
    assert refused.returncode == exits.CONFIG
    assert "runs on" in refused.stderr
    assert daemon.stop() == 0

    shutil.rmtree(daemon.state)
    said = daemon.hotmatte("restore", str(copy))
    assert said.returncode == 0, said.stderr
    results = {path: path.stat().st_mtime_ns for path in daemon.out().glob("a.*")}
    daemon.start()
    daemon.wait(lambda: daemon.counts().get("done") == 21, timeout=20)
    assert daemon.stop() == 0
    # What the copy knew is not done again; its number says that it is the same job.
    record = daemon.record("a.jpg")
    assert record is not None
    assert (record.job.id, record.state) == (done.job.id, JobState.DONE)
    assert {path: path.stat().st_mtime_ns for path in daemon.out().glob("a.*")} == results
    assert len(daemon.sidecars()) == 21
    assert daemon.leftovers() == []


def one_photo_later(rig: Callable[..., DaemonRig]) -> tuple[DaemonRig, Path]:
    """A stopped daemon that has done two photos, and a copy of its journal from between them."""
    daemon = rig()
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    copy = daemon.root / "copy.sqlite"
    assert daemon.hotmatte("backup", str(copy)).returncode == 0
    drop(daemon.hot() / "b.jpg", jpeg(2))
    daemon.wait_done("b.jpg")
    assert daemon.stop() == 0
    return daemon, copy


def test_restore_keeps_the_journal_that_was_there_and_its_owner(rig: Callable[..., DaemonRig]) -> None:
    daemon, copy = one_photo_later(rig)
    if os.geteuid() == 0:
        os.chown(daemon.state, 1234, 1234)
    assert daemon.hotmatte("restore", str(copy)).returncode == 0
    assert not list(daemon.state.glob(f"{JOURNAL}-*"))
    with sqlite3.connect(daemon.state / f"{JOURNAL}.replaced") as old:
        assert old.execute("SELECT count(*) FROM job").fetchone() == (2,)
    old.close()
    if os.geteuid() == 0:
        status = (daemon.state / JOURNAL).stat()
        assert (status.st_uid, status.st_gid) == (1234, 1234)
        assert stat.S_IMODE(status.st_mode) & stat.S_IRUSR
        os.chown(daemon.state, 0, 0)
    assert daemon.counts() == {"done": 1}


def test_what_is_no_whole_journal_is_refused_and_changes_nothing(rig: Callable[..., DaemonRig]) -> None:
    daemon = rig()
    missing = daemon.hotmatte("backup", str(daemon.root / "copy.sqlite"))
    assert missing.returncode == exits.CONFIG
    assert "no journal" in missing.stderr
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    copy = daemon.root / "copy.sqlite"
    assert daemon.hotmatte("backup", str(copy)).returncode == 0
    nowhere = daemon.hotmatte("backup", str(daemon.root / "no" / "such" / "copy.sqlite"))
    assert nowhere.returncode == exits.IO
    assert daemon.stop() == 0
    content = bytearray(copy.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (daemon.root / "half.sqlite").write_bytes(content)
    (daemon.root / "words.sqlite").write_text("photographs\n" * 500)
    with sqlite3.connect(daemon.root / "newer.sqlite") as newer, sqlite3.connect(copy) as plain:
        plain.backup(newer)
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    plain.close()
    before = (daemon.state / JOURNAL).read_bytes()
    for name in ("half", "words", "newer", "absent"):
        refused = daemon.hotmatte("restore", str(daemon.root / f"{name}.sqlite"))
        assert refused.returncode == exits.CONFIG, (name, refused.stderr)
        assert f"{name}.sqlite" in refused.stderr
    assert (daemon.state / JOURNAL).read_bytes() == before
    assert daemon.counts() == {"done": 1}


def test_a_copy_replaces_an_older_copy_and_nothing_else(rig: Callable[..., DaemonRig]) -> None:
    daemon = rig()
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    journal = daemon.state / JOURNAL
    number = journal.stat().st_ino
    photo = (daemon.hot() / "a.jpg").read_bytes()
    for target, words in (
        (daemon.hot() / "a.jpg", "no copy of a journal"),
        (journal, "the journal itself"),
        (daemon.hot(), "is a folder"),
        (Path("."), "is a folder"),
        (Path("/"), "is a folder"),
        (Path("/dev/null"), "no file"),
    ):
        said = daemon.hotmatte("backup", str(target))
        assert (said.returncode, words in said.stderr) == (exits.CONFIG, True), said.stderr
    assert (daemon.hot() / "a.jpg").read_bytes() == photo
    assert journal.stat().st_ino == number
    copy = daemon.root / "copy.sqlite"
    copy.touch()  # as mktemp makes them
    for _ in range(2):
        said = daemon.hotmatte("backup", str(copy))
        assert said.returncode == 0, said.stderr
    assert daemon.stop() == 0


def test_a_second_restore_keeps_what_the_first_one_put_aside(rig: Callable[..., DaemonRig]) -> None:
    daemon, copy = one_photo_later(rig)
    aside = daemon.state / f"{JOURNAL}.replaced"

    for source in (copy, copy, aside):
        assert daemon.hotmatte("restore", str(source)).returncode == 0
    kept = [_jobs(path) for path in (aside, Path(f"{aside}.2"), Path(f"{aside}.3"))]
    assert (kept, _jobs(daemon.state / JOURNAL)) == ([2, 1, 1], 2)

    # SQLite would take the log for that of whichever journal lies under the name.
    aside.rename(f"{aside}-wal")
    assert daemon.hotmatte("restore", str(copy)).returncode == 0
    assert not aside.exists()
    assert _jobs(Path(f"{aside}.4")) == 2


def test_a_name_that_is_no_utf8_is_taken_and_told_escaped(rig: Callable[..., DaemonRig]) -> None:
    daemon = rig()
    daemon.start()
    assert daemon.stop() == 0
    odd = daemon.root / os.fsdecode(b"c\xff.sqlite")
    said = daemon.hotmatte("backup", str(odd))
    assert (said.returncode, said.stdout.split(": ")[0]) == (0, f"{daemon.root}/c\\xff.sqlite")
    assert odd.exists()


def _jobs(journal: Path) -> int:
    with contextlib.closing(sqlite3.connect(journal)) as db:
        return int(db.execute("SELECT count(*) FROM job").fetchone()[0])
