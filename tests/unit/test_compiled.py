"""Loops are compiled beside everything else; whoever needs them waits."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest

from watcher.errors import EngineUnavailable
from watcher.pipeline import compiled as compiled_module
from watcher.pipeline.compiled import (
    compile_aside,
    compiled,
    compilers_at_work,
    give_up_compilers,
    wait_for_compilers,
)
from watcher.pipeline.compiled_cache import CompiledCache


def test_a_photo_waits_for_the_compilers_and_whoever_starts_them_does_not():
    told, go = [], threading.Event()

    def compile_() -> None:
        assert go.wait(60)
        told.append("compiled")

    def photo() -> None:
        wait_for_compilers()
        told.append("photo")

    thread = compile_aside(compile_)
    assert told == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(photo)
        assert not waiting.done()
        go.set()
        waiting.result(60)
    thread.join(60)
    assert told == ["compiled", "photo"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_compiler_that_fails_keeps_nobody_waiting():
    def compile_() -> None:
        raise RuntimeError("no machine code for this machine")

    thread = compile_aside(compile_)
    wait_for_compilers()
    thread.join(60)
    assert not thread.is_alive()


def test_loops_that_could_not_be_prepared_are_at_the_next_call(monkeypatch):
    """Too few files that may be open for a moment must not cost every photo after it."""
    compiler, refused = numba.njit, []

    def njit(*functions, **options):
        if not refused and options.get("cache"):
            refused.append(OSError(24, "Too many open files"))
            raise refused[0]
        return compiler(*functions, **options)

    @compiled
    def doubled(number: int) -> int:
        return 2 * number

    monkeypatch.setattr(numba, "njit", njit)
    with pytest.raises(OSError, match="Too many open files"):
        doubled(4)
    assert doubled(4) == 8
    assert len(refused) == 1


def test_who_stops_waits_for_no_compiler_and_no_photo_is_to_blame():
    begun, go = threading.Event(), threading.Event()

    def compile_() -> None:
        begun.set()
        assert go.wait(60)

    thread = compile_aside(compile_)
    assert begun.wait(60)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait_for_compilers)
        give_up_compilers()
        with pytest.raises(EngineUnavailable, match="before all loops were compiled"):
            waiting.result(60)
    assert compilers_at_work()
    go.set()
    thread.join(60)
    assert not compilers_at_work()
    wait_for_compilers()  # nobody is kept from anything any more


class Compiling:
    """Processes that compile until they are killed."""

    def __init__(self, *_parts: object, count: int) -> None:
        self.begun, self.killed = threading.Event(), threading.Event()

    def run(self, env: object) -> None:
        self.begun.set()
        assert self.killed.wait(60)

    def kill(self) -> None:
        self.killed.set()


def test_a_stop_ends_processes_that_compile_and_nobody_compiles_what_they_leave(monkeypatch):
    crew, called = Compiling(count=2), []
    monkeypatch.setattr(compiled_module, "_cache", lambda: CompiledCache([], maker="nothing is whole"))
    monkeypatch.setattr(compiled_module, "worthwhile", lambda: 2)
    monkeypatch.setattr(compiled_module, "Compilers", lambda *_parts, count: crew)
    monkeypatch.setattr(compiled_module, "_kernels", [*compiled_module._kernels, sum])
    thread = compile_aside(lambda: called.append("all"), parts=[0])
    assert crew.begun.wait(60)
    give_up_compilers()
    thread.join(60)
    assert not thread.is_alive()
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="before all loops were compiled"):
            wait_for_compilers()
    assert not called
    compile_aside(lambda: called.append("all")).join(60)
    wait_for_compilers()  # the next daemon begins anew
    assert called == ["all"]


LOOKED_AT = """
import numpy as np
from watcher.pipeline import compiled, edges, finish
from watcher.pipeline.looks import Canvases, Look, View, concluded, next_look
from watcher.pipeline.review import review

finish.warm_up()
before = {kernel.__name__: len(kernel.signatures) for kernel in compiled._kernels}
canvases = Canvases((160, 120), (64, 48), (48, 36), (96, 72))
views = []
for (width, height), left in (((64, 48), 10), ((48, 36), 22), ((96, 72), 60)):
    alpha = np.zeros((height, width), np.float32)
    alpha[10:, left : left + 12] = 0.8
    views.append(View(Look.whole((width, height)), alpha))
    for policy in ("one", "doubt", "all"):
        next_look(views, canvases, policy)
    concluded(views)
    alpha[:2, :2] = 0.06
    for laid in (alpha, np.asfortranarray(alpha), alpha[::2, ::2]):
        review(edges.islands(laid))
print([kernel.__name__ for kernel in compiled._kernels if len(kernel.signatures) > before[kernel.__name__]], len(before))
"""


def test_a_photo_that_is_looked_at_three_times_waits_for_no_compiler():
    done = subprocess.run([sys.executable, "-c", LOOKED_AT], capture_output=True, text=True, check=True)
    found, count = done.stdout.rsplit(maxsplit=1)
    assert found == "[]" and int(count) > 20
