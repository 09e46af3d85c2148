"""A damaged journal is noticed when it is opened, kept, and replaced by a new one."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from watcher.domain import Ended, JobState, Source, Stamp
from watcher.errors import HostError
from watcher.journal import Journal
from watcher.journal_file import JournalCorrupt
from watcher.journal_rescue import open_sound

ROWS = 400


def source(name: str) -> Source:
    return Source("in", name, Stamp(1, 1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.admit_many([source(f"{number}.jpg") for number in range(ROWS)])
    return path


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def drop_table(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE folder")
    db.close()


DAMAGES = {
    "another file": lambda path: path.write_bytes(b"holiday photos" * 1000),
    "nothing left": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no header": lambda path: overwrite(path, 0, bytes(100)),
    "a page of zeros": lambda path: overwrite(path, 4096 * 3, bytes(4096)),
    "a page of something else": lambda path: overwrite(path, 4096 * 2, b"holiday " * 512),
    "a table missing": drop_table,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_set_aside_whole_and_a_new_one_begun(path, damage):
    DAMAGES[damage](path)
    before = path.read_bytes()
    with open_sound(path) as journal:
        assert journal.lacks("in")
        assert journal.counts() == {}
        assert journal.admit(source("new.jpg"))
        [job] = journal.claim(["in"], limit=1, now=time.time(), lease=60)
        # Numbers of the lost journal live on in names of files: they are not given out again.
        assert job.id > ROWS
    [aside] = path.parent.glob("journal.corrupt-*Z")
    assert aside.read_bytes() == before


def test_a_sound_journal_is_opened_as_it_is(path):
    with open_sound(path) as journal:
        assert not journal.lacks("in")
        assert journal.counts() == {"in": {"queued": ROWS}}
    assert not list(path.parent.glob("journal.corrupt-*"))


def test_damage_while_in_use_is_told_from_a_disk_that_refuses(path):
    with Journal(path) as journal:
        journal.check()
        overwrite(path, 0, bytes(path.stat().st_size))
        with sqlite3.connect(path) as other, pytest.raises(sqlite3.DatabaseError):
            other.execute("SELECT * FROM job").fetchall()
        other.close()
        journal._db.execute("PRAGMA shrink_memory")  # nothing remembered
        with pytest.raises(JournalCorrupt):
            journal.known("in")
        assert journal.corrupt is not None
        assert isinstance(JournalCorrupt("x"), HostError)


def test_ended_jobs_are_adopted_once_and_stand_in_the_way_of_doing_them_again(tmp_path):
    with Journal(tmp_path / "new.sqlite") as journal:
        ended = [
            Ended(source("a.jpg"), JobState.DONE, '{"outputs": ["a.png"]}', 100.0),
            Ended(source("caf\udce9.jpg"), JobState.QUARANTINED, '{"reason": "broken"}', 101.0),
        ]
        journal.begin_anew(1000)
        assert journal.lacks("in")
        assert journal.adopt("in", ended) == 2
        assert not journal.lacks("in")
        assert journal.lacks("other")
        assert journal.adopt("in", ended) == 0
        assert journal.known("in") == {
            "a.jpg": (Stamp(1, 1), JobState.DONE),
            "caf\udce9.jpg": (Stamp(1, 1), JobState.QUARANTINED),
        }
        assert journal.admit_many([item.source for item in ended]) == [False, False]
        record = journal.find("in", "a.jpg")
        assert record is not None
        assert (record.outcome, record.ended_at) == ('{"outputs": ["a.png"]}', 100.0)


def test_a_rebuilding_that_is_cut_short_is_taken_up_again(path, monkeypatch):
    """The damaged file is aside, and then the power fails, or the disk is full: the next start must know."""
    path.write_bytes(b"holiday photos" * 1000)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "begin_anew", _disk_full)
        with pytest.raises(HostError):
            open_sound(path)
    assert not path.exists()
    with open_sound(path) as journal:
        assert journal.lacks("in")
    # And one that got as far as a new journal, but not to every folder.
    with open_sound(path) as journal:
        journal.adopt("in", [])
    with open_sound(path) as journal:
        assert journal.lacks("other")
        assert not journal.lacks("in")


def _disk_full(self: Journal, first: int) -> None:
    raise HostError("No space left on device")
