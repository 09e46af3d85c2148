"""A real daemon, a real service, and somebody who is told: once, signed, and never in the way."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from daemonrig import DaemonRig, drop, jpeg
from receiver import Receiver
from standardwebhooks.webhooks import Webhook
from webrig import WebRig

from watcher.desk import Desk
from watcher.exits import CONFIG, IO
from watcher.health import JOURNAL
from watcher.journal import Journal
from watcher.web.notices import sight_of

SECRET = base64.b64encode(bytes(range(32))).decode()


@contextmanager
def telling(root: Path) -> Iterator[tuple[WebRig, Receiver]]:
    with Receiver.open() as receiver:
        daemon = DaemonRig(
            root,
            folders={"in": {}, "share": {"scan_interval_s": 0.3, "create": False}},
            notify={"webhook": receiver.url + "/hook", "secret_file": "secret", "digest_s": 1},
        )
        (daemon.root / "secret").write_text(SECRET)
        daemon.hot("share").mkdir(parents=True)
        rig = WebRig(daemon)
        try:
            daemon.start()
            rig.start()
            yield rig, receiver
        finally:
            rig.close()
            daemon.close()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WebRig, Receiver]]:
    with telling(tmp_path_factory.mktemp("notices")) as both:
        yield both


@pytest.fixture
def told_anew(tmp_path: Path) -> Iterator[tuple[WebRig, Receiver]]:
    with telling(tmp_path / "notices") as both:
        yield both


def heard(receiver: Receiver, what: Callable[[dict[str, Any]], bool]) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [one for one in receiver.said() if what(one)]


def test_done_and_failed_are_told_with_names_and_counts_only(told, eventually) -> None:
    (rig, receiver), daemon = told, told[0].daemon
    for number in range(4):
        drop(daemon.hot() / f"good{number}.jpg", jpeg(number))
    drop(daemon.hot() / "bad.jpg", b"\xff\xd8 this is no photo \xff\xd9")
    daemon.wait_quarantined("bad.jpg")
    rig.until(heard(receiver, lambda one: "failed" in one["events"]))
    rig.until(lambda: sum(one["done"] for one in receiver.said() if one["folder"] == "in") == 4)
    failed = [one for one in receiver.said() if one["failed"]]
    assert [(one["failed"], one["failed_names"]) for one in failed] == [(1, ["bad.jpg"])]
    for _, headers, body in receiver.got:
        Webhook(SECRET).verify(body, headers)
        assert str(daemon.root).encode() not in body
    with rig.client() as client:
        assert (
            f'hotmatte_notices_total{{sent="true"}} {float(len(receiver.got))}' in client.get("/metrics").text
        )


def test_a_folder_that_goes_away_and_comes_back_is_told(told) -> None:
    (rig, receiver), daemon = told, told[0].daemon
    aside = daemon.root / "aside"
    shutil.move(daemon.hot("share"), aside)
    rig.until(heard(receiver, lambda one: one["events"] == ["offline"] and one["folder"] == "share"))
    shutil.move(aside, daemon.hot("share"))
    rig.until(heard(receiver, lambda one: one["events"] == ["online"] and one["folder"] == "share"))


def test_a_folder_that_cannot_publish_is_seen_as_stuck_and_one_paused_by_hand_as_held(told) -> None:
    (rig, _), daemon = told, told[0].daemon
    with Journal(daemon.state / JOURNAL) as journal:
        desk = Desk(journal)
        assert not sight_of(daemon.state, journal, desk).stuck
        shutil.rmtree(daemon.out("share"), ignore_errors=True)
        daemon.out("share").write_text("a file where the results should go")
        drop(daemon.hot("share") / "waits.jpg", jpeg(90))
        rig.until(lambda: sight_of(daemon.state, journal, desk).stuck == {"share"})
        assert not sight_of(daemon.state, journal, desk).held
        assert daemon.hotmatte("pause", "share").returncode == 0
        assert set(sight_of(daemon.state, journal, desk).held) == {"share"}
        daemon.out("share").unlink()
        assert daemon.hotmatte("resume", "share").returncode == 0
        rig.until(lambda: not sight_of(daemon.state, journal, desk).stuck)


def test_a_restart_or_reload_of_the_service_loses_no_message_and_tells_none_twice(told_anew) -> None:
    (rig, receiver), daemon = told_anew, told_anew[0].daemon

    def failures() -> list[str]:
        return [name for one in receiver.said() for name in one["failed_names"]]

    def fail(name: str) -> None:
        drop(daemon.hot() / name, b"\xff\xd8 this is no photo \xff\xd9" + name.encode())
        daemon.wait_quarantined(name)

    fail("told.jpg")
    rig.until(lambda: "told.jpg" in failures())
    receiver.answers = ["503"] * 20
    fail("undelivered.jpg")
    rig.until(lambda: "undelivered.jpg" in failures())
    assert rig.stop() == 0
    fail("meanwhile.jpg")
    receiver.answers = []
    before = failures().count("undelivered.jpg")
    rig.start()
    rig.until(lambda: "meanwhile.jpg" in failures())
    assert failures().count("undelivered.jpg") == before + 1
    receiver.answers = ["503"] * 20
    fail("reloaded.jpg")
    rig.until(lambda: "reloaded.jpg" in failures())
    rig.hang_up()
    rig.until(lambda: "reloaded" in rig.log())
    receiver.answers = []
    before = failures().count("reloaded.jpg")
    rig.until(lambda: failures().count("reloaded.jpg") > before)
    ids: dict[str, set[str]] = {}
    for _, headers, body in receiver.got:
        for name in json.loads(body)["failed_names"]:
            ids.setdefault(name, set()).add(headers["webhook-id"])
    names = ("told.jpg", "undelivered.jpg", "meanwhile.jpg", "reloaded.jpg")
    assert {name: len(ids[name]) for name in names} == dict.fromkeys(names, 1)
    assert failures().count("told.jpg") == 1


def test_a_receiver_that_hangs_holds_up_neither_photos_nor_the_service(told) -> None:
    (rig, receiver), daemon = told, told[0].daemon
    before = len(receiver.got)
    receiver.answers = ["hang"] * 3
    drop(daemon.hot() / "first.jpg", jpeg(50))
    rig.until(lambda: len(receiver.got) > before)
    for number in range(5):
        drop(daemon.hot() / f"meanwhile{number}.jpg", jpeg(60 + number))
        daemon.wait_done(f"meanwhile{number}.jpg")
    with rig.client() as client:
        assert client.get("/healthz").status_code == 200
    receiver.answers = []
    assert rig.stop() == 0
    receiver.ended.set()


def test_a_test_message_says_what_came_of_it(tmp_path: Path) -> None:
    with Receiver.open() as receiver:
        notify = {"webhook": receiver.url, "secret_file": "secret"}
        daemon = DaemonRig(tmp_path / "trial", notify=notify)
        (daemon.root / "secret").write_text(SECRET)
        done = daemon.hotmatte("notify")
        assert (done.returncode, done.stdout) == (0, "webhook: sent\n")
        assert receiver.said()[0]["text"] == "test message: this is only a test"
        receiver.answers = ["403"]
        done = daemon.hotmatte("notify")
        assert (done.returncode, done.stdout) == (IO, "webhook: NOT SENT: the server answers 403\n")
        receiver.answers = ["301"]
        assert (
            "a redirect, which is not followed: name the address it leads to"
            in daemon.hotmatte("notify").stdout
        )


def test_a_service_that_could_not_sign_does_not_start(tmp_path: Path) -> None:
    notify = {"webhook": "https://example.org/", "secret_file": "nowhere"}
    daemon = DaemonRig(tmp_path / "mute", notify=notify)
    done = daemon.hotmatte("web")
    assert done.returncode == CONFIG
    assert "nowhere" in done.stderr
