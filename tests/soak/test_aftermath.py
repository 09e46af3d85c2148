"""The questions that are asked after a storm would notice: each is shown a world where it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from aftermath import Versions, check_results, check_sources
from daemonrig import DaemonRig, jpeg, sha256

FOLDERS: dict[str, dict[str, object]] = {
    "keep": {},
    "store": {"source": "archive"},
    "drain": {"source": "delete"},
}
GOOD, OLD, BAD = jpeg(1), jpeg(2), b"no photo"
KEEP, STORE, DRAIN, SPOILT = ("keep", "a.jpg"), ("store", "a.jpg"), ("drain", "a.jpg"), ("keep", "bad.jpg")


@pytest.fixture
def world(rig: Callable[..., DaemonRig]) -> DaemonRig:
    """As a daemon leaves it that did everything right. No daemon runs."""
    made: DaemonRig = rig(folders=FOLDERS)
    for name in FOLDERS:
        put_set(made, name, "a", GOOD)
    put(made.hot("keep") / "a.jpg", GOOD)
    put(made.hot("keep") / "bad.jpg", BAD)
    put(made.out("keep") / "bad.error.json", json.dumps({"source": {"path": "bad.jpg"}}).encode())
    for content, name in ((OLD, "a.jpg"), (GOOD, "a_2.jpg")):
        put(made.archive("store") / name, content)
    return made


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def put_set(rig: DaemonRig, name: str, base: str, content: bytes, *, suffix: str = "") -> None:
    pixels = cv2.imencode(".png", np.zeros((4, 6), np.uint8))[1].tobytes()
    path = f"{base}{suffix}.matte.png"
    put(rig.out(name) / path, pixels)
    source = {"path": f"{base}.jpg", "sha256": sha256(content)}
    output = {"path": path, "sha256": sha256(pixels), "width": 6, "height": 4}
    sidecar = json.dumps({"source": source, "outputs": [output]})
    put(rig.out(name) / f"{base}{suffix}.matte.json", sidecar.encode())


def versions() -> Versions:
    digests = [sha256(OLD), sha256(GOOD)]
    return {KEEP: digests, STORE: digests, DRAIN: digests, SPOILT: [sha256(BAD)]}


def ask(rig: DaemonRig) -> None:
    check_results(rig, versions(), bad={SPOILT})
    check_sources(rig, versions(), bad={SPOILT})


def test_a_right_world_passes(world: DaemonRig) -> None:
    ask(world)


WRONGS: dict[str, Callable[[DaemonRig], object]] = {
    "a photo without results": lambda rig: [path.unlink() for path in rig.out("drain").iterdir()],
    "results of an older version": lambda rig: put_set(rig, "drain", "a", OLD),
    "two sets": lambda rig: put_set(rig, "drain", "a", GOOD, suffix="_2"),
    "an output that is cut off": lambda rig: put(rig.out("keep") / "a.matte.png", b"\x89PNG"),
    "a file nobody lists": lambda rig: put(rig.out("keep") / "stray.png", b"x"),
    "a bad photo without a report": lambda rig: (rig.out("keep") / "bad.error.json").unlink(),
    "a bad photo with results": lambda rig: put_set(rig, "keep", "bad", BAD),
    "a report about a good photo": lambda rig: put(
        rig.out("keep") / "a.error.json", json.dumps({"source": {"path": "a.jpg"}}).encode()
    ),
    "a source that was changed": lambda rig: put(rig.hot("keep") / "a.jpg", GOOD + b"x"),
    "a source that was lost": lambda rig: (rig.hot("keep") / "a.jpg").unlink(),
    "a bad source that was taken away": lambda rig: (rig.hot("keep") / "bad.jpg").unlink(),
    "a source that was not taken away": lambda rig: put(rig.hot("drain") / "a.jpg", GOOD),
    "a photo archived twice": lambda rig: put(rig.archive("store") / "a_3.jpg", GOOD),
    "a photo not archived": lambda rig: (rig.archive("store") / "a_2.jpg").unlink(),
    "a stranger in the archive": lambda rig: put(rig.archive("store") / "b.jpg", BAD),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_a_wrong_world_is_noticed(wrong: str, world: DaemonRig) -> None:
    WRONGS[wrong](world)
    with pytest.raises(AssertionError):
        ask(world)
