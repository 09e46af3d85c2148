"""`hotmatte doctor` on a fleet: a real Redis, closed ports, shares that are not what they should be."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from daemonrig import write_card
from rigs.brokers import Redis, free_port, missing

from watcher import __version__
from watcher.commands import doctor, doctor_fleet
from watcher.commands.findings import Finding, Verdict
from watcher.config import Settings, load
from watcher.exits import CONFIG
from watcher.fleet import roster
from watcher.fleet.messages import PROTOCOL
from watcher.fleet.shares import Shares

Configured = Callable[..., Settings]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """Settings of a fleet whose share lies at `mount`."""
    write_card(tmp_path / "cards", "fake")
    (tmp_path / "studio").mkdir()

    def of(url: str, *, mount: Path | None = None) -> Settings:
        folder = {"path": "share://studio/hot", "output": "share://studio/out", "where": "fleet"}
        raw = {
            "folders": {"in": {**folder, "create": True}},
            "state_dir": "state",
            "profiles": {"portrait": {"model": "fake", "device": "cpu"}},
            "models": {"cards": "cards", "cache": "cache"},
            "shares": {"studio": str(mount or tmp_path / "studio")},
            "queue": {"url": url},
        }
        file = tmp_path / "hotmatte.yaml"
        file.write_text(yaml.safe_dump(raw))
        return load(file)

    return of


@pytest.fixture(scope="module")
def redis(
    tmp_path_factory: pytest.TempPathFactory, real_part: Callable[[str, object, str], None]
) -> Iterator[Redis]:
    why = missing("redis")
    real_part("redis", why is None, why or "")
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.close()


def ask(server: Redis, *words: str, password: str = "") -> None:
    told = ["-a", password] if password else []
    subprocess.run(["redis-cli", "-p", str(server.port), *told, *words], check=True, capture_output=True)


def said(findings: list[Finding], verdict: Verdict, subject: str = "") -> list[str]:
    return [
        finding.words
        for finding in findings
        if finding.verdict is verdict and finding.subject.startswith(subject)
    ]


def of_nodes(settings: Settings) -> list[Finding]:
    return doctor_fleet.nodes("studio", Shares(settings.shares).state("studio"), lost_after=15.0)


# --- The broker ----------------------------------------------------------------------------


def test_a_fleet_that_is_well_is_ok_in_every_point(
    configured: Configured, redis: Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = configured(redis.url)
    Shares(settings.shares).mark("studio")
    before = sorted(tmp_path.rglob("*"))
    assert doctor.run(Namespace(json=False, timeout=10.0), settings) == 0
    words = capsys.readouterr().out
    assert f"ok    broker: redis://127.0.0.1:{redis.port} answers (Redis " in words
    assert f"ok    share studio: {tmp_path}/studio is the watcher's share" in words
    assert sorted(tmp_path.rglob("*")) == before


def test_who_has_no_fleet_hears_nothing_of_it(configured: Configured, monkeypatch) -> None:
    monkeypatch.delenv("HOTMATTE_QUEUE_URL", raising=False)
    settings = configured("redis://127.0.0.1:1/0")
    without = settings.model_copy(
        update={"shares": {}, "queue": settings.queue.model_copy(update={"url": None})}
    )
    assert doctor_fleet.fleet(without, timeout=5.0) == []


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{}/0", "amqp://guest:guest@127.0.0.1:{}"])
def test_a_port_where_nobody_listens_says_what_to_start(url: str) -> None:
    [finding] = doctor_fleet.broker(url.format(free_port()), timeout=5.0)
    assert finding.verdict is Verdict.FAIL
    assert "nothing listens on this port" in finding.words
    assert "guest" not in finding.words + finding.remedy
    assert ("redis-server" if url.startswith("redis") else "rabbitmq-server") in finding.remedy


def test_a_host_that_nobody_knows_is_a_matter_of_names() -> None:
    name = "x" * 64  # longer than a name can be: no name server needs to be asked
    [finding] = doctor_fleet.broker(f"redis://{name}:6379/0", timeout=5.0)
    assert "nobody knows a host of this name" in finding.words
    assert name in finding.remedy


def test_something_that_listens_and_is_no_broker_is_told_apart() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(10)

        def hang_up() -> None:
            for _ in range(2):  # doctor's first look, and the client's
                other.accept()[0].close()

        answering = threading.Thread(target=hang_up)
        answering.start()
        [finding] = doctor_fleet.broker(f"redis://127.0.0.1:{other.getsockname()[1]}/0", timeout=5.0)
        answering.join()
    assert finding.verdict is Verdict.FAIL
    assert "Something listens there" in finding.remedy


def test_a_password_that_is_wrong_or_missing_is_said_so(redis: Redis) -> None:
    ask(redis, "config", "set", "requirepass", "secret")
    try:
        [without] = doctor_fleet.broker(redis.url, timeout=5.0)
        [wrong] = doctor_fleet.broker(redis.url.replace("//", "//:other@"), timeout=5.0)
        [right] = doctor_fleet.broker(redis.url.replace("//", "//:secret@"), timeout=5.0)
    finally:
        ask(redis, "config", "set", "requirepass", "", password="secret")
    assert "Authentication required" in without.words and "user and password" in without.remedy
    assert "invalid username-password" in wrong.words and "other" not in wrong.words
    assert right.verdict is Verdict.OK


def test_a_redis_that_may_throw_jobs_away_is_warned_of(redis: Redis) -> None:
    ask(redis, "config", "set", "maxmemory", "100mb")
    ask(redis, "config", "set", "maxmemory-policy", "allkeys-lru")
    try:
        findings = doctor_fleet.broker(redis.url, timeout=5.0)
    finally:
        ask(redis, "config", "set", "maxmemory-policy", "noeviction")
        ask(redis, "config", "set", "maxmemory", "0")
    [words] = said(findings, Verdict.WARN)
    assert "allkeys-lru" in words


# --- Shares and nodes ----------------------------------------------------------------------


def test_a_share_that_is_not_there_fails_and_one_that_is_not_marked_warns(
    configured: Configured, tmp_path: Path
) -> None:
    settings = configured("redis://127.0.0.1:1/0", mount=tmp_path / "absent")
    [finding] = doctor_fleet.share("studio", tmp_path / "absent", settings)
    assert finding.verdict is Verdict.FAIL and f"{tmp_path}/absent is not there" in finding.words
    settings = configured("redis://127.0.0.1:1/0")
    [finding] = doctor_fleet.share("studio", tmp_path / "studio", settings)
    assert finding.verdict is Verdict.WARN
    assert "has not been marked by a watcher" in finding.words
    assert list((tmp_path / "studio").iterdir()) == []  # a look marks nothing


def test_a_share_of_another_version_fails_with_both_versions(configured: Configured, tmp_path: Path) -> None:
    settings = configured("redis://127.0.0.1:1/0")
    shares = Shares(settings.shares)
    shares.mark("studio")
    probe = shares.state("studio") / "share.json"
    probe.write_text(json.dumps({**json.loads(probe.read_text()), "hotmatte": "9.1.0", "protocol": 7}))
    [finding] = doctor_fleet.share("studio", tmp_path / "studio", settings)
    assert (finding.verdict, finding.status) == (Verdict.FAIL, CONFIG)
    assert "runs hotmatte 9.1.0 (protocol 7), this host" in finding.words
    probe.write_text("torn")
    [finding] = doctor_fleet.share("studio", tmp_path / "studio", settings)
    assert finding.verdict is Verdict.FAIL and "not what a watcher writes" in finding.words


def test_nodes_are_named_with_how_long_they_have_been_silent(configured: Configured, tmp_path: Path) -> None:
    settings = configured("redis://127.0.0.1:1/0")
    Shares(settings.shares).mark("studio")
    folder = Shares(settings.shares).state("studio") / roster.NODES
    same = {"hotmatte": __version__, "protocol": PROTOCOL}
    roster.tell(folder, "gpu1", same)
    roster.tell(folder, "gpu2", same)
    roster.tell(folder, "gpu3", {"hotmatte": "9.1.0", "protocol": 7})
    (folder / "torn.json").write_text("{")
    written = (folder / "gpu2.json").stat().st_mtime
    os.utime(folder / "gpu2.json", (written - 7200, written - 7200))
    findings = of_nodes(settings)
    assert said(findings, Verdict.OK) == ["node gpu1 works, of the same version"]
    silent, other = said(findings, Verdict.WARN)
    assert silent == "node gpu2 has been silent for 2 hours"
    assert "node gpu3 runs hotmatte 9.1.0" in other
