"""Either process may stop or die without the other, and nothing is forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from daemonrig import DaemonRig, drop, jpeg
from webrig import WebRig

from watcher.exits import IO
from watcher.health import JOURNAL


@pytest.fixture
def web(rig: Callable[..., DaemonRig]) -> Iterator[WebRig]:
    service = WebRig(rig(folders={"in": {}, "api": {"source": "delete"}}, card="tiny"), {"folder": "api"})
    try:
        service.daemon.start()
        service.start()
        yield service
    finally:
        service.close()


def test_an_idempotency_key_finds_its_job_after_a_restart_and_a_stream_holds_none_up(web: WebRig) -> None:
    with web.client() as client:
        headers = {"Idempotency-Key": "order 4711"}
        first = client.post("/v1/jobs", content=jpeg(13), headers=headers, params={"wait": 30})
        assert client.post("/v1/jobs", content=jpeg(14), headers=headers).status_code == 422
        with client.stream("GET", "/v1/events") as stream:
            next(stream.iter_lines())
            assert web.stop() == 0
    web.start()
    with web.client() as client:
        again = client.post("/v1/jobs", content=jpeg(13), headers=headers)
        assert again.status_code == 200
        assert again.json()["job"] == first.json()["job"]
        assert again.json()["files"]
        other = client.post("/v1/jobs", content=jpeg(13), headers={"Idempotency-Key": "order 4712"})
        assert other.json()["job"] != first.json()["job"]


def test_an_upload_is_kept_while_the_daemon_is_dead_and_done_by_the_next(web: WebRig) -> None:
    with web.client() as client:
        web.daemon.kill()
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert {folder["state"] for folder in client.get("/v1/folders").json()["folders"]} == {"unknown"}
        job = client.post("/v1/jobs", content=jpeg(16)).json()
        assert job["state"] == "queued"
        assert client.get(f"/v1/jobs/{job['job']}", params={"wait": 0.2}).json()["state"] == "queued"
        web.daemon.start()
        assert client.get(f"/v1/jobs/{job['job']}", params={"wait": 30}).json()["state"] == "done"
        assert client.get("/readyz").json()["status"] == "ok"


def test_no_photo_is_put_under_an_empty_mount_point_where_the_share_would_hide_it(web: WebRig) -> None:
    daemon, hot = web.daemon, web.daemon.hot("api")
    daemon.kill()
    with daemon.journal() as journal:
        here = journal.folder_identity("api")
        journal.remember_folder("api", "nfs4 nas:/studio /hot")
    photo = daemon.root / "kept.jpg"
    photo.write_bytes(jpeg(18))
    refused = daemon.hotmatte("submit", str(photo), "--folder", "api")
    assert refused.returncode == IO
    assert f"now {here}; before nfs4 nas:/studio /hot" in refused.stderr
    assert "hotmatte accept api" in refused.stderr
    with web.client() as client:
        answer = client.post("/v1/jobs", content=jpeg(18))
        assert answer.status_code == 503
        assert "nothing was put into" in answer.text
        assert not list(hot.iterdir())
        assert daemon.hotmatte("accept", "api").returncode == 0
        assert client.post("/v1/jobs", content=jpeg(18)).status_code == 202


def test_a_folder_that_the_daemon_no_longer_watches_gets_no_upload(web: WebRig) -> None:
    daemon = web.daemon
    removed = daemon.settings["folders"].pop("api")
    daemon.configure()
    assert daemon.hotmatte("reload").returncode == 0
    with web.client() as client:
        answer = client.post("/v1/jobs", content=jpeg(19))
        assert answer.status_code == 503
        assert "does not watch the hot folder 'api'" in answer.text
        assert not list(daemon.hot("in").parent.glob("api/*"))
        assert client.post("/v1/jobs", content=jpeg(19), params={"folder": "in"}).status_code == 202
        daemon.settings["folders"]["api"] = removed
        daemon.configure()
        assert daemon.hotmatte("reload").returncode == 0
        assert client.post("/v1/jobs", content=jpeg(19)).status_code == 202


def test_a_folder_that_is_paused_by_hand_stays_so_across_restarts(web: WebRig) -> None:
    daemon = web.daemon
    assert daemon.hotmatte("pause", "in").returncode == 0
    daemon.wait(lambda: daemon.status()["folders"]["in"]["state"] == "paused", timeout=10)
    assert "by hand" in daemon.status()["folders"]["in"]["reason"]
    daemon.stop()
    assert "hotmatte resume in" in daemon.hotmatte("status").stdout, "also while no daemon says so"
    daemon.start()
    drop(daemon.hot() / "held.jpg", jpeg(60))
    daemon.wait(lambda: daemon.record("held.jpg"), timeout=10)
    with web.client() as client:
        # Other folders go on meanwhile.
        job = client.post("/v1/jobs", params={"wait": 30}, content=jpeg(61)).json()
    assert job["state"] == "done"
    assert daemon.state_of("held.jpg") == "queued"
    assert "goes on" in daemon.hotmatte("resume", "in").stdout
    daemon.wait_done("held.jpg")
    assert "was not paused" in daemon.hotmatte("resume", "in").stdout


def test_a_journal_that_was_set_aside_ends_the_service_so_that_it_is_started_anew(web: WebRig) -> None:
    web.daemon.stop()
    journal = web.daemon.state / JOURNAL
    journal.with_name("damaged").write_bytes(journal.read_bytes())
    journal.with_name("damaged").replace(journal)
    assert web.child is not None
    assert web.child.wait(20) == IO
    assert "rebuilt" in web.log()
    web.start()


def test_a_reload_brings_new_folders_and_a_wrong_configuration_changes_nothing(
    web: WebRig,
) -> None:
    daemon = web.daemon
    with web.client() as client:
        daemon.settings["folders"]["late"] = {
            **daemon.settings["folders"]["in"],
            "path": "hot/late",
            "output": "out/late",
        }
        daemon.configure()
        assert daemon.hotmatte("reload").returncode == 0
        assert client.post("/v1/jobs", content=jpeg(30), params={"folder": "late"}).status_code == 404
        web.hang_up()
        web.until(lambda: "reloaded" in web.log())
        job = client.post("/v1/jobs", content=jpeg(30), params={"folder": "late", "wait": 30}).json()
        assert (job["state"], job["folder"]) == ("done", "late")
        for wrong, words in (
            ({"folder": "nowhere"}, "nowhere"),
            ({"listen": "127.0.0.1:1"}, "web.listen is read at start"),
            ({"colour": "red"}, "colour"),
        ):
            daemon.settings["web"] = {"listen": "127.0.0.1:0", **wrong}
            daemon.configure()
            web.hang_up()
            web.until(lambda: re.search(rf"ERROR .*not reloaded: .*{words}", web.log()))  # noqa: B023
        assert client.post("/v1/jobs", content=jpeg(31), params={"folder": "late"}).status_code == 202
    assert web.stop() == 0
