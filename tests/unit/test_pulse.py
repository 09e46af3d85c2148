"""Who hangs by our own fault, by the kernel's word: with real threads in real system calls."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from watcher.health import Heartbeat, Systemd
from watcher.pulse import Pulse, Vigil, whereabouts

Starts = Callable[..., Pulse]
# What follows is waited for, and not timed: a slow machine only takes longer.
SOON = 0.05


@pytest.fixture
def loop() -> Iterator[Starts]:
    """Starts a thread that promises to be heard of soon, and does `work` instead. `ends` lets all of them go."""
    threads: list[tuple[threading.Thread, Callable[[], None]]] = []

    def start(work: Callable[[], object], ends: Callable[[], None] = lambda: None) -> Pulse:
        pulse = Pulse("a loop with a long name")
        begun = threading.Event()

        def run() -> None:
            pulse.beat(0.0)
            begun.set()
            work()

        threads.append((threading.Thread(target=run), ends))
        threads[-1][0].start()
        begun.wait()
        return pulse

    yield start
    for thread, ends in threads:
        ends()
        thread.join()


def test_a_loop_that_waits_for_a_lock_hangs_and_it_is_said_where(loop, eventually):
    lock = threading.Lock()
    lock.acquire()

    def never_comes_on():
        with lock:
            pass

    pulse = loop(never_comes_on, lock.release)
    vigil = Vigil(still_s=SOON)
    assert vigil.hung([pulse], time.monotonic()) == {}, "not at the first look"
    eventually(lambda: vigil.hung([pulse], time.monotonic()) == {pulse: "it waits for what does not come"})
    assert "never_comes_on" in whereabouts(pulse)
    assert "test_pulse.py" in whereabouts(pulse)


def test_a_loop_that_waits_for_a_file_system_does_not_and_nor_does_who_waits_for_it(
    loop, eventually, tmp_path
):
    os.mkfifo(tmp_path / "nobody writes")
    held = threading.Lock()
    held.acquire()

    def opens() -> None:
        with (tmp_path / "nobody writes").open("rb"):
            pass

    away = loop(opens, lambda: (tmp_path / "nobody writes").open("wb").close())

    def waits_for_it() -> None:
        with held:
            pass

    # Whichever of the two has it first lets the other have it.
    waits = loop(waits_for_it, held.release)
    alone = loop(waits_for_it)
    vigil, other = Vigil(still_s=SOON), Vigil(still_s=SOON)
    # Once the one would be suspected without the other, what is said of both together says something.
    vigil.hung([away, waits], time.monotonic())
    eventually(lambda: other.hung([alone], time.monotonic()))
    eventually(lambda: _call(away) not in ("", "running", "202", "98"))
    assert vigil.hung([away, waits], time.monotonic()) == {}


def _call(pulse: Pulse) -> str:
    words = Path(f"/proc/self/task/{pulse.thread.native_id}/syscall").read_text().split()
    return words[0] if words else ""


def test_a_loop_that_computes_without_end_hangs(loop, eventually):
    over = threading.Event()

    def spins() -> None:
        while not over.is_set():
            pass

    pulse, vigil = loop(spins, over.set), Vigil(spin_s=0.03)
    eventually(lambda: vigil.hung([pulse], time.monotonic()) == {pulse: "it computes without end"})


def test_a_loop_that_has_ended_hangs_unless_it_said_so(loop, eventually):
    pulse, vigil = loop(lambda: None), Vigil()
    eventually(lambda: vigil.hung([pulse], time.monotonic()) == {pulse: "its thread has ended"})
    pulse.rest()
    assert vigil.hung([pulse], time.monotonic()) == {}


def test_a_loop_that_is_late_and_yet_moves_is_let_be(loop, eventually):
    over, turns = threading.Event(), [0]

    def dawdles() -> None:
        while not over.wait(0.001):
            turns[0] += 1

    pulse, vigil = loop(dawdles, over.set), Vigil(still_s=1.0)
    for look in range(20):
        before = turns[0]
        eventually(lambda before=before: turns[0] > before + 2)
        # Long after the last look, by the clock: but it has moved since.
        assert vigil.hung([pulse], time.monotonic() + 10.0 * look) == {}


def test_a_loop_that_keeps_its_word_is_not_even_looked_at():
    pulse = Pulse("here")
    pulse.beat(3600.0)
    assert Vigil(still_s=0.0).hung([pulse, Pulse("not begun")], time.monotonic()) == {}


def test_threads_are_known_to_the_kernel_by_the_name_of_their_loop(loop):
    lock = threading.Lock()
    lock.acquire()
    pulse = loop(lock.acquire, lock.release)
    name = Path(f"/proc/self/task/{pulse.thread.native_id}/comm").read_text()
    assert name == "a loop with a l\n"


# --- The heart -----------------------------------------------------------------------------


@pytest.fixture
def systemd(tmp_path, monkeypatch) -> Iterator[socket.socket]:
    """Listens as systemd does, and has a watchdog."""
    pytest.importorskip("systemd.daemon")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield listener


def test_systemd_hears_of_the_daemon_only_while_every_loop_lives(loop, systemd, eventually, caplog):
    ended, here = loop(lambda: None), Pulse("here")
    here.beat(3600.0)
    heart = Heartbeat(Systemd(), give_up=lambda: pytest.fail("systemd will see to it"))
    heart.beat([here], 0.0)
    assert systemd.recv(100) == b"WATCHDOG=1"
    eventually(lambda: not ended.thread.is_alive())
    for turn in range(3):
        heart.beat([here, ended], time.monotonic() + 100 * turn)
    with pytest.raises(BlockingIOError):
        systemd.recv(100)
    assert caplog.text.count("hangs: its thread has ended") == 1
    heart.beat([here], time.monotonic() + 1000)
    assert systemd.recv(100) == b"WATCHDOG=1"
    assert "goes on" in caplog.text


def test_without_a_watchdog_the_daemon_ends_itself(loop, monkeypatch, eventually):
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)
    ended, given_up = loop(lambda: None), []
    heart = Heartbeat(Systemd(), give_up=lambda: given_up.append(True))
    heart.beat([], time.monotonic())
    assert not given_up
    eventually(lambda: not ended.thread.is_alive())
    heart.beat([ended], time.monotonic() + 1.0)
    assert given_up
