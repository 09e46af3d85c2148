"""What processes have used, as the kernel counts it: CPU seconds and memory. Reads /proc only."""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_S = 0.1


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of `pid`; proc(5), fields 14 and 15 of stat."""
    # The command's name may hold blanks and brackets: count from its end.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def tree_cpu_seconds(pid: int) -> float:
    """The same of `pid`, of its children and of those it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    gone = (int(fields[13]) + int(fields[14])) / _TICKS
    return cpu_seconds(pid) + gone + sum(map(tree_cpu_seconds, children(pid)))


def scheduled(pid: int) -> tuple[float, float]:
    """Seconds that the threads there are of `pid` have had a core, and have waited for one: proc(5), schedstat."""
    ran = waited = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        times = (task / "schedstat").read_text(encoding="ascii").split()
        ran, waited = ran + int(times[0]), waited + int(times[1])
    return ran / 1e9, waited / 1e9


def wakeups(pid: int) -> int:
    """How often any thread of `pid` has slept and been woken."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += _number(task / "status", "voluntary_ctxt_switches:")
    return total


def resident_mb(pid: int) -> float:
    """All pages that are mapped and in memory, shared ones in full; megabytes."""
    return _number(Path(f"/proc/{pid}/status"), "VmRSS:") * 1024 / 1e6


def huge_mb(pid: int) -> float:
    """What of it lies in transparent huge pages; megabytes."""
    return _number(Path(f"/proc/{pid}/smaps_rollup"), "AnonHugePages:") * 1024 / 1e6


def peak_mb(pid: int) -> float:
    """The most of `pid` that was ever in memory at one time, shared pages in full; megabytes."""
    return _number(Path(f"/proc/{pid}/status"), "VmHWM:") * 1024 / 1e6


def children(pid: int) -> list[int]:
    """The child processes of every thread of `pid`."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text(encoding="utf-8").split())
    return found


def works_on_photos(pid: int) -> bool:
    """Whether `pid` is one of the daemon's processes that decode or render photos, not its engine."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"watcher.pipeline.reader" in command or b"watcher.pipeline.renderer" in command


def _number(path: Path, key: str) -> int:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise LookupError(f"{path} has no {key}")


def _shared_fairly_mb(pid: int) -> float:
    """Like `resident_mb`, but a page that n processes share counts as 1/n: these may be added up."""
    return _number(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") * 1024 / 1e6


def tree_mb(pid: int) -> float:
    """Memory of `pid` and all below it; 0 once it is gone."""
    try:
        return _shared_fairly_mb(pid) + sum(tree_mb(child) for child in children(pid))
    except (OSError, LookupError):
        return 0.0


def rise_mb(work: Callable[[], object]) -> float:
    """By how much memory rises at most while this process does `work`; megabytes.

    What was freed before but not given back to the kernel is given back first, or `work` would use it unseen.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # Sets VmHWM back to what is resident now: proc(5).
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_mb(os.getpid())
    work()
    return peak_mb(os.getpid()) - before


@dataclass(frozen=True, slots=True)
class Spent:
    """What a command used, its children included. `peak_mb` is the largest sum found by sampling."""

    wall: float
    cpu: float
    peak_mb: float


def spent_by(command: Sequence[str], *, env: Mapping[str, str], log: Path, cores: AbstractSet[int]) -> Spent:
    """Run `command` to its end on `cores`. Raises RuntimeError, with the end of `log`, where it fails."""
    ours = os.sched_getaffinity(0)
    with log.open("wb") as words:
        began = time.perf_counter()
        os.sched_setaffinity(0, cores)  # inherited
        try:
            child = subprocess.Popen(
                command, env=dict(env), stdin=subprocess.DEVNULL, stdout=words, stderr=words
            )
        finally:
            os.sched_setaffinity(0, ours)
        peak = Peak(child.pid)
        # Not child.wait(): wait4 alone tells what this child and its children used.
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        peak_mb = peak.stop()
    if child.returncode:
        end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"{command[0]} ended with {child.returncode}:\n{end}")
    return Spent(wall, used.ru_utime + used.ru_stime, peak_mb)


class Peak:
    """Looks at a tree of processes every tenth of a second, or more seldom.

    A look at a gigabyte takes the kernel some milliseconds, which are not free for who is measured.
    """

    def __init__(self, pid: int, *, every: float = _SAMPLE_S) -> None:
        self._pid = pid
        self._every = every
        self._peak = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="peak", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(self._every):
            self._peak = max(self._peak, tree_mb(self._pid))

    def stop(self) -> float:
        self._over.set()
        self._thread.join()
        return self._peak


class GpuUse:
    """How busy the first GPU is, from now on: what `nvidia-smi` says ten times a second."""

    def __init__(self) -> None:
        self._told = subprocess.Popen(
            [
                "nvidia-smi",
                "--query-gpu=utilization.gpu",
                "--format=csv,noheader,nounits",
                "--id=0",
                "-lms",
                "100",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> float:
        """The median of the moments in which it did anything, in percent; 0 if there was none."""
        self._told.terminate()
        said, _ = self._told.communicate()
        busy = [int(word) for word in said.split() if word.isdecimal() and int(word) > 0]
        return statistics.median(busy) if busy else 0.0
