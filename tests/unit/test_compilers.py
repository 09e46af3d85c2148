"""Processes that compile side by side: what they do, when they are worth it, and that nothing depends on them."""

from __future__ import annotations

import logging
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from watcher import memory
from watcher.pipeline import compilers, png
from watcher.pipeline.compiler import PARTS
from watcher.pipeline.compilers import Compilers, worthwhile

SMALL = PARTS.index(png.warm_up)


def test_they_leave_machine_code_in_the_cache(tmp_path):
    Compilers([SMALL], count=2).run({"NUMBA_CACHE_DIR": str(tmp_path)})
    assert {path.suffix for path in tmp_path.rglob("png.filtered-*")} == {".nbi", ".nbc"}


@pytest.mark.parametrize(
    ("cores", "room", "wanted"),
    [(1, 9000.0, 0), (2, 9000.0, 2), (16, 9000.0, 3), (16, 1500.0, 2), (16, 900.0, 0), (2, None, 2)],
)
def test_there_is_one_for_each_core_and_room_for_all_or_none(monkeypatch, cores, room, wanted):
    monkeypatch.setattr(compilers, "cores", lambda: cores)
    monkeypatch.setattr(memory, "available_mb", lambda: room)
    assert worthwhile() == wanted


def test_one_that_fails_is_told_of_and_harms_nobody(caplog):
    with caplog.at_level(logging.WARNING):
        Compilers([len(PARTS)], count=1).run({})
    assert "ended with 1" in caplog.text


def test_where_none_can_be_started_that_is_told_of_and_harms_nobody(monkeypatch, caplog):
    def refused(*_args, **_more):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refused)
    with caplog.at_level(logging.WARNING):
        Compilers([SMALL], count=2).run({})
    assert "cannot be started: Resource temporarily unavailable" in caplog.text


def test_who_kills_them_waits_for_none_and_that_is_no_failure(monkeypatch, tmp_path, caplog):
    started, begun = subprocess.Popen, threading.Event()

    def popen(*args, **more):
        process = started(*args, **more)
        begun.set()
        return process

    monkeypatch.setattr(subprocess, "Popen", popen)
    crew = Compilers(range(len(PARTS)), count=2)
    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.WARNING):
        running = pool.submit(crew.run, {"NUMBA_CACHE_DIR": str(tmp_path)})
        assert begun.wait(60)
        crew.kill()
        running.result(60)
    assert not caplog.records


def test_after_that_none_is_started(tmp_path):
    crew = Compilers([SMALL], count=2)
    crew.kill()
    crew.run({"NUMBA_CACHE_DIR": str(tmp_path)})
    assert not list(tmp_path.rglob("*.nbi"))
