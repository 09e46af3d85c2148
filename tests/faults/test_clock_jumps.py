"""The wall clock of a real daemon is set, forward and back, while it works: nobody waits longer, nothing is done twice.

A few lines of C (tests/rigs/clock.c) stand between it and the kernel's clock. libfaketime would do, but for
Python's time.sleep, which fails under it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from daemonrig import MOODY, TESTS, DaemonRig, drop, jpeg, plug_in, sha256, write_card

HOUR, DAY = 3600, 86_400
# What the engine of these tests does with a photo is said by its first pixel.
BUG, INNOCENT = 5, 200  # see tests/engines/moody.py
TINY = {"short_side": 16, "multiple": 1, "max_side": 512}


class Clock:
    """That of whatever runs with `env`, including what is started later."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "shift"
        library = folder / "clock.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-o", library, TESTS / "rigs" / "clock.c"], check=True
        )
        self.set(0)
        self.env = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self._file)}

    def set(self, seconds: int) -> None:
        """From now on it is so much ahead of the real one."""
        self.shift = seconds
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))

    def now(self) -> float:
        return time.time() + self.shift


# Long enough for the clock to be set meanwhile, short enough to be waited for.
RETRY = {"max_attempts": 2, "base_delay_s": 2, "max_delay_s": 2}


def make_daemon(root: Path, **folders: dict[str, object]) -> tuple[DaemonRig, Clock]:
    clock = Clock(root)
    write_card(root / "cards", "moody", engine="moody", input=TINY)
    daemon = DaemonRig(root / "rig", folders=folders, card="moody", cards=root / "cards", retry=RETRY)
    daemon.env = {**clock.env, "PYTHONPATH": plug_in(root / "site", "moody", MOODY)}
    return daemon, clock


@pytest.fixture(autouse=True)
def _gcc(real_part) -> None:
    real_part("gcc", shutil.which("gcc"), "it builds what stands before the clock")


@pytest.fixture(scope="module")
def jumpy(tmp_path_factory) -> Iterator[tuple[DaemonRig, Clock]]:
    polled = {"observer": "polling", "poll_interval_s": 0.3, "quiet_s": 0.5}
    archived = {"source": "archive", "quiet_s": 0.5}
    daemon, clock = make_daemon(tmp_path_factory.mktemp("jumpy"), **{"in": archived, "polled": polled})
    try:
        daemon.start()
        yield daemon, clock
        assert daemon.stop() == 0
        assert daemon.leftovers() == []
    finally:
        daemon.close()


def photo(number: int) -> bytes:
    return jpeg(number % 1000 << 8 | INNOCENT)


def poisoned(seed: int) -> bytes:
    pixels = np.full((16, 16, 3), seed, np.uint8)
    pixels[0, 0] = (0, 0, BUG)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize(
    "jump", [-2 * HOUR, 3 * DAY, -400 * DAY], ids=["2 h back", "3 days on", "400 days back"]
)
def test_photos_settle_and_are_done_once_whatever_the_clock_says(jumpy, jump):
    daemon, clock = jumpy
    names = [f"{jump} {number}.jpg" for number in range(4)]
    for number, name in enumerate(names):
        for folder in ("in", "polled"):
            drop(daemon.hot(folder) / name, photo(jump // HOUR + number))
        if number == 1:  # two of them are about to settle
            clock.set(jump)
    for name in names:
        for folder in ("in", "polled"):
            assert daemon.wait_done(name, folder).job.attempts == 1
    daemon.wait(lambda: not [name for name in names if (daemon.hot() / name).exists()], timeout=20)
    archived = {sha256((daemon.archive() / name).read_bytes()) for name in names}
    assert archived == {sha256(photo(jump // HOUR + number)) for number in range(4)}
    for folder in ("in", "polled"):
        told = [one for one in daemon.sidecars(folder).values() if one["source"]["path"] in names]
        assert len(told) == len(names)
        # That of the daemon, before the jump or after it.
        for one in told:
            created = datetime.fromisoformat(one["created"]).timestamp()
            assert min(abs(created - clock.now()), abs(created - clock.now() + jump)) < DAY
    # The journal's order is that of its numbers, and does not ask the clock.
    with daemon.journal() as journal:
        jobs = [journal.find("in", name) for name in names]
    assert [job.job.id for job in jobs[:2]] < [job.job.id for job in jobs[2:]]


def wait_for_a_try(daemon: DaemonRig, name: str) -> None:
    """Drop a photo that the engine fails at; returns while it waits for its second try."""
    before = daemon.log().count("will be tried again")
    drop(daemon.hot() / name, poisoned(len(name)))
    daemon.wait(lambda: daemon.log().count("will be tried again") > before, timeout=20)


def test_a_try_that_waits_is_not_put_off_by_the_hours_that_the_clock_goes_back(jumpy):
    daemon, clock = jumpy
    wait_for_a_try(daemon, "fails.png")
    clock.set(clock.shift - 5 * HOUR)
    assert daemon.wait_quarantined("fails.png", timeout=60).job.attempts == 2


def test_what_people_are_told_of_times_makes_sense_after_all_of_that(jumpy):
    daemon, clock = jumpy
    clock.set(2 * HOUR)
    done = daemon.status()["done"]
    drop(daemon.hot() / "news.jpg", photo(500))
    daemon.wait(lambda: daemon.status()["done"] > done, timeout=30)
    status = daemon.status()
    assert abs(status["written_at"] - clock.now()) < 600
    assert 0 <= clock.now() - status["started_at"] < 600
    said = daemon.hotmatte("status")
    assert said.returncode == 0
    up = re.search(r"runs as process \d+ for (\d+) (s|min)", said.stdout)
    assert up, said.stdout


def test_waits_of_a_daemon_that_was_down_when_the_clock_was_set_back_are_shortened_at_start(tmp_path):
    daemon, clock = make_daemon(tmp_path, **{"in": {}})
    try:
        daemon.start()
        wait_for_a_try(daemon, "fails.png")
        assert daemon.stop() == 0
        clock.set(-5 * HOUR)
        daemon.start()
        assert daemon.wait_quarantined("fails.png", timeout=60).job.attempts == 2
        assert daemon.stop() == 0
    finally:
        daemon.close()
