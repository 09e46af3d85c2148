"""Twenty seconds of what `make soak` does for hours."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SEED = os.environ.get("HOTMATTE_SEED") or str(random.SystemRandom().randrange(10**6))
SECONDS = 20


@pytest.mark.timeout(400)
def test_twenty_seconds_of_writers_and_faults_leaves_every_file_with_one_end() -> None:
    print(f"\nsoak: seed {SEED}")
    ours = ["unshare", "--mount"] if os.geteuid() == 0 and _may_unshare() else []
    command = [sys.executable, str(HERE / "soak.py"), "--hours", str(SECONDS / 3600), "--seed", SEED]
    done = subprocess.run(
        [*ours, *command],
        capture_output=True,
        text=True,
        timeout=380,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])
    assert figures["seed"] == int(SEED)
    assert figures["mounts"] == bool(ours)
    # Storm and calm came about, and there was something to lose.
    assert sum(figures["struck"].values()) >= 3
    assert figures["names"] > 30
    assert figures["seen"]["sets"] > 100


def _may_unshare() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
