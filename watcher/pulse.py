"""Signs of life of loops, and the kernel's word on why one is missing.

A loop that waits for a file system is that share's affair: its folder goes offline, and the rest works
on. One that waits for a lock of ours, computes without end, or has ended will do so for ever, and
only a new start helps.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

# Loops wake at least every five seconds.
PROMISE_S = 6.0
# For so long an overdue loop must not have moved at all: however slow the machine, its thread would have.
# Transactions that hold the lock of the journal are shorter by far.
STILL_S = 30.0
# And so long it may compute, in seconds of a core, before somebody doubts that it comes to an end.
SPIN_S = 60.0
_TASKS = Path("/proc/self/task")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# The kernel knows a name of 15 bytes for each thread: `ps -L`, `top -H` show it.
_NAME_BYTES = 15
# Whoever waits there waits for us: futex, nanosleep, clock_nanosleep, poll, select and their like, and
# restart_syscall, which is how they go on after a stop. On other machines nobody is suspected.
_OUR_OWN = {
    "x86_64": ("202", "35", "230", "7", "23", "270", "271", "219"),
    "aarch64": ("98", "101", "115", "72", "73", "128"),
}.get(platform.machine(), ())


_called = threading.local()


class Pulse:
    """Of one loop. `beat` is called in its thread, everything else in any."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.due: float | None = None  # monotonic; None: nothing was promised
        self.thread: threading.Thread | None = None

    def beat(self, within: float = PROMISE_S) -> None:
        """Alive, and to be heard of again within so many seconds."""
        if self.thread is None:
            self.thread = threading.current_thread()
            _call_thread(self.name)
        self.due = time.monotonic() + within

    def rest(self) -> None:
        """Ends on purpose."""
        self.due = None


def _call_thread(name: str) -> None:
    """Tell the kernel the name of this thread, unless it knows: there is a pulse for each photo."""
    if getattr(_called, "name", None) != name:
        _called.name = name
        with suppress(OSError):
            (_TASKS / str(threading.get_native_id()) / "comm").write_bytes(os.fsencode(name)[:_NAME_BYTES])


@dataclass(frozen=True, slots=True)
class _Look:
    """What the kernel says of a thread; `cpu` in seconds, `call`: the system call it waits in."""

    due: float
    at: float
    call: str
    wakes: int
    cpu: float


class Vigil:
    """Who hangs by our own fault? Asked by one thread, about once a second."""

    def __init__(self, *, still_s: float = STILL_S, spin_s: float = SPIN_S) -> None:
        self._still_s = still_s
        self._spin_s = spin_s
        self._first: dict[Pulse, _Look] = {}

    def hung(self, pulses: Iterable[Pulse], now: float) -> dict[Pulse, str]:
        """Those that will not be heard of again, and why. `now` is monotonic."""
        late = [(pulse, due) for pulse in pulses if (due := pulse.due) is not None and now > due]
        self._first = {pulse: look for pulse, look in self._first.items() if (pulse, look.due) in late}
        found: dict[Pulse, str] = {}
        asleep: dict[Pulse, str] = {}
        is_away = False
        for pulse, due in late:
            look = _look(pulse, due, now)
            if look is None:
                found[pulse] = "its thread has ended"
                continue
            first = self._first.get(pulse, look)
            if look.wakes != first.wakes:  # it moves: asked anew, from now on
                first = replace(look, cpu=first.cpu)
            self._first[pulse] = first
            if look.cpu - first.cpu > self._spin_s:
                found[pulse] = "it computes without end"
            elif look.call in _OUR_OWN:
                if now - first.at >= self._still_s:
                    asleep[pulse] = "it waits for what does not come"
            elif look.call != "running":
                is_away = True
        # A lock may be held by whoever waits for a share that does not answer.
        return found if is_away else found | asleep


def _look(pulse: Pulse, due: float, now: float) -> _Look | None:
    """None where the thread is no more."""
    thread = pulse.thread
    if thread is None or not thread.is_alive():
        return None
    task = _TASKS / str(thread.native_id)
    try:
        call = (task / "syscall").read_text().split()[0]
    except (OSError, IndexError):
        call = "unknown"
    try:
        # After the name, which may hold anything: state, ..., utime and stime as fields 14 and 15 of proc(5).
        fields = (task / "stat").read_text(errors="replace").rpartition(")")[2].split()
        status = (task / "status").read_text(errors="replace")
    except OSError:
        return None
    wakes = status.partition("voluntary_ctxt_switches:")[2].split()[0]
    return _Look(due, now, call, int(wakes), (int(fields[11]) + int(fields[12])) * _TICK_S)


def whereabouts(pulse: Pulse) -> str:
    """Where in the program the thread of `pulse` is, the innermost call last."""
    frame = sys._current_frames().get(pulse.thread.ident or 0) if pulse.thread else None
    if frame is None:
        return "nowhere"
    # The first three are those of every thread.
    calls = traceback.extract_stack(frame)[3:][-4:]
    return " > ".join(f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in calls)
