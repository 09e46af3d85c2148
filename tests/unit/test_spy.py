"""Where the threads of another process are: py-spy looks at a real one, and its words are understood."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import spy
from benchmarks.spy import Samples, Stack, recording, runs

# For each line it reads, one thread computes for a while; another waits all the time.
PROGRAM = """
import sys, threading, time

def waits():
    threading.Event().wait()

def computes():
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass

threading.Thread(target=waits, daemon=True).start()
for _ in sys.stdin:
    computes()
    print("computed", flush=True)
"""

# The last words of version 0.4.3 about a process that began and ended threads all the time.
LAST = """py-spy> Stopped sampling because Control-C pressed
py-spy> Wrote raw flamegraph data to 'samples'. Samples: 42 Errors: 26
"""


@pytest.fixture
def program(tmp_path: Path, real_part: Callable[[str, object, str], None]) -> Iterator[subprocess.Popen[str]]:
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    allowed = os.geteuid() == 0 or not scope.exists() or scope.read_text().strip() == "0"
    real_part("looking at another process", allowed, "needs root, or kernel.yama.ptrace_scope=0")
    (tmp_path / "looked").mkdir()
    (tmp_path / "looked" / "__init__.py").touch()
    (tmp_path / "looked" / "at.py").write_text(PROGRAM)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "looked.at"], stdin=pipe, stdout=pipe, text=True, cwd=tmp_path
    ) as program:
        _compute(program)  # so that it is there
        yield program
        assert program.stdin is not None
        program.stdin.close()


def _compute(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None and program.stdout is not None
    program.stdin.write("\n")
    program.stdin.flush()
    assert program.stdout.readline() == "computed\n"


def _computes(stack: Stack) -> bool:
    return runs(stack, "computes", "at.py")


def _waits(stack: Stack) -> bool:
    return runs(stack, "waits", "at.py")


def test_only_the_thread_that_computes_holds_the_gil(program: subprocess.Popen[str], tmp_path: Path) -> None:
    with recording(program.pid, tmp_path / "samples", only_gil=True) as samples:
        assert samples.stacks == {}
        _compute(program)
    assert samples.seconds(_computes) > 0.5 * samples.seconds() > 0
    assert samples.seconds(_waits) == 0


def test_a_thread_that_waits_is_found_where_all_are_looked_at(
    program: subprocess.Popen[str], tmp_path: Path
) -> None:
    with recording(program.pid, tmp_path / "samples", only_gil=False) as samples:
        _compute(program)
    assert samples.seconds(_computes) > 0
    # A look finds both, unless it finds them moving.
    assert samples.seconds(_waits) > 0.5 * samples.seconds(_computes)


def test_a_process_that_is_gone_is_an_error_with_the_words_of_the_tool(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with (
        pytest.raises(RuntimeError, match=rf"cannot look at process {gone.pid}: (?s:.)*\w"),
        recording(gone.pid, tmp_path / "samples", only_gil=True),
    ):
        pytest.fail("nobody is there")


def test_looks_of_which_nothing_came_count_like_the_others() -> None:
    assert spy._lost(LAST) == 26
    samples = Samples({("a (x/one.py:1)",): 30, ("a (x/one.py:1)", "b (x/two.py:2)"): 10}, lost=0)
    assert samples.seconds() == 40 / spy.RATE
    samples.lost = 40
    assert samples.seconds() == 80 / spy.RATE
    assert samples.seconds(lambda stack: runs(stack, "b", "two.py")) == 20 / spy.RATE
    assert Samples(lost=3).seconds() == 0


def test_garbage_in_a_name_spoils_that_stack_and_no_other() -> None:
    text = "main (x/a.py:1);wai\nts \0(x/a.py:2) 7\nmain (x/a.py:1);works it (x/a.py:3) 5\n"
    found = spy._parsed(text)
    assert found["main (x/a.py:1)", "works it (x/a.py:3)"] == 5
    assert sum(found.values()) == 12


def test_a_function_is_told_from_another_of_its_name_by_its_file() -> None:
    stack = ("<module> (pack/one.py:9)", "take (pack/two.py:3)")
    assert runs(stack, "take", "two.py")
    assert not runs(stack, "take", "one.py")
    assert not runs(stack, "tak", "two.py")
    assert not runs(stack, "take", "o.py")
