"""How programs on this machine write: each photo ends as exactly one whole result, however slow."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import signal
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonrig import DaemonRig
from rigs.writers import QUIET_S, Task, Writer, Written, eventually, photo, pieces, sh, stall

MEMORY = Path("/dev/shm")


def cp(task: Task) -> None:
    sh("cp -p $FROM $TO", cwd=task.aside, FROM=task.original, TO=task.target)


def mv(task: Task) -> None:
    sh("mv $FROM $TO", cwd=task.aside, FROM=task.original, TO=task.target)


def mv_across_file_systems(task: Task) -> None:
    away = MEMORY / f"hotmatte-{os.getpid()}-{task.name}"
    away.write_bytes(task.content)
    sh("mv $FROM $TO", cwd=task.aside, FROM=away, TO=task.target)


def install(task: Task) -> None:
    sh("install -m 640 $FROM $TO", cwd=task.aside, FROM=task.original, TO=task.target)


def rsync(task: Task) -> None:
    sh("rsync -a $FROM $TO", cwd=task.aside, FROM=task.original, TO=f"{task.hot}/")


def rsync_inplace(task: Task) -> None:
    sh("rsync -a --inplace --bwlimit=120 $FROM $TO", cwd=task.aside, FROM=task.original, TO=f"{task.hot}/")


def rsync_partial_interrupted_and_resumed(task: Task) -> None:
    _interrupted(task, "--partial")


def rsync_inplace_interrupted_and_resumed(task: Task) -> None:
    _interrupted(task, "--inplace")


def _interrupted(task: Task, option: str) -> None:
    """Let rsync lose its connection half-way, as at the edge of a wireless network."""
    command = ["rsync", "-a", option, "--bwlimit=400", "--whole-file", str(task.original), f"{task.hot}/"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        eventually(lambda: _largest(task) > 0)
        first.send_signal(signal.SIGTERM)
    assert first.returncode
    eventually(task.target.exists)  # the receiving half of rsync outlives the sending one a little
    assert 0 < task.target.stat().st_size < len(task.content)
    stall()
    sh(f"rsync -a {option} $FROM $TO", cwd=task.aside, FROM=task.original, TO=f"{task.hot}/")


def _largest(task: Task) -> int:
    """Bytes that have arrived, under the photo's own name or rsync's."""
    return max((path.stat().st_size for path in task.hot.glob(f"*{task.name}*")), default=0)


def unzip(task: Task) -> None:
    with zipfile.ZipFile(task.aside / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(task.original, task.name)
    sh("unzip -q $FROM -d $TO", cwd=task.aside, FROM=task.aside / "a.zip", TO=task.hot)


def tar(task: Task) -> None:
    with tarfile.open(task.aside / "a.tar", "w") as archive:
        archive.add(task.original, task.name)
    sh("tar xf $FROM -C $TO", cwd=task.aside, FROM=task.aside / "a.tar", TO=task.hot)


def hard_link(task: Task) -> None:
    sh("ln $FROM $TO", cwd=task.aside, FROM=task.original, TO=task.target)


def hard_link_written_from_outside(task: Task) -> None:
    """The name is there first; what is written through the other name raises no event here."""
    outside = task.aside / "outside.jpg"
    outside.touch()
    os.link(outside, task.target)
    with outside.open("wb", buffering=0) as file:
        for piece in pieces(task.content):
            file.write(piece)
            stall()


def nameless_then_linked(task: Task) -> None:
    number = os.open(task.hot, os.O_TMPFILE | os.O_RDWR, 0o644)
    os.write(number, task.content)
    libc = ctypes.CDLL(None, use_errno=True)
    source, target = f"/proc/self/fd/{number}".encode(), os.fsencode(task.target)
    assert libc.linkat(-100, source, -100, target, 0x400) == 0, os.strerror(
        ctypes.get_errno()
    )  # AT_SYMLINK_FOLLOW
    os.close(number)


def memory_mapped(task: Task) -> None:
    """Space is reserved, the descriptor closed, and the pixels come later without any event."""
    with task.target.open("w+b") as file:
        file.truncate(len(task.content))
        view = mmap.mmap(file.fileno(), len(task.content))
    at = 0
    for piece in pieces(task.content):
        stall()
        view[at : at + len(piece)] = piece
        at += len(piece)
    view.flush()
    view.close()


def appended_piece_by_piece(task: Task) -> None:
    for piece in pieces(task.content):
        (task.aside / "piece").write_bytes(piece)
        sh("cat piece >> $TO", cwd=task.aside, TO=task.target)
        stall()


def slow_and_kept_open(task: Task) -> None:
    with task.target.open("wb", buffering=0) as file:
        for piece in pieces(task.content):
            file.write(piece)
            stall()


def reserved_first_with_an_old_date(task: Task) -> None:
    with task.target.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, len(task.content))
        os.utime(file.fileno(), (1e9, 1e9))
        for piece in pieces(task.content):
            stall()
            file.write(piece)
            os.utime(file.fileno(), (1e9, 1e9))


def part_then_renamed(task: Task) -> None:
    part = task.target.with_name(task.name + ".part")
    part.write_bytes(task.content[:1000])
    stall()
    part.write_bytes(task.content)
    part.rename(task.target)


def renamed_while_open(task: Task) -> None:
    first = task.target.with_name(task.name + ".tmp")
    halves = pieces(task.content, 2)
    with first.open("wb", buffering=0) as file:
        file.write(halves[0])
        first.rename(task.target)
        stall()
        file.write(halves[1])


def written_over_by_zeros_first(task: Task) -> None:
    """Some copiers write the whole length twice."""
    task.target.write_bytes(bytes(len(task.content)))
    stall()
    task.target.write_bytes(task.content)


def died_and_copied_again(task: Task) -> None:
    task.target.write_bytes(task.content[: len(task.content) // 3])
    stall()
    shutil.copy(task.original, task.target)


WRITERS: dict[str, Writer] = {
    function.__name__: function
    for function in (
        cp,
        mv,
        mv_across_file_systems,
        install,
        rsync,
        rsync_inplace,
        rsync_partial_interrupted_and_resumed,
        rsync_inplace_interrupted_and_resumed,
        unzip,
        tar,
        hard_link,
        hard_link_written_from_outside,
        nameless_then_linked,
        memory_mapped,
        appended_piece_by_piece,
        slow_and_kept_open,
        reserved_first_with_an_old_date,
        part_then_renamed,
        renamed_while_open,
        written_over_by_zeros_first,
        died_and_copied_again,
    )
}
# It writes in blocks of 256 KB: half a photo must be more than one.
SIDES = dict.fromkeys((name for name in WRITERS if "interrupted" in name), 900)
PARTS = ("rsync", "unzip")
FOLDERS = {
    "native": {"quiet_s": QUIET_S, "observer": "native"},
    "polling": {"quiet_s": QUIET_S, "observer": "polling", "poll_interval_s": 0.5},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, real_part) -> Iterator[dict[str, Written]]:
    for part in PARTS:
        real_part(part, shutil.which(part), f"apt install {part}")
    daemon = DaemonRig(tmp_path_factory.mktemp("writers"), folders=FOLDERS, card="tiny")
    try:
        daemon.start()
        all_written = {name: Written(daemon, name) for name in FOLDERS}
        for one in all_written.values():
            one.run(WRITERS, sides=SIDES)
        yield all_written
        assert daemon.stop() == 0
        assert daemon.leftovers() == []
    finally:
        daemon.close()


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("case", WRITERS)
def test_a_writer_ends_as_exactly_one_whole_result(written, folder, case):
    written[folder].check(case)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_tree_moved_in_and_what_is_added_to_it_are_all_done(written, folder, tmp_path):
    one = written[folder]
    for number in range(6):
        path = tmp_path / "shoot" / f"day {number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(100 + number))
    shutil.move(tmp_path / "shoot", one.daemon.hot(folder) / "shoot")
    (one.daemon.hot(folder) / "shoot" / "day 1" / "late.jpg").write_bytes(photo(200))
    names = [f"shoot/day {number % 2}/{number}.jpg" for number in range(6)] + ["shoot/day 1/late.jpg"]
    for number, name in enumerate(names):
        content = photo(100 + number) if number < 6 else photo(200)
        one.tasks[name] = Task(one.daemon.hot(folder), name, content, tmp_path)
        one.check(name)


@pytest.mark.parametrize("folder", FOLDERS)
def test_of_a_camera_that_reuses_names_the_last_photo_stands(written, folder, tmp_path):
    one = written[folder]
    for number in (1, 2, 3):
        task = Task(one.daemon.hot(folder), "DSC_0001.jpg", photo(300 + number), tmp_path)
        one.tasks["camera"] = task
        task.target.write_bytes(task.content)
        one.check("camera", versions=number)
