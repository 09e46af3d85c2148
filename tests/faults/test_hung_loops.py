"""Loops that stop: the watchdog hears nothing any more, whichever it is; those that wait for a share do not count.

strace holds one thread of a real daemon the moment it is about to wait. Its share of the work is not
done from then on, and all others live. (Shares that hang: test_shares_that_vanish.py.)
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonrig import DaemonRig, drop, jpeg

LOOPS = ("intake-in", "dispatch-in", "infer", "bell")
MARK = b"MARK"
# A wait that strace interrupts goes on by restart_syscall: so that each is held in the sleep it is in, and not
# while it holds what all others need.
WAITS = "restart_syscall,futex,poll,ppoll"


def threads_of(daemon: DaemonRig) -> dict[str, int]:
    """By the name that the kernel knows; those that a thread has started since have its name, too."""
    tasks = sorted(Path(f"/proc/{daemon.pid}/task").iterdir(), key=lambda task: -int(task.name))
    return {(task / "comm").read_text().strip(): int(task.name) for task in tasks}


@contextlib.contextmanager
def held(*threads: int) -> Iterator[None]:
    """Until the block ends, these threads go to sleep and do not wake up."""
    words = [word for thread in threads for word in ("-p", str(thread))]
    tracer = subprocess.Popen(
        ["strace", "-e", f"trace={WAITS}", "-e", f"inject={WAITS}:delay_enter=1000s", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield
    finally:
        tracer.terminate()
        try:
            tracer.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.communicate()


class Ear:
    """Listens as systemd does, all the time: who speaks to it waits where it does not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.marks = 0
        self.pings = 0  # since the last mark
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while words := self._socket.recv(4096):
            self.marks += words == MARK
            self.pings = 0 if words == MARK else self.pings + (words == b"WATCHDOG=1")

    def tell(self, words: bytes) -> None:
        """Heard after all that was said before."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.sendto(words, str(self.path))

    def close(self) -> None:
        self.tell(b"")
        self._thread.join()
        self._socket.close()


@pytest.fixture
def systemd(tmp_path) -> Iterator[Ear]:
    with contextlib.closing(Ear(tmp_path / "notify")) as ear:
        yield ear


def test_whichever_loop_hangs_the_watchdog_hears_nothing_more_until_it_goes_on(rig, systemd, real_part):
    real_part("strace", shutil.which("strace"), "it holds threads")
    real_part("systemd-python", importlib.util.find_spec("systemd.daemon"), "pip install 'hotmatte[systemd]'")
    daemon: DaemonRig = rig(card="tiny")
    daemon.start(NOTIFY_SOCKET=str(systemd.path), WATCHDOG_USEC="2000000")
    daemon.wait(lambda: systemd.pings, timeout=20)
    threads = threads_of(daemon)
    with held(*(threads[name] for name in LOOPS)):
        daemon.wait(lambda: hung(daemon), timeout=60)
        systemd.tell(MARK)
        daemon.wait(lambda: systemd.marks, timeout=20)
        # The main loop lives, and finds the others one after the other; but that is not enough.
        daemon.wait(lambda: set(hung(daemon)) == set(LOOPS), timeout=60)
        drop(daemon.hot() / "unseen.jpg", jpeg(1))
        assert systemd.pings == 0
        assert all("waits for what does not come; at " in line for line in hung(daemon).values())
    daemon.wait(lambda: systemd.pings, timeout=30)
    assert daemon.log().count("goes on") == len(LOOPS)
    daemon.wait_done("unseen.jpg")
    assert daemon.stop() == 0


def hung(daemon: DaemonRig) -> dict[str, str]:
    return dict(re.findall(r"the loop (\S+) hangs: (.*)", daemon.log()))
