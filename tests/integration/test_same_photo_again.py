"""The same photo is computed once, whichever way it comes: one daemon, one service, the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemonrig import DaemonRig, drop, jpeg
from webrig import PHOTO, WebRig

FOLDERS = {
    "in": {},
    "web": {},
    # Other outputs of the same answer, and other answers.
    "small": {"profile": "small"},
    "once": {"profile": "once"},
    "tiny": {"profile": "tiny"},
}
PROFILES = {
    "portrait": {"model": "fake", "device": "cpu"},
    "small": {"model": "fake", "device": "cpu", "outputs": [{"kind": "matte", "suffix": ".m.png"}]},
    "once": {"model": "fake", "device": "cpu", "looks": "one"},
    "tiny": {"model": "tiny", "device": "cpu"},
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRig]:
    daemon = DaemonRig(tmp_path_factory.mktemp("cache"), folders=FOLDERS, profiles=PROFILES, cache={})
    rig = WebRig(daemon, {"folder": "web"})
    try:
        daemon.start()
        rig.start()
        yield rig
    finally:
        rig.close()
        daemon.close()


def told(daemon: DaemonRig, relpath: str, folder: str = "in") -> dict[str, Any]:
    """The sidecar of a photo, once it is done."""
    daemon.wait_done(relpath, folder)
    return next(one for one in daemon.sidecars(folder).values() if one["source"]["path"] == relpath)


def results(daemon: DaemonRig, relpath: str, folder: str = "in") -> list[str]:
    return [item["sha256"] for item in told(daemon, relpath, folder)["outputs"]]


def fresh(daemon: DaemonRig) -> None:
    assert daemon.hotmatte("cache", "clear").returncode == 0


def test_a_photo_is_computed_once_whether_it_is_dropped_uploaded_or_given_to_the_command(web: WebRig) -> None:
    daemon = web.daemon
    fresh(daemon)
    drop(daemon.hot() / "first.png", PHOTO.read_bytes())
    first = told(daemon, "first.png")
    assert first["cached"] is False
    assert first["timings_ms"]["infer"] > 0
    drop(daemon.hot() / "again.png", PHOTO.read_bytes())
    again = told(daemon, "again.png")
    assert again["cached"] is True
    assert "infer" not in again["timings_ms"]
    with web.client() as client:
        answer = client.post("/v1/jobs", params={"wait": 30}, content=PHOTO.read_bytes()).json()
    uploaded = next(iter(daemon.sidecars("web").values()))
    assert answer["state"] == "done"
    assert uploaded["cached"] is True
    out = daemon.root / "by-hand"
    shutil.copy(PHOTO, daemon.root / "third.png")
    done = daemon.hotmatte("matte", "third.png", "-d", str(out), "--profile", "portrait", timeout=60)
    assert done.returncode == 0, done.stderr
    by_hand = json.loads((out / "third.matte.json").read_bytes())
    assert by_hand["cached"] is True
    # Not a byte differs from what was computed.
    hashes = [[item["sha256"] for item in one["outputs"]] for one in (first, again, uploaded, by_hand)]
    assert hashes == [hashes[0]] * 4
    done = daemon.hotmatte(
        "matte", "third.png", "-d", str(out), "--profile", "portrait", "--fresh", timeout=60
    )
    by_hand = json.loads((out / "third.matte.json").read_bytes())
    assert by_hand["cached"] is False
    assert [item["sha256"] for item in by_hand["outputs"]] == hashes[0]


def test_another_output_is_made_anew_from_the_same_answer(web: WebRig) -> None:
    daemon = web.daemon
    fresh(daemon)
    drop(daemon.hot() / "a.jpg", jpeg(1, width=40))
    assert told(daemon, "a.jpg")["cached"] is False
    drop(daemon.hot("small") / "a.jpg", jpeg(1, width=40))
    small = told(daemon, "a.jpg", "small")
    assert small["cached"] is True
    assert [item["suffix"] for item in small["outputs"]] == [".m.png"]


@pytest.mark.parametrize("folder", ["once", "tiny"])
def test_another_question_to_the_engine_is_another_answer(web: WebRig, folder: str) -> None:
    daemon = web.daemon
    fresh(daemon)
    drop(daemon.hot() / f"{folder}.jpg", jpeg(2, width=48))
    assert told(daemon, f"{folder}.jpg")["cached"] is False
    drop(daemon.hot(folder) / "b.jpg", jpeg(2, width=48))
    assert told(daemon, "b.jpg", folder)["cached"] is False


def test_a_damaged_answer_is_computed_again_and_mended(web: WebRig) -> None:
    daemon = web.daemon
    fresh(daemon)
    drop(daemon.hot() / "c1.jpg", jpeg(3))
    good = results(daemon, "c1.jpg")
    [entry] = answers(daemon)
    content = bytearray(entry.read_bytes())
    content[-1] ^= 255
    entry.write_bytes(content)
    drop(daemon.hot() / "c2.jpg", jpeg(3))
    assert told(daemon, "c2.jpg")["cached"] is False
    drop(daemon.hot() / "c3.jpg", jpeg(3))
    assert told(daemon, "c3.jpg")["cached"] is True
    assert results(daemon, "c2.jpg") == results(daemon, "c3.jpg") == good
    assert "is damaged and is left out" in daemon.log()


def answers(daemon: DaemonRig) -> list[Path]:
    return sorted((daemon.root / "cache" / "answers").glob("alpha-*"))


def told_of(daemon: DaemonRig) -> dict[str, Any]:
    """What a snapshot says of the cache that knows of every photo that is done."""
    daemon.wait(lambda: daemon.status()["done"] == daemon.counts().get("done", 0), timeout=15)
    cache: dict[str, Any] = daemon.status()["cache"]
    return cache


def test_it_is_shown_and_cleared_while_the_daemon_runs(web: WebRig) -> None:
    daemon = web.daemon
    fresh(daemon)
    before = told_of(daemon)
    for number in range(3):
        drop(daemon.hot() / f"d{number}.jpg", jpeg(4))
        told(daemon, f"d{number}.jpg")
    after = told_of(daemon)
    assert after["asked"] == before["asked"] + 3
    assert after["found"] == before["found"] + 2
    assert "photos were known" in daemon.hotmatte("status").stdout
    shown = json.loads(daemon.hotmatte("cache", "--json").stdout)
    assert (shown["entries"], shown["most_bytes"]) == (1, 2048 * 10**6)
    with web.client() as client:
        numbers = client.get("/metrics").text
    assert f'hotmatte_cache_photos_total{{known="true"}} {float(after["found"])}' in numbers
    assert "1 entries" in daemon.hotmatte("cache", "clear").stdout
    assert answers(daemon) == []
    drop(daemon.hot() / "d9.jpg", jpeg(4))
    assert told(daemon, "d9.jpg")["cached"] is False


def test_nothing_is_kept_where_it_is_off(rig) -> None:
    daemon = rig(cache={"size_mb": 0})
    daemon.start()
    for name in ("a.jpg", "b.jpg"):
        drop(daemon.hot() / name, jpeg(5))
        assert told(daemon, name)["cached"] is False
    assert not (daemon.root / "cache" / "answers").exists()


def test_a_daemon_killed_again_and_again_keeps_only_whole_answers(rig) -> None:
    """Every answer that is there afterwards gives the bytes that computing gives."""
    daemon, truth = rig("killed", cache={"size_mb": 64}), {}
    for turn in range(3):
        daemon.start()
        for number in range(12):
            drop(daemon.hot() / f"{turn}-{number}.jpg", jpeg(number))
        daemon.wait(lambda turn=turn: len(daemon.sidecars()) >= turn * 12 + 4, timeout=20)
        daemon.kill()
    daemon.start()
    for turn in range(3):
        for number in range(12):
            found = results(daemon, f"{turn}-{number}.jpg")
            assert truth.setdefault(number, found) == found
    assert not list((daemon.root / "cache" / "answers").glob(".*"))
