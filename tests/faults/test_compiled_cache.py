"""A damaged cache of compiled code costs time, never photos."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from daemonrig import COMPILED

SCRIPT = """
import logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
from watcher.pipeline import finish, refine
finish.warm_up()
print("warm", len(refine.paint.signatures))
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


@pytest.mark.parametrize(("ending", "torn", "again"), [(".nbi", b"", False), (".nbc", b"torn", True)])
def test_a_torn_cache_is_left_out_and_made_anew(tmp_path, ending, torn, again):
    assert "warm" in warm(COMPILED)
    cache = shutil.copytree(COMPILED, tmp_path / "cache")
    files = [path for path in cache.rglob("*") if path.suffix == ending]
    assert files
    for path in files:
        path.write_bytes(torn)
    said = warm(cache)
    assert "not usable" in said
    assert "warm" in said
    if again:  # once is enough: it compiles everything
        assert "not usable" not in warm(cache)


def test_without_a_word_about_it_compiled_code_lies_with_the_weights(tmp_path):
    """A package that nobody may write to, or a user without a home, must not compile at each start."""
    code = f"from pathlib import Path; from watcher.pipeline import finish; finish.warm_up(Path({str(tmp_path)!r}))"
    plain = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    subprocess.run([sys.executable, "-c", code], check=True, env=plain)
    kept = {path.name.partition(".")[0] for path in (tmp_path / "compiled").rglob("*.nbi")}
    assert {"foreground", "refine", "backdrop"} <= kept
