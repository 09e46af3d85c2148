"""Sudden death at every durable step of a publication: whole sets only, and nothing left over."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from watcher.pipeline import publish

# Forks for each line it reads: imports cost more than a publication, and death must be real.
# A line is: folder, version to publish or "sweep", step to die at.
SERVER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_publish_crash import act
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        act(*json.loads(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
STEPS = 22


def outputs_of(version: str) -> list[tuple[str, bytes]]:
    suffixes = [".cutout.png", ".matte.png"] + ([".old.png"] if version == "old" else [])
    return [(suffix, f"{version} {suffix} ".encode() * 5000) for suffix in suffixes]


def sidecar_of(version: str, gone: list[str]) -> bytes:
    outputs = [
        {"suffix": suffix, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for suffix, content in outputs_of(version)
    ]
    source = {"folder": "hot", "path": "a.jpg"}
    told = {"schema": 1, "source": source, "outputs": outputs, "supersedes": gone, "version": version}
    return json.dumps(told).encode()


def act(folder: str, version: str, steps: int) -> None:
    """In a process of its own: publish `version`, or sweep, and die at durable step `steps`."""
    left = [steps]

    def mortal(step):
        def wrapper(*args):
            if left[0] == 0:
                os._exit(137)
            left[0] -= 1
            return step(*args)

        return wrapper

    for name in ("fsync", "rename", "unlink"):
        setattr(publish, name, mortal(getattr(publish, name)))
    if version == "sweep":
        publish.sweep(Path(folder))
        return
    suffixes = [suffix for suffix, _ in outputs_of(version)]
    older = publish.settled(Path(folder), "a", suffixes)
    gone = [] if older is None else [item.suffix for item in older.outputs if item.suffix not in suffixes]
    told = sidecar_of(version, gone)
    publish.publish_all(Path(folder), "a", outputs_of(version), sidecar=told, job_id=7, supersedes=gone)


@pytest.fixture(scope="module")
def acting() -> Iterator[Callable[[Path, str, int], int]]:
    argv = [sys.executable, "-c", SERVER, str(Path(__file__).parent)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def acting(folder: Path, version: str, steps: int = 999) -> int:
            server.stdin.write(json.dumps([str(folder), version, steps]) + "\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield acting
        server.stdin.close()


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def assert_whole(folder: Path, version: str) -> None:
    found = content_of(folder)
    assert json.loads(found.pop("a.matte.json"))["version"] == version
    assert found == expected(version)


def expected(version: str) -> dict[str, bytes]:
    return {"a" + suffix: content for suffix, content in outputs_of(version)}


def assert_no_reader_is_misled(folder: Path) -> None:
    """No visible file is partial, and where there is a sidecar, all it promises is there."""
    seen = {name: content for name, content in content_of(folder).items() if not name.startswith(".")}
    for name, content in seen.items():
        if name != "a.matte.json":
            assert content in [expected(version).get(name) for version in ("old", "new")]
    if "a.matte.json" in seen:
        version = json.loads(seen.pop("a.matte.json"))["version"]
        assert seen == expected(version)


@pytest.fixture(params=["nothing there", "an older version there"])
def folder(request, tmp_path, acting):
    folder = tmp_path / "out"
    if request.param == "an older version there":
        assert acting(folder, "old") == 0
        assert_whole(folder, "old")
    return folder


@pytest.fixture(params=["swept first", "not swept"])
def swept(request):
    return request.param == "swept first"


@pytest.mark.parametrize("steps", range(STEPS))
def test_death_at_any_step_and_a_second_run_give_the_whole_set(folder, swept, steps, acting):
    died = acting(folder, "new", steps)
    assert_no_reader_is_misled(folder)
    if swept:
        if folder.exists():
            publish.sweep(folder)
        assert_no_reader_is_misled(folder)
        assert not [name for name in content_of(folder) if name.startswith(".")]
        visible = set(content_of(folder))
        assert len(visible) in (0, 3, 4), "all of a set, or nothing"
    if died:
        assert acting(folder, "new") == 0
    assert_whole(folder, "new")


def test_the_steps_above_are_all_there_are(tmp_path, acting):
    folder = tmp_path / "out"
    acting(folder, "old")
    assert acting(folder, "new", STEPS) == 0
    assert acting(tmp_path / "fresh", "new", 3) == 137


@pytest.mark.parametrize("steps", range(STEPS))
def test_death_during_recovery_is_recovered_from_as_well(tmp_path, steps, acting):
    folder = tmp_path / "out"
    acting(folder, "old")
    assert acting(folder, "new", 9) == 137
    assert "a.matte.json" not in content_of(folder), "past the point of no return"
    acting(folder, "sweep", steps)
    assert_no_reader_is_misled(folder)
    publish.sweep(folder)
    assert_whole(folder, "new")
