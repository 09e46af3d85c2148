"""The own API: a real service beside a real daemon, asked over TCP as strangers would."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from daemonrig import DaemonRig, drop, jpeg
from prometheus_client.parser import text_string_to_metric_families
from webrig import PHOTO, WebRig

BROKEN = jpeg(1)[:40] + b"not a photo any more" * 20


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRig]:
    folders = {
        "in": {},
        "api": {"source": "delete"},
        "tiffs": {"include": ["*.tif"]},
        "late": {},
        # Looks by itself in an hour.
        "slow": {"observer": "polling", "poll_interval_s": 3600, "scan_interval_s": 3600},
    }
    daemon = DaemonRig(tmp_path_factory.mktemp("web"), folders=folders, card="tiny")
    rig = WebRig(daemon, {"folder": "api", "max_upload_mb": 1, "max_upload_mp": 0.5})
    try:
        daemon.start()
        rig.start()
        yield rig
    finally:
        rig.close()
        daemon.close()


@pytest.fixture
def client(web: WebRig) -> Iterator[httpx.Client]:
    with web.client() as client:
        yield client


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errors"][0]["code"]


# --- Uploads -------------------------------------------------------------------------------


def test_an_upload_is_matted_and_its_files_are_the_published_ones(web: WebRig, client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", params={"wait": 30}, files={"file": ("me.jpg", jpeg(10))})
    assert answer.status_code == 200
    job = answer.json()
    assert (job["state"], job["folder"]) == ("done", "api")
    assert {file["kind"] for file in job["files"]} == {"cutout", "matte"}
    for file in job["files"]:
        published = client.get(file["href"])
        assert published.headers["content-type"] == "image/png"
        assert len(published.content) == file["size"]
        tag = published.headers["etag"]
        for asked in (tag, f'"other", W/{tag}', "*"):
            again = client.get(file["href"], headers={"If-None-Match": asked})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(file["href"], headers={"If-None-Match": '"other"'}).status_code == 200
    matte = next(file for file in job["files"] if file["kind"] == "matte")
    assert client.get(matte["href"]).content == next(web.daemon.out("api").glob("*.matte.png")).read_bytes()


def test_an_upload_is_in_the_journal_and_on_disk_when_the_answer_comes(
    web: WebRig, client: httpx.Client
) -> None:
    assert client.post("/v1/folders/late/pause").status_code == 200
    answer = client.post("/v1/jobs", params={"folder": "late"}, content=jpeg(11))
    assert answer.status_code == 202
    job = answer.json()
    assert job["state"] == "queued"
    assert (web.daemon.hot("late") / job["file"]).read_bytes() == jpeg(11)
    assert answer.headers["location"] == f"/v1/jobs/{job['job']}"
    assert client.post("/v1/folders/late/resume").json()["held"] is False
    later = client.get(answer.headers["location"], params={"wait": 30}).json()
    assert later["state"] == "done"


def test_a_rescan_finds_what_nobody_has_told_of(web: WebRig, client: httpx.Client) -> None:
    drop(web.daemon.hot("slow") / "late.jpg", jpeg(12))
    assert client.post("/v1/folders/rescan").status_code == 202
    web.daemon.wait_done("late.jpg", "slow")


def test_an_uploader_chooses_no_name(web: WebRig, client: httpx.Client) -> None:
    for name in ("../../evil.jpg", "/etc/passwd", "a\u202eb.jpg", ".hidden.jpg", "x" * 4000 + ".jpg"):
        job = client.post("/v1/jobs", files={"file": (name, jpeg(12))}).json()
        assert job["file"].startswith("web-")
        assert job["file"].endswith(".jpg")
    assert not list(web.daemon.root.rglob("*evil*"))


def test_one_idempotency_key_at_the_same_time_makes_one_job(web: WebRig) -> None:
    numbers: list[int] = []

    def send() -> None:
        with web.client() as client:
            headers = {"Idempotency-Key": "twice"}
            numbers.append(client.post("/v1/jobs", content=jpeg(15), headers=headers).json()["job"])

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers) == 6
    assert len(set(numbers)) == 1


def test_what_is_no_photo_is_refused_before_it_is_kept(web: WebRig, client: httpx.Client) -> None:
    before = set(web.daemon.hot("api").iterdir())
    assert code(client.post("/v1/jobs", content=b"hello")) == (400, "failed_to_read_image")
    assert code(client.post("/v1/jobs", files={"other": ("a.jpg", jpeg(1))})) == (400, "missing_source")
    assert code(client.post("/v1/jobs", data={"file": "text"})) == (400, "failed_to_read_image")
    two = [("file", ("a.jpg", jpeg(1))), ("file", ("b.jpg", jpeg(2)))]
    assert code(client.post("/v1/jobs", files=two)) == (400, "invalid_request"), "one of them would be lost"
    assert code(client.post("/v1/jobs", content=b"x" * 2_000_000)) == (413, "file_too_large")
    pieces = (b"x" * 100_000 for _ in range(20))
    assert code(client.post("/v1/jobs", content=pieces)) == (413, "file_too_large")
    large = jpeg(1, width=1000, height=1000)
    assert code(client.post("/v1/jobs", content=large)) == (400, "resolution_too_high")
    refused = client.post("/v1/jobs", params={"folder": "tiffs"}, content=jpeg(1))
    assert code(refused) == (400, "invalid_file_type")
    assert code(client.post("/v1/jobs", params={"folder": "nowhere"}, content=jpeg(1))) == (404, "not_found")
    assert set(web.daemon.hot("api").iterdir()) <= before


def test_an_upload_that_is_broken_off_leaves_a_line_in_the_log_and_nothing_else(web: WebRig) -> None:
    before = set(web.daemon.hot("api").iterdir())
    url = httpx.URL(web.url)
    for head in ("", "Content-Type: multipart/form-data; boundary=b\r\n"):
        said = web.log().count("broken off")
        with socket.create_connection((url.host, url.port)) as sender:
            lines = f"POST /v1/jobs HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n{head}Content-Length: 1000\r\n\r\n--b"
            sender.sendall(lines.encode())
        web.until(lambda said=said: web.log().count("INFO upload broken off by its sender") > said)
    with socket.create_connection((url.host, url.port)) as sender:
        sender.sendall(b"\x16\x03\x01\r\n\r\n")
        assert b" 400 " in sender.recv(1000)
    web.until(lambda: "WARNING Invalid HTTP request" in web.log())
    assert "Traceback" not in web.log()
    assert set(web.daemon.hot("api").iterdir()) <= before


# --- Failures, lists -----------------------------------------------------------------------


def test_a_failed_photo_says_why_and_is_tried_again_on_demand(web: WebRig, client: httpx.Client) -> None:
    drop(web.daemon.hot() / "broken.jpg", BROKEN)
    record = web.daemon.wait_quarantined("broken.jpg")
    job = client.get(f"/v1/jobs/{record.job.id}").json()
    assert job["state"] == "quarantined"
    assert job["reason"]
    assert job["remedy"]
    assert client.post(f"/v1/jobs/{record.job.id}/retry").json()["state"] in (
        "queued",
        "running",
        "quarantined",
    )
    web.daemon.wait_quarantined("broken.jpg")
    assert code(client.get("/v1/jobs/999999")) == (404, "not_found")
    assert code(client.get("/v1/jobs/999999/files/0")) == (404, "not_found")


def test_only_what_failed_can_be_tried_again(client: httpx.Client) -> None:
    job = client.post("/v1/jobs", params={"wait": 30}, content=jpeg(17)).json()
    assert code(client.post(f"/v1/jobs/{job['job']}/retry")) == (409, "not_failed")


def test_jobs_are_listed_in_pages(client: httpx.Client) -> None:
    for seed in range(20, 25):
        client.post("/v1/jobs", params={"wait": 30}, content=jpeg(seed))
    numbers, address = [], "/v1/jobs?limit=2&folder=api&state=done"
    while address:
        page = client.get(address).json()
        numbers += [job["job"] for job in page["jobs"]]
        address = page["next"]
    assert len(numbers) >= 5
    assert numbers == sorted(set(numbers), reverse=True)


def test_a_dropped_file_with_an_odd_name_is_shown_and_served(web: WebRig, client: httpx.Client) -> None:
    drop(web.daemon.hot() / "mäd\udcff \\x41\n.jpg", jpeg(30))
    record = web.daemon.wait_done("mäd\udcff \\x41\n.jpg")
    job = client.get(f"/v1/jobs/{record.job.id}").json()
    assert job["file"] == "mäd\\xff \\\\x41\\n.jpg"
    assert client.get(job["files"][0]["href"]).status_code == 200


def test_a_result_that_leads_out_of_its_folder_is_not_served(web: WebRig, client: httpx.Client) -> None:
    job = client.post("/v1/jobs", params={"wait": 30}, content=jpeg(31)).json()
    matte = next(file for file in job["files"] if file["kind"] == "matte")
    path = web.daemon.out("api") / job["file"].replace(".jpg", ".matte.png")
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert client.get(matte["href"]).status_code == 404


# --- Verdicts ------------------------------------------------------------------------------


def test_a_flagged_matte_is_accepted_or_done_anew_elsewhere(web: WebRig, client: httpx.Client) -> None:
    sent = {"folder": "late", "wait": 30}
    first, second = (client.post("/v1/jobs", params=sent, content=jpeg(seed)).json() for seed in (80, 81))
    waiting = {job["job"] for job in client.get("/v1/review").json()["jobs"]}
    assert {first["job"], second["job"]} <= waiting
    assert client.post(f"/v1/jobs/{first['job']}/accept").json()["verdict"] == "accepted"
    redo = f"/v1/jobs/{second['job']}/redo"
    assert code(client.post(redo, params={"folder": "late"})) == (409, "same_folder")
    assert code(client.post(redo, params={"folder": "tiffs"})) == (409, "invalid_file_type")
    assert code(client.post(redo, params={"folder": "nowhere"})) == (404, "not_found")
    anew = client.post(redo, params={"folder": "in"}).json()
    assert client.get(f"/v1/jobs/{anew['job']}", params={"wait": 30}).json()["state"] == "done"
    assert client.get(f"/v1/jobs/{second['job']}").json()["verdict"] == "redone"
    waiting = {job["job"] for job in client.get("/v1/review").json()["jobs"]}
    assert not {first["job"], second["job"]} & waiting
    listed = {job["job"]: job["verdict"] for job in client.get("/v1/jobs").json()["jobs"]}
    assert (listed[first["job"]], listed[second["job"]]) == ("accepted", "redone")


def test_a_photo_that_is_gone_cannot_be_done_anew(client: httpx.Client) -> None:
    job = client.post("/v1/jobs", params={"wait": 30}, content=jpeg(82)).json()
    assert code(client.post(f"/v1/jobs/{job['job']}/redo", params={"folder": "in"})) == (409, "gone")
    assert code(client.post("/v1/jobs/999999/accept")) == (404, "not_found")


# --- Events, numbers -----------------------------------------------------------------------


def test_events_tell_of_a_job_that_ended(web: WebRig, client: httpx.Client) -> None:
    with client.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("event")) == "event: change"
        drop(web.daemon.hot() / "seen.jpg", jpeg(40))
        for line in lines:
            if line == "event: job":
                told = json.loads(next(lines).removeprefix("data: "))
                if told["file"] == "seen.jpg":
                    break
    assert told["state"] == "done"


def test_the_numbers_add_up(web: WebRig, client: httpx.Client) -> None:
    client.post("/v1/jobs", params={"wait": 30}, content=jpeg(50))
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    jobs = {
        (sample.labels["folder"], sample.labels["state"]): sample.value
        for sample in families["hotmatte_jobs"].samples
    }
    with web.daemon.journal() as journal:
        for folder, states in journal.counts().items():
            for state, count in states.items():
                assert jobs[folder, state] == count
    stages = {sample.labels["stage"] for sample in families["hotmatte_stage_seconds"].samples}
    assert {"decode", "infer", "refine", "encode", "publish"} <= stages
    assert families["hotmatte_daemon_up"].samples[0].value == 1
    assert families["hotmatte_worker_restarts"].samples[0].value == 0
    watching = next(
        sample
        for sample in families["hotmatte_folder_state"].samples
        if sample.labels == {"folder": "in", "state": "watching"}
    )
    assert watching.value == 1


def test_submit_rings_the_daemon_instead_of_waiting_for_its_next_look(web: WebRig, tmp_path: Path) -> None:
    photo = tmp_path / "sent.png"
    photo.write_bytes(PHOTO.read_bytes())
    assert web.daemon.hotmatte("submit", str(photo), "--folder", "in").returncode == 0
    web.daemon.wait_done("sent.png")
