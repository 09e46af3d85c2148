"""Engines that crash, hang, run out of memory, talk nonsense or do not start: the daemon lives on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import moody
import numpy as np
import psutil
import pytest
from daemonrig import MOODY, DaemonRig, check_set, drop, plug_in, write_card

from watcher.domain import JobState, Source, Stamp

TINY = {"short_side": 16, "multiple": 1, "max_side": 512}
ATTEMPTS = 3
INNOCENT = 200

FATAL = {
    "crash": (moody.CRASH, "SIGKILL"),
    "exit": (moody.EXIT, "driver gone"),
    "hang": (moody.HANG, "no answer to infer within 1 s"),
    "memory": (moody.OOM, "out of memory"),
    "bug": (moody.BUG, "oops"),
    "garbage": (moody.GARBAGE, "garbage"),
    "not finite": (moody.NAN, "not finite"),
    "wrong shape": (moody.SHAPE, "shape"),
}


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRig]:
    """A daemon whose engine does what the first pixel of a photo says."""
    root = tmp_path_factory.mktemp("moods")
    # A long wait for company, so that a poisoned photo is among innocents.
    write_card(root / "cards", "moody", engine="moody", input=TINY, timeout_s=1.0, max_delay_ms=300)
    rig = DaemonRig(root, card="moody", cards=root / "cards", retry=_retry())
    rig.env["PYTHONPATH"] = plug_in(root / "site", "moody", MOODY)
    rig.start()
    yield rig
    rig.close()


def _retry() -> dict[str, float]:
    return {"max_attempts": ATTEMPTS, "base_delay_s": 0.1, "max_delay_s": 0.2}


def photo(mood: int) -> bytes:
    """PNG, so that the engine sees the very value."""
    pixels = np.full((16, 16, 3), 180, np.uint8)
    pixels[0, 0] = (0, 0, mood)  # OpenCV: blue, green, red
    return cv2.imencode(".png", pixels)[1].tobytes()


def drop_batch(moods: DaemonRig, name: str, mood: int) -> list[str]:
    """One poisoned photo among three innocent ones, all there at the same moment; their names."""
    staged = moods.root / f"staged {name}"
    for number in range(4):
        drop(staged / f"{number}.png", photo(mood if number == 1 else INNOCENT), how="write")
    staged.rename(moods.hot() / name)
    return [f"{name}/{number}.png" for number in range(4)]


@pytest.mark.parametrize("name", FATAL)
def test_a_poisoned_photo_is_given_up_and_its_neighbours_are_done(moods, name):
    mood, reason = FATAL[name]
    before = moods.pid
    first, poisoned, *others = drop_batch(moods, name, mood)
    record = moods.wait_quarantined(poisoned)
    assert record.job.attempts == ATTEMPTS
    [report] = [told for told in moods.reports().values() if told["source"]["path"] == poisoned]
    assert reason in report["reason"]
    assert report["remedy"]
    for relpath in (first, *others):
        assert moods.wait_done(relpath).job.attempts <= 2
        path = (moods.out() / relpath).with_suffix(".matte.json")
        check_set(path, moods.sidecars()[path], moods.out())
    assert moods.is_alive() and moods.pid == before


def test_a_photo_the_engine_refuses_does_not_take_its_neighbours_along(moods):
    first, refused, *others = drop_batch(moods, "refused", moody.REJECT)
    moods.wait_quarantined(refused)
    for relpath in (first, *others):
        moods.wait_done(relpath)


def test_what_an_engine_prints_is_no_answer(moods):
    for relpath in drop_batch(moods, "chatter", moody.CHATTER):
        moods.wait_done(relpath)
        assert moods.record(relpath).job.attempts == 1


def test_a_worker_that_dies_while_idle_is_replaced_and_nobody_is_charged(moods):
    moods.wait(lambda: not moods.counts().get("running"), timeout=20)
    for worker in moods.workers():
        worker.kill()
    drop(moods.hot() / "after.png", photo(INNOCENT))
    assert moods.wait_done("after.png").job.attempts == 1


# --- Engines that do not start -------------------------------------------------------------

FICKLE = """
import os, numpy as np

class Session:
    about = {"engine": "fickle", "framework": "none", "device": "cpu"}
    def infer(self, images):
        return [np.zeros(image.shape[:2], np.float32) for image in images]

def load(model, device, options):
    with open(options["log"], "a") as log:
        log.write("boot\\n")
    if os.path.exists(options["broken"]):
        raise RuntimeError("the driver is broken")
    return Session()
"""


@pytest.fixture
def fickle(rig: Callable[..., DaemonRig], tmp_path: Path) -> DaemonRig:
    """A daemon whose engine does not start while `broken` is there; `boots` has a line for each try."""
    (tmp_path / "fickle.py").write_text(FICKLE)
    options = {"broken": str(tmp_path / "broken"), "log": str(tmp_path / "boots")}
    write_card(tmp_path / "cards", "fickle", engine="fickle", input=TINY, options=options)
    daemon = rig(card="fickle", cards=tmp_path / "cards")
    daemon.env["PYTHONPATH"] = plug_in(tmp_path / "site", "fickle", tmp_path / "fickle.py")
    return daemon


def test_an_engine_that_never_starts_ends_the_daemon_with_69(fickle, tmp_path):
    (tmp_path / "broken").touch()
    fickle.start(ready=False)
    assert fickle.wait_exit(timeout=30) == 69
    assert (tmp_path / "boots").read_text() == "boot\n" * 3
    assert "the driver is broken" in fickle.log()
    assert "hotmatte doctor" in fickle.log()


def test_an_engine_that_breaks_later_ends_the_daemon_with_69_and_loses_no_photo(fickle, tmp_path):
    fickle.start()
    (tmp_path / "broken").touch()
    for worker in fickle.workers():
        worker.kill()
    drop(fickle.hot() / "a.png", photo(INNOCENT))
    assert fickle.wait_exit(timeout=30) == 69
    record = fickle.record("a.png")
    assert record.state is JobState.QUEUED
    assert record.job.attempts == 0
    (tmp_path / "broken").unlink()
    fickle.start()
    assert fickle.wait_done("a.png").job.attempts == 1


# --- A photo that kills the daemon itself, and its worker ----------------------------------


def test_a_worker_in_a_call_that_never_returns_dies_with_its_daemon(rig, tmp_path, eventually):
    write_card(tmp_path / "cards", "moody", engine="moody", input=TINY, timeout_s=600)
    daemon = rig(card="moody", cards=tmp_path / "cards")
    daemon.env["PYTHONPATH"] = plug_in(tmp_path / "site", "moody", MOODY)
    daemon.start()
    drop(daemon.hot() / "a.png", photo(moody.HANG))
    daemon.wait(lambda: daemon.state_of("a.png") is JobState.RUNNING, timeout=20)
    workers = daemon.workers()
    assert workers
    os.kill(daemon.pid, signal.SIGKILL)
    eventually(lambda: not any(_is_there(worker) for worker in workers))


def _is_there(worker: psutil.Process) -> bool:
    """A zombie is gone; whether somebody has collected it yet says nothing."""
    try:
        return bool(worker.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_photo_that_killed_the_daemon_often_enough_is_given_up(rig):
    daemon = rig(card="tiny", retry=_retry())
    daemon.hot().mkdir(parents=True)
    path = daemon.hot() / "killer.jpg"
    path.write_bytes(b"pretend")
    source = Source("in", "killer.jpg", Stamp.of(path.stat()))
    daemon.state.mkdir()
    with daemon.journal() as journal:
        journal.admit(source)
        for _ in range(ATTEMPTS):
            assert journal.claim(["in"], limit=1, now=time.time(), lease=0.0)
            assert journal.reap(now=float("inf")) == 1
    daemon.start()
    daemon.wait_quarantined("killer.jpg")
    [report] = daemon.reports().values()
    assert report["error"] == "DaemonCrashed"
    assert "died 3 times" in report["reason"]
