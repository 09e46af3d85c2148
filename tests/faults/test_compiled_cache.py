"""A damaged cache of compiled code costs time, never photos."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from daemonrig import COMPILED

SCRIPT = """
import logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
from watcher.pipeline import shrink
from watcher.pipeline.compiled import compile_all
compile_all(shrink.warm_up)
print("warm", len(shrink.average.signatures))
"""

# Two processes, whatever the machine has, and one small part.
BESIDE = """
import logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
from watcher.pipeline import compiled, png
from watcher.pipeline.compiler import PARTS
compiled.worthwhile = lambda: 2
compiled.compile_all(png.warm_up, parts=[PARTS.index(png.warm_up)])
told = png.filtered.stats
print("found", sum(told.cache_hits.values()), "missed", sum(told.cache_misses.values()))
"""

KILLED = """
import os
from watcher.pipeline.compilers import Compilers
from watcher.pipeline.compiler import PARTS
print(os.getpid(), flush=True)
Compilers(range(len(PARTS)), count=2).run({})
"""


def warm(cache, script: str = SCRIPT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
    )
    return done.stdout


def written(cache) -> dict[Path, int]:
    """Every file with the moment it was written."""
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.nb?")}


def warm_up_with(weights: Path) -> None:
    code = f"from pathlib import Path; from watcher.pipeline import finish; finish.warm_up(Path({str(weights)!r}))"
    plain = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    subprocess.run([sys.executable, "-c", code], check=True, env=plain)


@pytest.mark.parametrize(("ending", "torn", "again"), [(".nbi", b"", False), (".nbc", b"torn", True)])
def test_a_torn_cache_is_left_out_and_made_anew(tmp_path, ending, torn, again):
    assert "warm" in warm(COMPILED)
    cache = shutil.copytree(COMPILED, tmp_path / "cache")
    files = [path for path in cache.rglob("*") if path.suffix == ending]
    assert {"average", "spans"} <= {path.name.split("-")[0].rpartition(".")[2] for path in files}
    for path in files:
        path.write_bytes(torn)
    said = warm(cache)
    assert "not usable" in said
    assert "warm" in said
    if again:
        assert "not usable" not in warm(cache)


def test_without_a_word_about_it_compiled_code_lies_with_the_weights(tmp_path):
    """A package that nobody may write to, or a user without a home, must not compile at each start."""
    cache = shutil.copytree(COMPILED, tmp_path / "compiled")
    warm_up_with(tmp_path)  # what has changed since that was made
    removed = [path for path in cache.rglob("*.nb?") if path.name.startswith("scale.sane-")]
    assert removed
    for path in removed:
        path.unlink()
    before = written(cache)
    assert {"foreground", "refine", "backdrop"} <= {path.name.partition(".")[0] for path in before}
    warm_up_with(tmp_path)
    # What was missing is kept there (less what an older version left), and what was there was used: nothing of it was compiled again.
    after = written(cache)
    assert {path.suffix for path in set(removed) & set(after)} == {".nbi", ".nbc"}
    assert {path: moment for path, moment in after.items() if path not in removed} == before


def test_what_processes_have_compiled_is_only_loaded(tmp_path):
    assert warm(tmp_path, BESIDE) == "found 1 missed 0\n"
    before = written(tmp_path)
    assert warm(tmp_path, BESIDE) == "found 1 missed 0\n"
    assert written(tmp_path) == before


def test_after_an_upgrade_nothing_old_is_loaded(tmp_path):
    """Also of kernels whose own file is the same: they have a copy of those they call."""
    warm(tmp_path, BESIDE)
    (sources,) = tmp_path.rglob("kernels.sha256")
    sources.write_text("of the version before")
    for path in written(tmp_path):
        path.write_bytes(b"wrong now")
    assert warm(tmp_path, BESIDE) == "found 1 missed 0\n"


def test_a_damaged_cache_that_processes_stumble_over_is_left_out_and_made_anew(tmp_path):
    warm(tmp_path, BESIDE)
    for path in tmp_path.rglob("*.whole.*"):
        path.unlink()
    for path in written(tmp_path):
        path.write_bytes(b"")
    said = warm(tmp_path, BESIDE)
    assert "ended with 1" in said and "not usable" in said
    assert warm(tmp_path, BESIDE) == "found 1 missed 0\n"


def test_processes_that_compile_die_with_the_daemon(tmp_path, eventually):
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    daemon = subprocess.Popen([sys.executable, "-c", KILLED], env=env, stdout=subprocess.PIPE)
    with daemon:
        found = eventually(lambda: _two(daemon.pid))
        daemon.kill()
    eventually(
        lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in found)
    )


def _two(pid: int) -> list[psutil.Process]:
    """Both, once they are past their start."""
    found = [one for one in psutil.Process(pid).children() if "watcher.pipeline.compiler" in one.cmdline()]
    return found if len(found) == 2 and all(one.nice() == 10 for one in found) else []
