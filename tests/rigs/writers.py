"""Programs that write photos into a hot folder, all at once, and what must have become of each."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from daemonrig import DaemonRig, check_set, sha256

from watcher.domain import JobState
from watcher.health import JOURNAL

QUIET_S = 0.25
# A writer that stalls does so for several quiet periods.
STALL_S = 6 * QUIET_S
ENDS_S = 60.0


def photo(seed: int, *, side: int = 320) -> bytes:
    """A JPEG of noise, some 120 KB: long enough to be written in pieces."""
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def pieces(content: bytes, count: int = 4) -> list[bytes]:
    step = -(-len(content) // count)
    return [content[start : start + step] for start in range(0, len(content), step)]


def stall() -> None:
    """What the writer does, not what the test waits for."""
    threading.Event().wait(STALL_S)


def sh(command: str, *, cwd: Path, check: bool = True, **variables: object) -> None:
    """Run a shell command; `variables` are its environment."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **{key: str(value) for key, value in variables.items()}}
    done = subprocess.run(
        ["bash", "-ec", command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@dataclass(frozen=True)
class Task:
    """What one writer is to do: bring `content` into `hot` as `name`. `aside` is a folder of its own."""

    hot: Path
    name: str
    content: bytes
    aside: Path

    @property
    def target(self) -> Path:
        return self.hot / self.name

    @property
    def original(self) -> Path:
        """The photo as a file outside the hot folder."""
        path = self.aside / Path(self.name).name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.content)
        return path


Writer = Callable[[Task], None]


@dataclass
class Written:
    """All writers of a family, run side by side on one hot folder of `daemon`."""

    daemon: DaemonRig
    folder: str
    tasks: dict[str, Task] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)

    def run(self, writers: Mapping[str, Writer], *, sides: Mapping[str, int] | None = None) -> None:
        """`sides`: of photos that must be larger or smaller than most, in pixels."""
        threads = []
        for number, (case, writer) in enumerate(writers.items()):
            aside = self.daemon.root / "aside" / self.folder / case
            aside.mkdir(parents=True)
            task = Task(
                self.daemon.hot(self.folder),
                f"{case}.jpg",
                photo(number, side=(sides or {}).get(case, 320)),
                aside,
            )
            self.tasks[case] = task
            threads.append(threading.Thread(target=self._write, args=(case, writer, task)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _write(self, case: str, writer: Writer, task: Task) -> None:
        try:
            writer(task)
        except BaseException as error:
            self.errors[case] = error

    def check(self, case: str, *, versions: int = 1, name: str | None = None) -> None:
        """Exactly one whole result, of the finished file, and no other version was ever done."""
        if case in self.errors:
            raise self.errors[case]
        task = self.tasks[case]
        relpath = name or task.name
        self.daemon.wait(lambda: self._stands(relpath, task.content), timeout=ENDS_S, every=0.1)
        found = [
            (path, content)
            for path, content in self.daemon.sidecars(self.folder).items()
            if content["source"]["path"] == relpath
        ]
        assert len(found) == 1, found
        check_set(*found[0], self.daemon.out(self.folder))
        assert found[0][1]["source"]["sha256"] == sha256(task.content)
        ended = self._ended(relpath)
        assert [state for state, _ in ended] == ["done"] * versions, ended
        assert not [path for path in self.daemon.reports(self.folder) if Path(relpath).stem in path.name]

    def _stands(self, relpath: str, content: bytes) -> bool:
        record = self.daemon.record(relpath, self.folder)
        if record is None or record.state is not JobState.DONE:
            return False
        return record.job.source.stamp.size == len(content)

    def _ended(self, relpath: str) -> list[tuple[str, int]]:
        """State and size of every version that was ever admitted and not forgotten."""
        with sqlite3.connect(f"file:{self.daemon.state / JOURNAL}?mode=ro", uri=True) as db:
            rows = db.execute(
                "SELECT state, size FROM job WHERE folder = ? AND relpath = ?",
                (self.folder, relpath.encode()),
            ).fetchall()
        db.close()
        return rows


def eventually(condition: Callable[[], object], *, timeout: float = 80.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)
