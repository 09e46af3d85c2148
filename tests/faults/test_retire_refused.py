"""One system call of retiring a source is refused, whichever it is: the photo stays whole, and goes at the next try.

strace lists the calls that archiving and deleting make, then a kernel that refuses one of them is
asked for each. Only the first errors in turn, unless `HOTMATTE_FAULTS=full`: then all of them for every call.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from watcher.config import Folder
from watcher.domain import Source, Stamp
from watcher.errors import HostError
from watcher.pipeline import retire as module
from watcher.pipeline.retire import retire

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.ESTALE)
FULL = os.environ.get("HOTMATTE_FAULTS") == "full"
# Memory, signals and threads are no business of a file system; nor is the end.
OTHERS = re.compile(
    r"rt_sig\w+|futex|mmap|munmap|mremap|madvise|brk|mprotect|getrandom|exit_group|gettid|getpid"
)
OLDER = b"an older photo"
CONTENT = os.urandom(200_000)
DONE, REFUSED, BUG = 0, 1, 2
WAYS = ("delete", "archive", "archive beside another", "archive on another disk")


@dataclass(frozen=True)
class Place:
    """A hot folder with one photo that is done, and its archive."""

    root: Path
    folder: Folder
    source: Source

    @property
    def photo(self) -> Path:
        return self.folder.path / self.source.relpath

    @property
    def archived(self) -> Path | None:
        """Where it ends, if it was to be archived."""
        if self.folder.archive is None or self.folder.source != "archive":
            return None
        first = self.folder.archive / "sub" / "a.jpg"
        return first.with_name("a_2.jpg") if first.exists() and first.read_bytes() == OLDER else first

    def retire(self) -> None:
        retire(self.source, self.folder, job_id=7)

    def copies(self) -> list[Path]:
        """Wherever the photo is, whole."""
        roots = [self.folder.path, *filter(None, [self.folder.archive])]
        files = [path for root in roots for path in root.rglob("*") if path.is_file()]
        return [path for path in files if path.read_bytes() == CONTENT]

    def temporaries(self) -> list[Path]:
        roots = [self.folder.path, *filter(None, [self.folder.archive])]
        return [path for root in roots for path in root.rglob("*") if module.LEFTOVER.fullmatch(path.name)]


@pytest.fixture(autouse=True)
def _strace(real_part) -> None:
    real_part("strace", shutil.which("strace"), "it makes system calls fail")


@pytest.fixture
def elsewhere(tmp_path, real_part) -> Iterator[Path]:
    """A folder on another device than `tmp_path`."""
    memory = Path("/dev/shm")
    other = memory.is_dir() and memory.stat().st_dev != tmp_path.stat().st_dev
    real_part("two devices", other and os.access(memory, os.W_OK), "/dev/shm is another device as a rule")
    with tempfile.TemporaryDirectory(dir=memory, prefix="hotmatte-test-") as folder:
        yield Path(folder)


def place(root: Path, elsewhere: Path, way: str) -> Place:
    hot, archive = root / "hot", (elsewhere if "another disk" in way else root) / "archive"
    photo = hot / "sub" / "a.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(CONTENT)
    if "beside" in way:
        (archive / "sub").mkdir(parents=True)
        (archive / "sub" / "a.jpg").write_bytes(OLDER)
    folder = Folder(path=hot, output=root / "out", archive=archive, source=way.split()[0])
    return Place(root, folder, Source("hot", "sub/a.jpg", Stamp.of(photo.stat())))


def traced(place: Place, *words: str) -> int:
    """Retire in a process of its own, whose system calls are traced as `words` say; how it ended."""
    child = os.fork()
    if child == 0:
        status = BUG
        try:
            os.kill(os.getpid(), signal.SIGSTOP)
            place.retire()
            status = DONE
        except HostError:
            status = REFUSED
        finally:
            os._exit(status)
    os.waitpid(child, os.WUNTRACED)
    tracer = subprocess.Popen(
        ["strace", *words, "-p", str(child)], stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    os.kill(child, signal.SIGCONT)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    tracer.communicate(timeout=20)
    return status


def calls_of(place: Place, log: Path) -> list[tuple[str, int]]:
    """What retiring asks of the kernel: (name, the how manieth of that name)."""
    assert traced(place, "-o", str(log)) == DONE
    names = re.findall(r"(?m)^(\w+)\(", log.read_text())
    seen: Counter[str] = Counter()
    calls = []
    for name in names:
        seen[name] += 1
        if not OTHERS.fullmatch(name):
            calls.append((name, seen[name]))
    return calls


@pytest.mark.parametrize("way", WAYS)
def test_whichever_system_call_of_retiring_is_refused_the_photo_stays_and_goes_later(
    tmp_path, elsewhere, way
):
    calls = calls_of(place(tmp_path / "model", elsewhere / "model", way), tmp_path / "log")
    assert len(calls) > 5
    ends: Counter[int] = Counter()
    for turn, (name, n) in enumerate(calls):
        for number in ERRORS if FULL else [ERRORS[turn % len(ERRORS)]]:
            case = f"{way}: {name} {n} {errno.errorcode[number]}"
            one = place(tmp_path / case.replace("/", " "), elsewhere / case, way)
            what = f"inject={name}:error={errno.errorcode[number]}:when={n}"
            status = traced(one, "-o", os.devnull, "-e", f"trace={name}", "-e", what)
            ends[status] += 1
            assert status in (DONE, REFUSED), case
            if status == REFUSED:
                # Where whoever looks for it finds it: the next scan, or its photographer in the archive. Or
                # it is deleted, and only the folder could not be synced after that.
                ends_well = {one.photo, one.archived} & set(one.copies())
                assert ends_well or (way == "delete" and not one.copies()), case
                one.retire()
            assert not one.photo.exists(), case
            assert len(one.copies()) == (0 if way == "delete" else 1), case
            assert one.temporaries() == [], case
            assert "beside" not in way or one.archived.name == "a_2.jpg", case
    print(f"\n{way}: {len(calls)} calls, {ends[REFUSED]} refusals told, {ends[DONE]} did not matter")
    assert ends[REFUSED] >= 3


def test_a_source_that_is_left_is_not_even_looked_at(tmp_path):
    one = place(tmp_path / "hot", tmp_path, "leave")
    assert calls_of(one, tmp_path / "log") == []
    assert one.copies() == [one.photo]
