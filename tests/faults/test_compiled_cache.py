"""A damaged cache of compiled code costs time, never photos."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


def warm(cache) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
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
