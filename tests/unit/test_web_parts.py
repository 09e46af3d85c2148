"""Keys, sessions, rates, the bell and the drop: what can be tested without a service."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import socket
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send

from watcher import bell, drop
from watcher.config import load
from watcher.desk import Desk
from watcher.domain import JobState, Source, Stamp
from watcher.errors import HostError
from watcher.health import JOURNAL, StateDir
from watcher.journal import Journal
from watcher.web.app import create_app
from watcher.web.keys import KeyRing, signing_secret
from watcher.web.limits import BodyLimit, Rates, Turns
from watcher.web.measures import Measures
from watcher.web.progress import Progress
from watcher.web.refusal import Refused
from watcher.web.results import unprinted
from watcher.web.serve import _listen_tcp
from watcher.web_settings import Web

# --- Bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize("drips", [False, True])
def test_an_upload_that_stops_arriving_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch, drips: bool
) -> None:
    """Nor does a byte now and then keep it."""
    monkeypatch.setattr("watcher.web.limits.STALL_S", 0.05)
    under_way: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        under_way.append("entered")
        try:
            while (await receive()).get("more_body"):
                pass
        finally:
            under_way.append("left")

    came = [{"type": "http.request", "body": b"x" * 10, "more_body": True}]

    async def receive() -> Message:
        if drips:
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"x", "more_body": True}
        return came.pop() if came else await asyncio.get_running_loop().create_future()

    async def send(_: Message) -> None: ...

    scope = {"type": "http", "headers": [(b"content-length", b"1000")]}
    with pytest.raises(Refused, match="Less than 16 kB of the upload came") as refused:
        asyncio.run(asyncio.wait_for(BodyLimit(app, 10_000)(scope, receive, send), 20))
    assert (refused.value.status, under_way) == (408, ["entered", "left"])


def test_an_upload_may_take_as_long_as_it_keeps_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.web.limits.STALL_S", 10.0)
    clock = [0.0]
    monkeypatch.setattr("watcher.web.limits.monotonic", lambda: clock[0])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            clock[0] += 60  # what is done with it meanwhile is not its sender's fault

    async def receive() -> Message:
        clock[0] += 9
        return {"type": "http.request", "body": bytes(16_000), "more_body": clock[0] < 1000}

    async def send(_: Message) -> None: ...

    scope = {"type": "http", "headers": [(b"content-length", b"1000000")]}
    asyncio.run(BodyLimit(app, 1_000_000)(scope, receive, send))
    assert clock[0] >= 1000


def test_whoever_waits_for_an_answer_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of events listens for its visitor's leaving: no byte comes, and none is to come."""
    monkeypatch.setattr("watcher.web.limits.STALL_S", 0.01)
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])

    async def receive() -> Message:
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None: ...

    asyncio.run(BodyLimit(app, 10_000)({"type": "http", "headers": []}, receive, send))
    assert heard == ["http.disconnect"]


# --- The whole service, within this process -------------------------------------------------


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """A hot folder `in` with one photo, `a.png`, whose job is number 1 and waits."""
    config = tmp_path / "hotmatte.yaml"
    folders = "folders: {in: {path: hot, output: out, create: true}}"
    config.write_text(f"state_dir: state\n{folders}\nprofiles: {{portrait: {{model: modnet}}}}\n")
    for name in ("state", "hot", "out"):
        (tmp_path / name).mkdir()
    photo = tmp_path / "hot" / "a.png"
    Image.new("RGB", (30, 20)).save(photo)
    with Journal(tmp_path / "state" / JOURNAL) as journal:
        journal.admit(Source("in", "a.png", Stamp.of(photo.stat())))
    return create_app(load(config), lambda *_: True)


@contextlib.asynccontextmanager
async def visitor(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


def test_those_who_wait_for_a_picture_keep_nobody_else_waiting(app: FastAPI) -> None:
    async def crowd() -> None:
        async with visitor(app) as client:
            site = app.state.site
            finish(site.journal)
            making = site.previews.making
            busy = [object() for _ in range(int(making.total_tokens))]
            for one in busy:
                await making.acquire_on_behalf_of(one)
            asked = [asyncio.create_task(client.get("/preview/1/photo?w=640")) for _ in range(60)]
            async with asyncio.timeout(20):
                while making.statistics().tasks_waiting < len(asked):
                    await asyncio.sleep(0)
                assert (await client.get("/healthz")).status_code == 200
            for one in busy:
                making.release_on_behalf_of(one)
            assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}

    asyncio.run(crowd())


def test_a_photo_that_no_reader_has_got_through_is_not_decoded_here(app: FastAPI) -> None:
    async def looked_at() -> None:
        async with visitor(app) as client:
            assert (await client.get("/preview/1/photo")).status_code == 404
            finish(app.state.site.journal)
            assert (await client.get("/preview/1/photo")).status_code == 200

    asyncio.run(looked_at())


def test_a_fault_of_our_own_is_told_in_the_shape_of_all_others(app: FastAPI) -> None:
    @app.get("/mistake")
    def mistake() -> None:
        raise AssertionError

    async def met() -> None:
        async with visitor(app) as client:
            answer = await client.get("/mistake")
            assert answer.status_code == 500
            assert answer.json()["errors"][0]["code"] == "internal_error"
            assert answer.headers["x-content-type-options"] == "nosniff"
            counted = 'hotmatte_http_request_seconds_count{method="GET",route="/mistake",status="500"} 1.0'
            assert counted in (await client.get("/metrics")).text

    asyncio.run(met())


@pytest.mark.parametrize("kind", ["image/jpeg", "multipart/form-data; boundary=X"])
def test_a_full_temporary_folder_is_the_machines_fault_and_worth_another_try(
    app: FastAPI, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    body = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(3 << 20)

    async def sent() -> None:
        async with visitor(app) as client:
            answer = await client.post("/v1/jobs", content=body, headers={"Content-Type": kind})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "TMPDIR" in answer.json()["errors"][0]["detail"]

    asyncio.run(sent())


def finish(journal: Journal) -> None:
    (job,) = journal.claim(["in"], limit=1, now=1e12, lease=60)
    journal.finish(job, "{}")


# --- Keys ----------------------------------------------------------------------------------


def test_a_key_is_kept_as_a_hash_for_its_owner_only(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    key, word = ring.add("studio", ("read",))
    kept = tmp_path / "web-keys.json"
    assert word.rpartition("_")[2] not in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert ring.find(word) == key
    assert ring.find(word[:-1] + ("0" if word[-1] != "0" else "1")) is None
    for wrong in ("", "hm", f"hm_{key.id}_", f"hm_{key.id}_\udcff", "hm_a_b_c"):
        assert ring.find(wrong) is None


def test_keys_that_root_makes_can_be_read_by_the_service(
    tmp_path: Path, real_part: Callable[[str, object, str], None]
) -> None:
    real_part("root", os.geteuid() == 0, "only root can make files for others")
    os.chown(tmp_path, 12_345, 23_456)
    KeyRing(tmp_path).add("studio", ("read",))
    signing_secret(tmp_path)
    made = [path.stat() for path in tmp_path.iterdir()]
    assert [(one.st_uid, one.st_gid) for one in made] == [(12_345, 23_456)] * 3
    assert {stat.S_IMODE(one.st_mode) for one in made} == {0o600}


def test_a_revoked_key_ends_at_once_for_every_reader(tmp_path: Path) -> None:
    ring, service = KeyRing(tmp_path), KeyRing(tmp_path)
    _, one = ring.add("one", ("read",))
    _, two = ring.add("two", ("read",))
    assert service.find(one)
    assert ring.revoke("one") is not None
    assert ring.revoke("one") is None
    assert service.find(one) is None
    assert service.find(two)


def test_the_signing_secret_survives(tmp_path: Path) -> None:
    assert signing_secret(tmp_path) == signing_secret(tmp_path)
    assert stat.S_IMODE((tmp_path / "web-secret").stat().st_mode) == 0o600


# --- Rates ---------------------------------------------------------------------------------


def test_a_rate_refills_steadily_and_counts_callers_apart() -> None:
    now = [0.0]
    rates = Rates(60, clock=lambda: now[0])
    assert [rates.take("a").remaining for _ in range(60)] == list(range(59, -1, -1))
    with pytest.raises(Refused) as refused:
        rates.take("a")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    rates.take("b")
    now[0] += 1.0
    rates.take("a")
    with pytest.raises(Refused):
        rates.take("a")


def test_those_who_are_sent_away_come_back_one_after_the_other() -> None:
    now = [100.0]
    turns = Turns(clock=lambda: now[0])
    # Two more may wait: they come as fast as uploads arrive, all others as fast as photos are done.
    told = [turns.take(2, arrival=0.1, end=2.0) for _ in range(5)]
    assert told == pytest.approx([0.1, 0.2, 2.2, 4.2, 6.2])
    now[0] += 5.0
    assert turns.take(0, arrival=0.1, end=2.0) == pytest.approx(3.2)
    now[0] += 1000.0
    assert turns.take(0, arrival=0.1, end=2.0) == pytest.approx(2.0)


def test_nobody_is_sent_away_for_longer_than_half_a_minute() -> None:
    turns = Turns(clock=lambda: 0.0)
    told = [turns.take(0, arrival=0.1, end=10.0) for _ in range(50)]
    assert told[:3] == [10.0, 20.0, 30.0]
    assert all(15.0 <= seconds <= 30.0 for seconds in told[3:])
    # Not all of them in one moment.
    assert len(set(told)) == 50


# --- Where to listen -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "needs"),
    [
        ("127.0.0.1:8410", False),
        ("localhost:1", False),
        ("[::1]:8410", False),
        ("unix:/run/hotmatte/web.sock", False),
        ("0.0.0.0:8410", True),
        ("[::]:8410", True),
        ("192.168.1.2:80", True),
        ("studio.local:80", True),
    ],
)
def test_keys_are_needed_wherever_others_can_knock(listen: str, needs: bool) -> None:
    assert Web(listen=listen).needs_keys is needs
    assert Web(listen=listen, keys="always").needs_keys


@pytest.mark.parametrize("listen", ["8410", ":8410", "127.0.0.1", "127.0.0.1:99999", "unix:web.sock"])
def test_a_place_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(ValidationError):
        Web(listen=listen)


# --- The bell ------------------------------------------------------------------------------


def test_a_ring_is_heard_and_one_without_a_daemon_waits_for_nobody(
    tmp_path: Path, eventually: Callable[..., object]
) -> None:
    assert not bell.ring(tmp_path)
    heard: list[bool] = []
    listening = bell.Bell(tmp_path, heard.append)
    assert bell.ring(tmp_path)
    eventually(lambda: heard == [False])
    assert bell.ring(tmp_path, folders=True)
    eventually(lambda: heard == [False, True])
    listening.close()
    assert not bell.ring(tmp_path)
    # The pipe of an earlier run is used again.
    bell.Bell(tmp_path, heard.append).close()


def test_a_bell_that_nobody_hears_in_time_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / bell.BELL)
    pipe = os.open(tmp_path / bell.BELL, os.O_RDWR)
    try:
        for _ in range(70_000):
            assert bell.ring(tmp_path)
    finally:
        os.close(pipe)


def test_something_else_under_the_bell_s_name_is_no_bell(tmp_path: Path) -> None:
    (tmp_path / bell.BELL).write_text("")
    with pytest.raises(HostError):
        bell.Bell(tmp_path, lambda _: None)


# --- The drop ------------------------------------------------------------------------------


def test_a_drop_never_overwrites(tmp_path: Path) -> None:
    first = drop.place(io.BytesIO(b"one"), tmp_path, "a.jpg")
    second = drop.place(io.BytesIO(b"two"), tmp_path, "a.jpg")
    assert (first.name, second.name) == ("a.jpg", "a_2.jpg")
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "a_2.jpg"]


def test_two_drops_of_one_name_at_once_do_not_write_into_one_file(tmp_path: Path) -> None:
    """Processes in containers have the same number, and threads anyway."""

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if (piece := super().read(size)) and not started.is_set():
                started.set()
                assert resumed.wait(20)
            return piece

    started, resumed = threading.Event(), threading.Event()
    thread = threading.Thread(target=drop.place, args=(Slow(b"one" * 9), tmp_path, "a.jpg"))
    thread.start()
    assert started.wait(20)
    drop.place(io.BytesIO(b"the other one"), tmp_path, "a.jpg")
    resumed.set()
    thread.join(20)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.jpg": b"the other one",
        "a_2.jpg": b"one" * 9,
    }


def test_a_drop_under_a_fixed_name_happens_once(tmp_path: Path) -> None:
    assert drop.place_as(io.BytesIO(b"one"), tmp_path, "a.jpg") == tmp_path / "a.jpg"
    assert drop.place_as(io.BytesIO(b"two"), tmp_path, "a.jpg") is None
    assert (tmp_path / "a.jpg").read_bytes() == b"one"
    # What a death between reserving the name and filling it leaves behind is no photo.
    (tmp_path / "b.jpg").touch()
    assert drop.place_as(io.BytesIO(b"two"), tmp_path, "b.jpg")
    assert (tmp_path / "b.jpg").read_bytes() == b"two"


def test_a_drop_into_nowhere_blames_the_machine(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        drop.place(io.BytesIO(b"one"), tmp_path / "absent", "a.jpg")


# --- The desk ------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


def ended(journal: Journal, name: str, outcome: str) -> int:
    """A photo that has been done."""
    journal.admit(Source("in", name, Stamp(1, 1)))
    (job,) = journal.claim(["in"], limit=1, now=1e12, lease=60)
    journal.finish(job, outcome)
    return job.id


def test_a_held_folder_gives_nothing_and_is_due_never(journal: Journal) -> None:
    desk = Desk(journal)
    journal.admit(Source("in", "a.jpg", Stamp(1, 1)))
    desk.hold("in")
    assert journal.claim(["in"], limit=1, now=1e12, lease=60) == []
    assert journal.next_due(["in"]) is None
    assert set(journal.held()) == {"in"}
    assert desk.release("in")
    assert not desk.release("in")
    assert len(journal.claim(["in"], limit=1, now=1e12, lease=60)) == 1


def test_a_flagged_matte_waits_for_a_verdict_and_a_newer_one_for_another(journal: Journal) -> None:
    desk = Desk(journal)
    flagged = ended(journal, "a.jpg", '{"flags": ["nothing_found"]}')
    plain = ended(journal, "b.jpg", '{"outputs": ["\\"flags\\": [\\"x"], "flags": []}')
    assert [record.job.id for record in desk.to_review()] == [flagged]
    assert not desk.judge(plain, "accepted")
    assert desk.judge(flagged, "accepted")
    assert desk.to_review() == []
    assert desk.verdicts([flagged]) == {flagged: "accepted"}
    # Taken away and brought back: the same job is done anew, and is to be looked at anew.
    journal.mark_gone("in", ["a.jpg"])
    assert ended(journal, "a.jpg", '{"flags": ["nothing_found"]}') == flagged
    assert [record.job.id for record in desk.to_review()] == [flagged]
    assert desk.verdicts([flagged]) == {}


def test_whoever_begins_to_wait_while_the_service_ends_does_not_hold_it_up(
    journal: Journal, tmp_path: Path
) -> None:
    assert journal.admit(Source("in", "a.jpg", Stamp(1, 1)))
    number = Desk(journal).listed(limit=1)[0].job.id

    async def waiting() -> JobState | None:
        progress = Progress(tmp_path, lambda record: None)
        progress.hush()
        try:
            found = await asyncio.wait_for(progress.ended(number, timeout=3600), 60)
            return found.state if found else None
        finally:
            progress.close()

    assert asyncio.run(waiting()) is JobState.QUEUED


def test_the_lists_of_the_desk_use_their_indices(journal: Journal) -> None:
    desk = Desk(journal)
    asked: list[str] = []
    journal._db.set_trace_callback(asked.append)
    desk.to_review()
    desk.ended(since=0)
    desk.throughput(since=0, step=60)
    desk.named("in", "web-")
    desk.waiting("in")
    journal._db.set_trace_callback(None)
    for sql in asked:
        plan = journal._db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
        assert all("SCAN job" not in row[3] or "INDEX" in row[3] for row in plan), (sql, plan)


def test_a_job_is_found_by_the_beginning_of_its_name(journal: Journal) -> None:
    desk = Desk(journal)
    number = ended(journal, "web-12-ab.jpg", "{}")
    ended(journal, "web-13-ab.jpg", "{}")
    found = desk.named("in", "web-12")
    assert found is not None
    assert found.job.id == number
    assert found.state is JobState.DONE
    assert desk.named("in", "web-14") is None
    assert desk.named("other", "web-12") is None


@pytest.mark.parametrize(
    "name", ["plain.jpg", "a\\b.jpg", "mäd\udcff \\x41\n.jpg", "\u202e\ufffe.jpg", "\t\x07"]
)
def test_a_name_that_was_made_printable_is_read_back(name: str) -> None:
    from watcher.domain import printable

    assert unprinted(printable(name)) == name


# --- The socket ----------------------------------------------------------------------------


def test_an_answer_does_not_wait_for_the_visitors_acknowledgement() -> None:
    """Headers and body are two writes: with Nagle's algorithm the second waits 40 ms for the ACK of the first."""
    undelayed: list[int] = []

    async def visited() -> None:
        done = asyncio.Event()

        def seen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            undelayed.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()
            done.set()

        listening = _listen_tcp("127.0.0.1", 0)
        async with await asyncio.start_server(seen, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            await done.wait()
            writer.close()

    asyncio.run(visited())
    assert undelayed == [1]


# --- News ----------------------------------------------------------------------------------


def test_ends_are_news_although_the_clock_was_set_back_since_the_last_one(tmp_path: Path) -> None:
    seen: list[str] = []
    with Journal(tmp_path / JOURNAL) as journal:
        progress = Progress(tmp_path, lambda record: seen.append(record.job.source.relpath))

        def end(name: str, *, hours_ahead: int = 0) -> None:
            journal.admit(Source("in", name, Stamp(1, 1)))
            (job,) = journal.claim(["in"], limit=1, now=time.time(), lease=60.0)
            journal.finish(job, "{}")
            with journal.writing() as db:
                db.execute(
                    "UPDATE job SET ended_at = ended_at + ? WHERE id = ?", (3600 * hours_ahead, job.id)
                )
            progress._beat()

        end("before.jpg", hours_ahead=2)
        end("after.jpg")
        end("later.jpg")
        progress.close()
    assert seen == ["before.jpg", "after.jpg", "later.jpg"]


def test_a_photo_that_root_submits_is_as_open_as_its_hot_folder(
    tmp_path: Path, real_part: Callable[[str, object, str], None]
) -> None:
    real_part("root", os.geteuid() == 0, "only root can make files for others")
    os.chown(tmp_path, 12_345, 23_456)
    tmp_path.chmod(0o2770)
    before = os.umask(0o077)
    try:
        placed = drop.place(io.BytesIO(b"photo"), tmp_path, "a.jpg").stat()
    finally:
        os.umask(before)
    assert (placed.st_uid, placed.st_gid, stat.S_IMODE(placed.st_mode)) == (12_345, 23_456, 0o660)


# --- Numbers -------------------------------------------------------------------------------


def test_a_photo_of_a_folder_that_is_no_longer_configured_does_not_grow_old(tmp_path: Path) -> None:
    with Journal(tmp_path / JOURNAL) as journal:
        for folder in ("in", "renamed"):
            journal.admit(Source(folder, "a.jpg", Stamp(1, 1)))
        numbers = Measures(tmp_path, Desk(journal))

        def waiting() -> set[str]:
            text = numbers.text().decode()
            return set(re.findall(r'^hotmatte_queue_age_seconds\{folder="(\w+)"\}', text, re.MULTILINE))

        assert waiting() == {"in", "renamed"}, "without a daemon nobody knows"
        daemon = StateDir(tmp_path)
        daemon.write_snapshot({"folders": {"in": {"state": "watching"}}})
        assert waiting() == {"in"}
        daemon.release()


def test_two_engines_of_one_model_on_one_device_are_one_line_for_prometheus(tmp_path: Path) -> None:
    with Journal(tmp_path / JOURNAL) as journal:
        numbers, daemon = Measures(tmp_path, Desk(journal)), StateDir(tmp_path)
        engine = {"model": "modnet", "device": "cpu", "restarts": 2, "paused": None}
        daemon.write_snapshot({"engines": [engine, {**engine, "restarts": 1, "paused": "out of memory"}]})
        lines = [line for line in numbers.text().decode().splitlines() if 'device="cpu"' in line]
        daemon.release()
    assert lines == [
        'hotmatte_worker_restarts_total{device="cpu",model="modnet"} 3.0',
        'hotmatte_engine_paused{device="cpu",model="modnet"} 1.0',
    ]
