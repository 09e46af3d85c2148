"""The real watchdog on a real file system. The journal is the smallest thing that keeps its promises."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from watcher import mounts
from watcher.config import Folder
from watcher.domain import JobState, Source, Stamp
from watcher.intake.watch import FolderWatch

QUIET_S = 0.2


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


PHOTO = _jpeg()


class MemoryJournal:
    """Admission by (path, stamp), as the journal's UNIQUE makes it; nothing is ever claimed."""

    def __init__(self):
        self.rows: dict[str, tuple[Stamp, JobState]] = {}
        self.admitted: list[Source] = []
        self.gone: list[str] = []
        self.passed: list[tuple[str, str]] = []
        self.identity: str | None = None
        self.rests: dict[str, str] = {}
        self.lock = threading.Lock()

    def admit_many(self, sources):
        with self.lock:
            fresh = []
            for source in sources:
                new = self.rows.get(source.relpath, (None,))[0] != source.stamp
                if new:
                    self.rows[source.relpath] = (source.stamp, JobState.QUEUED)
                    self.admitted.append(source)
                fresh.append(new)
            return fresh

    def pass_over(self, source, companion_of, half=None):
        with self.lock:
            self.rows[source.relpath] = (source.stamp, JobState.DONE)
            self.passed.append((source.relpath, companion_of))

    def free_companions(self, folder, relpaths):
        with self.lock:
            freed = [name for name, first in self.passed if first in set(relpaths)]
            self.passed = [pair for pair in self.passed if pair[0] not in freed]
            return [name for name in freed if self.rows.pop(name, None)]

    def halves_waited_for(self, folder):
        with self.lock:
            return [first for _, first in self.passed]

    def failed(self, folder, relpath):
        return False

    def versions(self, folder, relpaths):
        with self.lock:
            known = [source for source in self.admitted if source.relpath in set(relpaths)]
            return [(source.relpath, source.stamp) for source in known]

    def known(self, folder):
        with self.lock:
            return dict(self.rows)

    def mark_gone(self, folder, relpaths):
        with self.lock:
            present = [relpath for relpath in relpaths if self.rows.pop(relpath, None)]
            self.gone += present
            return len(present)

    def folder_identity(self, folder):
        return self.identity if folder == "hot" else self.rests.get(folder)

    def remember_folder(self, folder, identity):
        if folder == "hot":
            self.identity = identity
        else:
            self.rests[folder] = identity

    def places(self, folder):
        return [tuple(key.split(" ", 2)[1:]) for key in self.rests]

    def names(self):
        with self.lock:
            return [source.relpath for source in self.admitted]


class Rig:
    def __init__(self, hot: Path):
        self.hot = hot
        self.journal = MemoryJournal()
        self.done: list[Source] = []
        self.admissions: list[int] = []
        self.watches: list[FolderWatch] = []

    def watch(self, **settings) -> FolderWatch:
        settings = {"quiet_s": QUIET_S, "scan_interval_s": 600.0, "output": self.hot / "mattes"} | settings
        watch = FolderWatch(
            "hot",
            Folder(path=self.hot, **settings),
            self.journal,
            on_admit=self._admitted,
            on_source_done=self.done.append,
            probe_s=0.2,
        )
        self.watches.append(watch)
        watch.start()
        assert watch.ready.wait(10)
        return watch

    def _admitted(self, count):
        self.admissions.append(count)


@pytest.fixture
def rig(tmp_path):
    (tmp_path / "hot").mkdir()
    rig = Rig(tmp_path / "hot")
    yield rig
    for watch in rig.watches:
        assert watch.stop(10)


@pytest.fixture(params=["native", "polling"])
def observer(request):
    return {"observer": request.param, "poll_interval_s": 0.1}


def test_a_file_renamed_into_place_is_admitted_once(rig, tmp_path, eventually, observer):
    watch = rig.watch(**observer)
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    (tmp_path / "a.jpg").rename(rig.hot / "a.jpg")
    eventually(lambda: rig.journal.names() == ["a.jpg"])
    assert rig.journal.admitted[0].stamp == Stamp.of((rig.hot / "a.jpg").stat())
    eventually(lambda: rig.admissions == [1])
    assert watch.status().state == "watching"
    assert watch.status().observer == observer["observer"]


def test_a_hard_link_is_admitted(rig, tmp_path, eventually, observer):
    rig.watch(**observer)
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    os.link(tmp_path / "a.jpg", rig.hot / "a.jpg")
    eventually(lambda: rig.journal.names() == ["a.jpg"])


def test_a_file_that_was_there_at_start_settles_like_any_other(rig, eventually):
    (rig.hot / "sub").mkdir()
    (rig.hot / "sub" / "a.jpg").write_bytes(PHOTO)
    watch = rig.watch(quiet_s=1.0)
    assert rig.journal.names() == []
    eventually(lambda: watch.status().waiting == 1)
    eventually(lambda: rig.journal.names() == ["sub/a.jpg"])


def test_a_slow_writer_is_never_admitted_half_way(rig, eventually, observer):
    watch = rig.watch(**observer)
    half = len(PHOTO) // 2
    with (rig.hot / "slow.jpg").open("wb") as file:
        for place in range(0, half, half // 8):
            file.write(PHOTO[place : min(half, place + half // 8)])
            file.flush()
            eventually(lambda: watch.status().oldest == "slow.jpg")
        # Quiet for longer than the quiet period, several looks long, and still half a file.
        eventually(lambda: watch.status().oldest_s > 4 * QUIET_S)
        assert rig.journal.names() == []
        file.write(PHOTO[file.tell() :])
    eventually(lambda: rig.journal.names() == ["slow.jpg"])
    assert rig.journal.admitted[0].stamp.size == len(PHOTO)


def test_a_truncated_file_waits_and_is_let_go_when_overdue(rig, eventually):
    watch = rig.watch(incomplete_s=1.5)
    (rig.hot / "cut.jpg").write_bytes(PHOTO[:-100])
    eventually(lambda: watch.status().oldest_s > 1.0)
    assert rig.journal.names() == []
    eventually(lambda: rig.journal.names() == ["cut.jpg"])
    (rig.hot / "cut.jpg").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["cut.jpg", "cut.jpg"])


def test_a_file_that_changed_after_admission_is_admitted_with_its_new_stamp(rig, eventually, observer):
    rig.watch(**observer)
    (rig.hot / "a.jpg").write_bytes(PHOTO)
    eventually(lambda: len(rig.journal.admitted) == 1)
    with (rig.hot / "a.jpg").open("ab") as file:
        file.write(b"more")
    eventually(lambda: len(rig.journal.admitted) == 2)
    assert rig.journal.admitted[1].stamp.size == len(PHOTO) + 4


def test_a_burst_in_new_nested_folders_is_admitted_completely(rig, eventually):
    rig.watch()
    expected = set()
    for number in range(3000):
        relpath = f"{number % 10}/{number % 100}/{number % 300}/{number}.jpg"
        path = rig.hot / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTO)
        expected.add(relpath)
    eventually(lambda: len(rig.journal.names()) >= 3000, timeout=30)
    assert set(rig.journal.names()) == expected
    assert len(rig.journal.names()) == 3000
    assert len(rig.admissions) < 300
    eventually(lambda: sum(rig.admissions) == 3000)


def test_a_folder_moved_in_is_admitted_and_watched_from_then_on(rig, tmp_path, eventually):
    rig.watch()
    (tmp_path / "shoot" / "in").mkdir(parents=True)
    (tmp_path / "shoot" / "in" / "a.jpg").write_bytes(PHOTO)
    (tmp_path / "shoot").rename(rig.hot / "shoot")
    eventually(lambda: rig.journal.names() == ["shoot/in/a.jpg"])
    (rig.hot / "shoot" / "in" / "b.jpg").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["shoot/in/a.jpg", "shoot/in/b.jpg"])


def test_a_name_that_is_not_utf8_is_admitted(rig, eventually, observer):
    rig.watch(**observer)
    with open(os.fsencode(rig.hot) + b"/caf\xe9.jpg", "wb") as file:
        file.write(PHOTO)
    eventually(lambda: rig.journal.names() == ["caf\udce9.jpg"])


def test_what_is_no_photo_of_this_folder_is_never_admitted(rig, tmp_path, eventually, observer):
    (rig.hot / "mattes").mkdir()
    watch = rig.watch(**observer)
    (tmp_path / "secret.jpg").write_bytes(PHOTO)
    os.mkfifo(rig.hot / "pipe.jpg")
    (rig.hot / "folder.jpg").mkdir()
    (rig.hot / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (rig.hot / "away").symlink_to(tmp_path)
    (rig.hot / "mattes" / "a.png").write_bytes(PHOTO)
    (rig.hot / "mattes" / "deep").mkdir()
    (rig.hot / "mattes" / "deep" / "a.png").write_bytes(PHOTO)
    (rig.hot / ".b.jpg.17.tmp").write_bytes(PHOTO)
    (rig.hot / "folder.jpg" / "inside.jpg").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["folder.jpg/inside.jpg"])
    watch.rescan()
    eventually(lambda: watch.status().symlinks == 2)
    (rig.hot / "last.jpg").write_bytes(PHOTO)
    eventually(lambda: "last.jpg" in rig.journal.names())
    eventually(lambda: watch.status().waiting == 0)
    assert rig.journal.names() == ["folder.jpg/inside.jpg", "last.jpg"]


def test_a_file_that_is_deleted_or_renamed_counts_as_gone(rig, eventually, observer):
    rig.watch(**observer)
    for name in ("a.jpg", "b.jpg"):
        (rig.hot / name).write_bytes(PHOTO)
    eventually(lambda: len(rig.journal.admitted) == 2)
    (rig.hot / "a.jpg").unlink()
    (rig.hot / "b.jpg").rename(rig.hot / "c.jpg")
    eventually(lambda: sorted(rig.journal.gone) == ["a.jpg", "b.jpg"])
    eventually(lambda: rig.journal.names()[2:] == ["c.jpg"])


def test_a_file_that_vanished_while_nobody_watched_counts_as_gone(rig, eventually):
    rig.journal.rows["old.jpg"] = (Stamp(1, 1), JobState.DONE)
    rig.watch()
    assert rig.journal.gone == ["old.jpg"]


@pytest.mark.parametrize("source", ["leave", "delete"])
def test_a_source_whose_retirement_was_cut_off_is_told_of(rig, source):
    (rig.hot / "a.jpg").write_bytes(PHOTO)
    stamp = Stamp.of((rig.hot / "a.jpg").stat())
    rig.journal.rows["a.jpg"] = (stamp, JobState.DONE)
    rig.watch(source=source)
    assert rig.done == ([] if source == "leave" else [Source("hot", "a.jpg", stamp)])
    assert rig.journal.admitted == []


def test_an_absent_root_is_not_an_empty_one_and_comes_back_by_itself(rig, eventually, observer):
    watch = rig.watch(**observer)
    (rig.hot / "a.jpg").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["a.jpg"])
    aside = rig.hot.with_name("aside")
    rig.hot.rename(aside)
    eventually(lambda: watch.status().state == "offline")
    eventually(lambda: "cannot be reached: No such file" in watch.status().reason)
    assert "resumes by itself" in watch.status().reason
    assert rig.journal.gone == []
    aside.rename(rig.hot)
    eventually(lambda: watch.status().state == "watching")
    (rig.hot / "b.jpg").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["a.jpg", "b.jpg"])
    assert rig.journal.gone == []


def test_a_root_deleted_and_made_anew_is_watched_again(rig, eventually, observer):
    watch = rig.watch(**observer)
    shutil.rmtree(rig.hot)
    rig.hot.mkdir()
    (rig.hot / "sub").mkdir()
    eventually(lambda: watch.status().state == "watching")
    (rig.hot / "sub" / "a.jpg").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["sub/a.jpg"])
    (rig.hot / "sub" / "b.jpg").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["sub/a.jpg", "sub/b.jpg"])


def test_another_file_system_under_the_path_stops_the_folder_and_forgets_nothing(rig, eventually):
    rig.journal.identity = "nfs4 nas:/photos /"
    rig.journal.rows["a.jpg"] = (Stamp(1, 1), JobState.DONE)
    watch = rig.watch()
    assert watch.status().state == "offline"
    assert "nfs4 nas:/photos" in watch.status().reason
    assert rig.journal.gone == []


def test_a_folder_that_a_first_version_remembered_is_watched_after_the_upgrade(rig, eventually):
    now = mounts.identity(rig.hot)
    rig.journal.identity = now.replace(" /", " //")
    rig.journal.rows["gone.jpg"] = (Stamp(1, 1), JobState.DONE)
    assert rig.watch().status().state == "watching"
    assert rig.journal.identity == now
    assert eventually(lambda: rig.journal.gone == ["gone.jpg"])


def test_a_share_first_seen_unmounted_may_still_come(rig):
    rig.journal.identity = "nfs4 nas:/photos /"
    assert rig.watch().status().state == "watching"
    assert rig.journal.identity != "nfs4 nas:/photos /"


def test_a_folder_that_was_never_there_does_not_keep_others_waiting(tmp_path, eventually):
    rig = Rig(tmp_path / "later")
    watch = rig.watch(output=tmp_path / "out")
    try:
        assert watch.status().state == "offline"
        rig.hot.mkdir()
        eventually(lambda: watch.status().state == "watching")
    finally:
        assert watch.stop(10)


def test_a_folder_is_made_at_start_only_where_that_is_asked_for(tmp_path):
    rig = Rig(tmp_path / "new" / "hot")
    watch = rig.watch(create=True)
    assert watch.status().state == "watching"
    assert watch.stop(10)


def test_a_root_that_is_a_symbolic_link_is_watched(rig, tmp_path, eventually):
    link = tmp_path / "link"
    link.symlink_to(rig.hot)
    rig.hot = link
    assert rig.watch().status().observer == "native"
    (link / "a.jpg").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["a.jpg"])


def test_an_observer_that_died_is_replaced(rig, eventually):
    rig.watch()
    # What a bug in watchdog does to its own thread.
    before = set(threading.enumerate())
    (victim,) = [thread for thread in before if type(thread).__name__ == "InotifyEmitter"]
    victim.stop()
    eventually(lambda: set(threading.enumerate()) - before)
    (rig.hot / "a.jpg").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["a.jpg"])


def test_a_journal_that_fails_for_a_while_loses_no_file(rig, eventually):
    from watcher.errors import HostError

    class Full(MemoryJournal):
        full = True

        def admit_many(self, sources):
            if self.full:
                raise HostError("cannot write the journal: No space left on device")
            return super().admit_many(sources)

    rig.journal = Full()
    watch = rig.watch()
    (rig.hot / "a.jpg").write_bytes(PHOTO)
    eventually(lambda: "No space left" in watch.status().reason)
    rig.journal.full = False
    eventually(lambda: rig.journal.names() == ["a.jpg"])


def test_reading_and_waiting_cost_nothing(rig, eventually):
    for number in range(300):
        (rig.hot / f"{number}.jpg").write_bytes(PHOTO)
    rig.watch(scan_interval_s=600)
    eventually(lambda: len(rig.journal.names()) == 300)
    me = psutil.Process()
    began = me.cpu_times()
    waited = threading.Event()
    for number in range(300):  # our own reading must not be taken for news
        (rig.hot / f"{number}.jpg").read_bytes()
    assert not waited.wait(2.0)
    ended = me.cpu_times()
    assert ended.user + ended.system - began.user - began.system < 0.2
    assert len(rig.journal.names()) == 300


LIMITED = """
    from pathlib import Path
    import sys
    hot, setting, amount = sys.argv[1:]
    from watcher.config import Folder
    from watcher.intake.names import Rules
    from watcher.intake.observer import observe
    folder = Folder(path=hot, output="/nowhere")
    Path(f"/proc/sys/user/{setting}").write_text(amount)
    seen = observe(folder, Rules(folder), print)
    print(seen.kind, seen.degraded, seen.reason)
    seen.stop()
"""


@pytest.mark.parametrize(
    ("setting", "amount", "named"),
    [
        ("max_inotify_watches", "3", "fs.inotify.max_user_watches="),
        ("max_inotify_instances", "0", "fs.inotify.max_user_instances="),
    ],
)
def test_a_limit_of_inotify_leads_to_polling_and_names_the_sysctl(tmp_path, setting, amount, named):
    for number in range(5):
        (tmp_path / "hot" / str(number)).mkdir(parents=True)
    isolated = ["unshare", "--user", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*isolated, "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    done = subprocess.run(
        [*isolated, sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path / "hot"), setting, amount],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("polling True the limit of inotify"), done.stdout + done.stderr
    assert named in done.stdout


# --- What may not be read ------------------------------------------------------------------


def _said(caplog) -> list[str]:
    return [
        record.fields["file"]
        for record in caplog.records
        if record.getMessage().startswith("no permission to read")
    ]


def test_a_photo_that_may_not_be_read_is_told_once_and_taken_when_permission_is_given(
    rig, eventually, observer, permissions, caplog
):
    (rig.hot / "closed.jpg").write_bytes(PHOTO)
    (rig.hot / "closed.jpg").chmod(0)
    (rig.hot / "shut").mkdir()
    (rig.hot / "shut" / "in.jpg").write_bytes(PHOTO)
    (rig.hot / "shut").chmod(0)
    try:
        watch = rig.watch(incomplete_s=1.0, **observer)
        eventually(lambda: "2 files and folders" in watch.status().refused)
        assert "with mode 0000, and hotmatte runs as" in watch.status().refused
        assert "read access" in watch.status().remedy
        # Whose end is missing is given up in time; but of one that nobody has seen nothing is known.
        (rig.hot / "half.jpg").write_bytes(PHOTO[:-9])
        eventually(lambda: rig.journal.names() == ["half.jpg"])
        watch.rescan()
        eventually(lambda: watch.status().waiting == 1)
        assert sorted(_said(caplog)) == ["closed.jpg", "shut"]
    finally:
        (rig.hot / "closed.jpg").chmod(0o600)
        (rig.hot / "shut").chmod(0o700)
    watch.rescan()
    eventually(lambda: sorted(rig.journal.names()) == ["closed.jpg", "half.jpg", "shut/in.jpg"])
    eventually(lambda: watch.status().refused == watch.status().remedy == "")
    assert sorted(_said(caplog)) == ["closed.jpg", "shut"]


# --- A camera's RAW and JPEG ---------------------------------------------------------------


@pytest.mark.parametrize("first", ["a.CR2", "a.JPG"])
def test_of_a_pair_the_preferred_half_is_work_whichever_comes_first(rig, eventually, observer, first):
    rig.watch(pairs="jpeg", pair_wait_s=30.0, **observer)
    (rig.hot / first).write_bytes(PHOTO)
    eventually(
        lambda: rig.journal.names() == ["a.JPG"] if first == "a.JPG" else rig.watches[0].status().waiting
    )
    (rig.hot / ("a.JPG" if first == "a.CR2" else "a.CR2")).write_bytes(PHOTO)
    eventually(lambda: rig.journal.passed == [("a.CR2", "a.JPG")])
    eventually(lambda: rig.journal.names() == ["a.JPG"])
    rig.watches[0].rescan()
    eventually(lambda: rig.done == [] and rig.journal.names() == ["a.JPG"])


def test_a_half_whose_other_half_never_comes_is_work(rig, eventually):
    rig.watch(pairs="jpeg", pair_wait_s=0.5)
    (rig.hot / "a.CR2").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["a.CR2"])
    (rig.hot / "a.JPG").write_bytes(PHOTO)
    eventually(lambda: rig.journal.names() == ["a.CR2", "a.JPG"])
    assert rig.journal.passed == []


@pytest.mark.parametrize("pairs", ["jpeg", "both"])  # the latter: changed since they were passed over
def test_a_half_that_went_while_nobody_watched_leaves_its_turn_to_the_other(rig, eventually, pairs):
    for name in ("gone.CR2", "there.CR2", "there.JPG"):
        (rig.hot / name).write_bytes(PHOTO)
    for half in ("gone", "there"):
        stamp = Stamp.of((rig.hot / f"{half}.CR2").stat())
        rig.journal.pass_over(Source("hot", f"{half}.CR2", stamp), f"{half}.JPG")
    rig.watch(pairs=pairs, pair_wait_s=0.5)
    eventually(lambda: sorted(rig.journal.names()) == ["gone.CR2", "there.JPG"])
    assert rig.journal.passed == [("there.CR2", "there.JPG")]


def test_both_halves_are_work_unless_told_otherwise(rig, eventually):
    rig.watch()
    (rig.hot / "a.CR2").write_bytes(PHOTO)
    (rig.hot / "a.JPG").write_bytes(PHOTO)
    eventually(lambda: sorted(rig.journal.names()) == ["a.CR2", "a.JPG"])
