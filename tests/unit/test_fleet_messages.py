"""What goes over the wire of a fleet, and what does not get through."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from watcher import __version__
from watcher.config import Profile
from watcher.domain import Job, Source, Stamp
from watcher.engine.card import load_card
from watcher.errors import (
    Action,
    ConfigError,
    HostError,
    InputChanged,
    InputNotReady,
    InputRejected,
    RetryPolicy,
    disposition,
)
from watcher.fleet.brokers import BrokerLost, Line, shown
from watcher.fleet.failures import KINDS, failure_in, seen_from_here
from watcher.fleet.messages import (
    MOST_BYTES,
    PROTOCOL,
    JobMessage,
    Reply,
    Unreadable,
    card_digest,
    check_versions,
    job_in,
    jobs_queue,
    pack,
    reply_in,
)
from watcher.fleet.shares import Shares, watcher_id
from watcher.fleet_settings import fault_of

CARDS = Path(__file__).parents[1] / "cards"
JOB = JobMessage(
    watcher="0123456789abcdef",
    reply_to="hotmatte.replies.1.0123456789abcdef",
    share="f" * 32,
    job=17,
    fence=2,
    attempts=1,
    folder="in",
    source="share://studio/hot/a.jpg",
    stage="share://studio/.hotmatte-fleet/stage/0123456789abcdef/17",
    size=1000,
    mtime_ns=1_700_000_000_123_456_789,
    profile_name="portrait",
    profile=Profile(),
    card="a" * 64,
)


def test_a_job_comes_out_as_it_went_in() -> None:
    assert job_in(pack(JOB)) == JOB
    parsed = json.loads(pack(JOB))
    assert parsed["protocol"] == PROTOCOL and parsed["hotmatte"] == __version__


def test_a_reply_comes_out_as_it_went_in() -> None:
    reply = Reply(node="gpu1", watcher=JOB.watcher, job=17, fence=2, error="InputRejected", reason="no image")
    assert reply_in(pack(reply)) == reply


@given(st.one_of(st.text(), st.binary(), st.none(), st.dictionaries(st.text(), st.integers())))
@example("{}")
@example("[1]")
@example("0")
def test_noise_is_unreadable_and_nothing_worse(noise: object) -> None:
    for read in (job_in, reply_in):
        with pytest.raises(Unreadable):
            read(noise)


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text()), st.lists, max_leaves=5))
def test_json_of_strangers_is_refused_in_words(value: object) -> None:
    for key in ("job", "source", "profile", "share"):
        with pytest.raises(Unreadable):
            job_in(json.dumps({**json.loads(pack(JOB)), key: [value]}))


def test_an_endless_message_is_not_even_parsed() -> None:
    with pytest.raises(Unreadable):
        job_in(" " * (MOST_BYTES + 1))


@pytest.mark.parametrize("said", [{"protocol": PROTOCOL + 1}, {"hotmatte": "99.0.1"}])
def test_another_version_is_refused_and_the_words_name_both(said: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused:
        job_in(json.dumps({**json.loads(pack(JOB)), **said}))
    assert str(next(iter(said.values()))) in str(refused.value)
    assert __version__ in str(refused.value)
    assert "Install the same version" in refused.value.remedy


def test_releases_that_differ_in_the_last_number_only_work_together() -> None:
    major, minor, *_ = __version__.split(".")
    check_versions(PROTOCOL, f"{major}.{minor}.999", who="node a")


def test_another_claim_of_the_same_version_is_the_same_work_and_another_version_is_not() -> None:
    assert JOB.same_work(JOB.model_copy(update={"fence": 3, "attempts": 2, "reply_to": "x"}))
    for other in ({"mtime_ns": 1}, {"size": 1}, {"card": "b" * 64}, {"profile": Profile(refine="bilinear")}):
        assert not JOB.same_work(JOB.model_copy(update=other)), other


def test_jobs_wait_where_only_nodes_with_the_very_model_listen() -> None:
    card = load_card("tiny", [CARDS])
    same = card.model_copy(update={"max_batch": 9, "timeout_s": 5.0, "python": Path("/opt/python3")})
    other = card.model_copy(update={"input": card.input.model_copy(update={"short_side": 32})})
    assert jobs_queue(card_digest(card)) == jobs_queue(card_digest(same))
    assert jobs_queue(card_digest(card)) != jobs_queue(card_digest(other))


# --- Paths ---------------------------------------------------------------------------------


def test_a_path_is_found_on_another_host_by_its_share() -> None:
    here = Shares({"studio": Path("/mnt/studio"), "raw": Path("/mnt/studio/raw")})
    there = Shares({"studio": Path("/Volumes/Studio"), "raw": Path("/nas/raw")})
    assert here.url(Path("/mnt/studio/hot/a b.jpg")) == "share://studio/hot/a%20b.jpg"
    assert there.path(here.url(Path("/mnt/studio/hot/a b.jpg"))) == Path("/Volumes/Studio/hot/a b.jpg")
    assert there.path(here.url(Path("/mnt/studio/raw/x.jpg"))) == Path("/nas/raw/x.jpg")


@given(
    st.binary(min_size=1, max_size=40).filter(
        lambda name: not {0, 47} & set(name) and name not in (b".", b"..")
    )
)
def test_any_name_that_a_file_can_have_survives_the_journey(name: bytes) -> None:
    shares = Shares({"studio": Path("/mnt")})
    path = Path("/mnt") / os.fsdecode(name)
    url = shares.url(path)
    assert url.isascii()
    assert os.fsencode(shares.path(json.loads(json.dumps(url)))) == os.fsencode(path)


@pytest.mark.parametrize(
    "url",
    [
        "share://studio/../etc/passwd",
        "share://studio/a/%2e%2e/b",
        "share://studio//etc",
        "file:///etc/passwd",
    ],
)
def test_no_message_leads_out_of_a_share(url: str) -> None:
    with pytest.raises(InputRejected):
        Shares({"studio": Path("/mnt/studio")}).path(url)


def test_a_share_that_this_host_lacks_is_named() -> None:
    with pytest.raises(HostError, match="no share 'raw'"):
        Shares({"studio": Path("/mnt")}).path("share://raw/a.jpg")


def test_a_share_is_known_by_its_token_wherever_it_is_mounted(tmp_path: Path) -> None:
    real, other = tmp_path / "real", tmp_path / "other"
    real.mkdir()
    other.mkdir()
    token = Shares({"studio": real}).mark("studio")
    assert Shares({"studio": real}).mark("studio") == token  # a second watcher finds the first one's
    (tmp_path / "link").symlink_to(real)
    Shares({"studio": tmp_path / "link"}).check_token("studio", token)
    Shares({"studio": other}).mark("studio")
    with pytest.raises(HostError, match="another share"):
        Shares({"studio": other}).check_token("studio", token)


@pytest.mark.parametrize("torn", [b"", b'{"token": "abc', b"\0" * 90])
def test_a_mark_that_a_full_disk_or_a_power_cut_left_torn_is_made_anew(tmp_path: Path, torn: bytes) -> None:
    shares = Shares({"studio": tmp_path})
    probe = shares.state("studio") / "share.json"
    probe.parent.mkdir()
    probe.write_bytes(torn)
    token = shares.mark("studio")
    assert len(token) == 32
    assert shares.mark("studio") == token
    shares.check_watcher("studio")
    assert [path.name for path in probe.parent.iterdir()] == ["share.json"]


def test_many_that_mark_a_share_at_once_agree(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def mark(place: Path) -> str:
        start.wait()
        return Shares({"studio": place}).mark("studio")

    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            place = tmp_path / str(number)
            place.mkdir()
            assert len(set(threads.map(mark, [place] * 8))) == 1


def test_a_watcher_keeps_its_name_and_gets_one_in_place_of_a_torn_one(tmp_path: Path) -> None:
    name = watcher_id(tmp_path)
    assert watcher_id(tmp_path) == name != watcher_id(tmp_path.parent)
    (tmp_path / "fleet.id").write_bytes(b"")
    other = watcher_id(tmp_path)
    assert len(other) == 16 and watcher_id(tmp_path) == other


def test_an_empty_mount_point_is_not_the_share(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot read .*share\.json"):
        Shares({"studio": tmp_path}).token("studio")


# --- The default ---------------------------------------------------------------------------


def test_without_a_fleet_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, watcher.daemon, watcher.commands.run, watcher.commands.status; "
        "print(*(name for name in sys.modules if name.split('.')[0] in ('dramatiq', 'pika', 'redis') "
        "or name.startswith('watcher.fleet.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


# --- What went wrong on a node ---------------------------------------------------------------


@pytest.mark.parametrize("name", [*KINDS, "ZeroDivisionError", "ConfigError", None])
def test_an_error_of_a_node_means_here_what_it_meant_there(name: str | None) -> None:
    reply = Reply(
        node="gpu1", watcher=JOB.watcher, job=17, fence=2, error=name or "", reason="no", remedy="do"
    )
    error = failure_in(reply)
    if name in KINDS:
        assert type(error).__name__ == name
        assert str(error) == "node gpu1: no" and error.remedy == "do"
    else:  # a node's wrong configuration, or its bug, must not stop the watcher
        assert type(error).__name__ == "RemoteBug"
        assert disposition(error, attempts=1, policy=RetryPolicy()).action is Action.QUARANTINE


def test_a_photo_that_only_the_node_sees_changed_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    job = Job(1, Source("in", "a.jpg", Stamp.of(path.stat())), 1, 1)
    error = InputChanged("node gpu1: the file is gone")
    assert isinstance(seen_from_here(error, tmp_path, job), InputNotReady)
    path.write_bytes(b"other")
    assert isinstance(seen_from_here(error, tmp_path, job), InputChanged)
    path.unlink()
    assert isinstance(seen_from_here(error, tmp_path, job), InputChanged)


# --- The broker's address --------------------------------------------------------------------


def test_an_address_is_shown_without_its_password() -> None:
    assert shown("redis://:secret@desk:6379/0") == "redis://desk:6379"
    assert shown("amqps://me:secret@desk") == "amqps://desk"


def test_without_the_extra_a_fleet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dramatiq", None)
    with pytest.raises(ConfigError, match="not installed: dramatiq") as refused:
        Line("redis://127.0.0.1:1/0", lost_after=15)
    assert "hotmatte[queue]" in refused.value.remedy


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1"])
def test_a_broker_that_is_away_is_a_host_error_with_its_address(url: str) -> None:
    line = Line(url, lost_after=15)
    try:
        with pytest.raises(BrokerLost, match=r"127\.0\.0\.1:1 does not answer: nothing listens on this port"):
            line.send("hotmatte.test", "{}")
    finally:
        line.close()


def test_a_broker_that_takes_connections_and_says_nothing_is_away_too() -> None:
    """A host that hangs, a balancer before a dead broker, another service's port: no fault of any photo."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        line = Line(f"amqp://127.0.0.1:{mute.getsockname()[1]}/?stack_timeout=0.2", lost_after=15)
        try:
            with pytest.raises(BrokerLost, match="does not answer: something listens there"):
                line.send("hotmatte.test", "{}")
            with pytest.raises(BrokerLost, match="does not answer: something listens there"):
                line.listen("hotmatte.test", prefetch=1)
            with pytest.raises(BrokerLost, match="does not answer: something listens there"):
                line.greet()
        finally:
            line.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:sec#ret@desk:6379/0", "%23"),
        ("redis://:se/cret@desk:6379/0", "%2F"),
        ("amqp://me:1?23@desk", "%3F"),
        ("amqp://me:1#23@desk", "%23"),
        ("amqp://me:[x@desk", "%5B"),
        ("redis://desk:70000/0", "the port is a number"),
        ("redis://desk/studio", "no number"),
        ("http://desk", "must begin with redis://"),
    ],
)
def test_an_address_that_cannot_be_read_says_why_and_never_the_password(url: str, words: str) -> None:
    found = fault_of(url)
    assert found is not None and words in found
    assert "sec" not in found and "cret" not in found


@pytest.mark.parametrize("url", ["redis://desk", "rediss://:a%23b@desk:1/3?x=y", "amqps://me:p@desk/studio"])
def test_an_address_that_can_be_read_is_fine(url: str) -> None:
    assert fault_of(url) is None


@pytest.mark.parametrize(
    "url", ["redis://desk/0?foo=bar", "amqp://desk/?foo=bar", "amqp://desk/?heartbeat=x"]
)
def test_options_that_nobody_knows_are_a_matter_of_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match=r"queue\.url: what follows the \? is not understood"):
        Line(url, lost_after=15)


def test_an_option_in_the_address_of_rabbitmq_wins_over_ours() -> None:
    line = Line("amqp://desk/?heartbeat=77", lost_after=15)
    assert line._broker.parameters.heartbeat == 77
    line.close()
