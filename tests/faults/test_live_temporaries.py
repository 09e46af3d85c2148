"""The search for leftovers beside a run that lives: its temporaries are no leftovers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from watcher.pipeline import publish

# Publishes, but waits for a line before the first rename, and for another before the last.
PUBLISHER = """
import os
import sys
from pathlib import Path
from watcher.pipeline import publish

def waiting(old, new, rename=publish.rename):
    print(os.path.basename(new), flush=True)
    sys.stdin.readline()
    rename(old, new)

publish.rename = waiting
outputs = [(".matte.png", b"matte" * 1000), (".cutout.png", b"cutout" * 1000)]
publish.publish_all(Path(sys.argv[1]), "a", outputs, sidecar=b"{}", job_id=7)
"""


@pytest.fixture
def publisher(tmp_path):
    command = [sys.executable, "-c", PUBLISHER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield child
        child.kill()


def temporaries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.endswith(".tmp")}


def test_temporaries_of_another_process_are_swept_only_once_it_is_dead(tmp_path, publisher):
    (tmp_path / ".b.matte.png.8.hotmatte.tmp").write_bytes(b"of a dead run")
    assert publisher.stdout.readline() == "a.matte.png\n"
    before = temporaries(tmp_path)
    assert len(before) == 4
    assert publish.sweep(tmp_path) == 1
    assert temporaries(tmp_path) == {name for name in before if ".7." in name}
    publisher.kill()
    publisher.wait()
    assert publish.sweep(tmp_path) == 3
    assert temporaries(tmp_path) == set()


def test_a_publication_beside_a_search_for_leftovers_comes_out_whole(tmp_path, publisher):
    for _ in range(3):
        assert publisher.stdout.readline()
        publish.sweep(tmp_path)
        publisher.stdin.write("go on\n")
        publisher.stdin.flush()
    assert publisher.wait() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.matte.png", "a.cutout.png", "a.matte.json"}
