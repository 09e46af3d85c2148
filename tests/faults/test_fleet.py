"""A fleet with real brokers: whatever happens to nodes, broker and watcher, each photo is done once.

Run with -s to see how long it takes until work returns. HOTMATTE_BROKER_AWAY_S=600 keeps the broker away
for ten minutes, HOTMATTE_FAULTS=full also cuts a node off without a word.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from daemonrig import DaemonRig, check_set, drop, jpeg, sha256, write_card
from fleetrig import FleetRig, NodeRig
from redis import Redis as Client
from rigs.brokers import Broker, Rabbit, Redis, missing
from rigs.network import Host, unavailable
from rigs.shares import can_mount, share

from watcher.config import load
from watcher.domain import JobState, Stamp
from watcher.engine.card import cards_of
from watcher.errors import HostError
from watcher.fleet.brokers import Line
from watcher.fleet.messages import JobMessage, card_digest, jobs_queue, pack, reply_in
from watcher.fleet.shares import Shares
from watcher.fleet.stage import is_wanted

LOST_AFTER_S = 3.0
# Deadlines, not expectations: nobody waits for them where all is well.
DONE_S = SOON_S = 90.0
# A message of Dramatiq's that somebody has put into Redis by hand.
DRAMATIQ = {"queue_name": "x", "actor_name": "x", "args": [], "kwargs": {}, "options": {}}
# The broker is away for so long, at least.
AWAY_S = float(os.environ.get("HOTMATTE_BROKER_AWAY_S") or 0)
# How a node is cut off: its link goes down, or stays up and nothing arrives.
CUTS = ("down", "silent") if os.environ.get("HOTMATTE_FAULTS") == "full" else ("down",)


@pytest.fixture(scope="session")
def host() -> Iterator[Host | None]:
    """To a host of its own; None where that is not allowed: see test_a_host_of_its_own_can_be_made."""
    host = Host() if unavailable() is None else None
    yield host
    if host is not None:
        host.close()


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory, host: Host | None) -> Iterator[Callable[[str], Broker]]:
    """Starts each kind when it is first asked for, and all are stopped in the end."""
    found: dict[str, Broker] = {}
    address = host.here if host is not None else "127.0.0.1"

    def get(kind: str) -> Broker:
        if kind not in found:
            make = {"redis": Redis, "rabbit": Rabbit}[kind]
            found[kind] = make(tmp_path_factory.mktemp(kind), address=address)
            found[kind].start()
        return found[kind]

    yield get
    for broker in found.values():
        broker.close()


@pytest.fixture(params=["redis", "rabbit"])
def broker(
    request: pytest.FixtureRequest,
    brokers: Callable[[str], Broker],
    real_part: Callable[[str, object, str], None],
) -> Broker:
    why = missing(request.param)
    real_part(request.param, why is None, why or "")
    return brokers(request.param)


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[FleetRig]:
    """One watcher; an engine that needs 0.4 s for a batch of up to four."""
    shape = {"short_side": 16, "multiple": 1, "max_side": 512}
    cards = write_card(tmp_path / "cards", "slow", input=shape, latency_s=0.4).parent
    rig = FleetRig(
        tmp_path / "fleet",
        broker.url,
        folders={"in": {}, "urgent": {"priority": 5, "source": "archive", "archive": "share://studio/old"}},
        card="slow",
        cards=cards,
        queue={"lost_after_s": LOST_AFTER_S},
        limits={"max_in_flight": 4, "drain_timeout_s": 10},
        cache={},
    )
    yield rig
    rig.close()


class Photos:
    """What was dropped into the hot folders, newest version last."""

    def __init__(self, fleet: FleetRig) -> None:
        self._fleet = fleet
        self._seeds = iter(range(1, 100_000))
        self.final: dict[tuple[str, str], str] = {}

    def drop(self, count: int, name: str = "in") -> list[str]:
        names = [f"{next(self._seeds):04d}.jpg" for _ in range(count)]
        for relpath in names:
            self.overwrite(relpath, name)
        return names

    def overwrite(self, relpath: str, name: str = "in") -> None:
        content = jpeg(next(self._seeds))
        self.final[name, relpath] = sha256(content)
        drop(self._fleet.hot(name) / relpath, content)

    def are_done(self) -> bool:
        return all(self._is_done(name, relpath) for name, relpath in self.final)

    def _is_done(self, name: str, relpath: str) -> bool:
        record = self._fleet.watcher.record(relpath, name)
        if record is None or record.state is not JobState.DONE:
            return False
        path = self._fleet.hot(name) / relpath
        return not path.exists() or Stamp.of(path.stat()) == record.job.source.stamp


def in_the_hands_of(
    fleet: FleetRig, photos: Photos, *nodes: str, least: int = 1, folder: str = "in"
) -> list[str]:
    """Drop photos until these nodes hold some; on a busy machine others may have done the first ones."""
    dropped: list[str] = []
    deadline = time.monotonic() + DONE_S
    while time.monotonic() < deadline:
        dropped += photos.drop(12, folder)
        held_or_over = partial(_held_or_over, fleet, nodes, least, dropped[-1], folder)
        if fleet.watcher.wait(held_or_over, timeout=SOON_S) == "held":
            return dropped
    raise AssertionError(f"{nodes} take no work")


def _held_or_over(fleet: FleetRig, nodes: tuple[str, ...], least: int, last: str, folder: str) -> str | None:
    if sum(fleet.hold(name) for name in nodes) >= least:
        return "held"
    counts = fleet.watcher.counts()
    is_over = fleet.watcher.record(last, folder) is not None and set(counts) <= {"done"}
    return "over" if is_over else None


def wait_done(fleet: FleetRig, photos: Photos) -> float:
    start = time.monotonic()
    fleet.watcher.wait(photos.are_done, timeout=DONE_S + AWAY_S, every=0.1)
    return time.monotonic() - start


def check_results(fleet: FleetRig, photos: Photos) -> None:
    """Exactly one whole set for each name, of its last version, and nothing else on the share."""
    found: dict[tuple[str, str], str] = {}
    for name in ("in", "urgent"):
        files = 0
        for path in sorted(fleet.out(name).rglob("*.matte.json")):
            content = json.loads(path.read_bytes())
            check_set(path, content, fleet.out(name))
            key = name, content["source"]["path"]
            assert content["source"]["folder"] == name
            assert key not in found, f"{key} has two sets"
            found[key] = content["source"]["sha256"]
            files += 1 + len(content["outputs"])
        assert files == len([path for path in fleet.out(name).rglob("*") if path.is_file()])
    assert found == photos.final


def all_files(place: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


# --- Everything that happens to one fleet ----------------------------------------------------


@pytest.mark.timeout(400 + 2 * AWAY_S)
def test_each_photo_is_done_once_whatever_happens_to_nodes_and_broker(
    fleet: FleetRig, broker: Broker, host: Host | None
) -> None:
    photos = Photos(fleet)
    fleet.start()
    fleet.node("a", ready=False)
    far = fleet.node("b", ready=False, prefix=host.prefix if host is not None else ())
    fleet.wait_ready(fleet.nodes["a"])
    fleet.wait_ready(far)
    the_work_is_done_by_nodes_and_status_says_so(fleet, photos)
    the_same_photo_again_needs_no_engine(fleet, photos)
    a_job_on_another_share_of_that_name_is_refused_and_in_nobody_s_way(fleet, broker)
    what_a_killed_node_held_is_done_by_another(fleet, photos, broker)
    what_a_frozen_node_held_is_done_by_another_and_it_changes_nothing_when_it_wakes(fleet, photos, broker)
    if host is not None:
        for way in CUTS:
            what_a_node_that_is_cut_off_held_is_done_by_another_and_it_comes_back(
                fleet, photos, broker, host, way
            )
    a_broker_that_is_away_stops_no_intake_and_work_goes_on_when_it_is_back(fleet, photos, broker)
    if broker.kind == "redis":  # nothing of it depends on the broker
        a_watcher_that_is_killed_takes_over_what_nodes_made_meanwhile(fleet, photos)
    a_drained_node_finishes_what_it_holds(fleet, photos)
    check_results(fleet, photos)
    assert fleet.watcher.stop() == 0
    assert fleet.watcher.leftovers() == []
    assert sorted(path.name for path in fleet.share.joinpath("old").iterdir()) == sorted(
        relpath for name, relpath in photos.final if name == "urgent"
    )


def the_work_is_done_by_nodes_and_status_says_so(fleet: FleetRig, photos: Photos) -> None:
    photos.drop(8)
    wait_done(fleet, photos)
    fleet.watcher.wait(lambda: sum(node["done"] for node in fleet.seen().values()) == 8, timeout=SOON_S)
    seen = fleet.seen()["a"]
    assert seen["models"] == ["slow"] and seen["capacity"] == 4 and seen["reason"] is None
    words = fleet.watcher.hotmatte("status").stdout
    assert "a: working, holds 0 of 4" in words and f"{seen['done']} done" in words
    assert "guest" not in words  # the broker's password
    sidecar = json.loads((fleet.out() / "0001.matte.json").read_bytes())
    assert sidecar["engine"]["model"] == "slow" and sidecar["engine"]["device"] == "cpu"
    assert (sidecar["source"]["folder"], sidecar["source"]["path"]) == ("in", "0001.jpg")


def the_same_photo_again_needs_no_engine(fleet: FleetRig, photos: Photos) -> None:
    """Nodes have a cache each; here they are of one user on one host, and share it."""
    drop(fleet.hot() / "again.jpg", (fleet.hot() / "0001.jpg").read_bytes())
    photos.final["in", "again.jpg"] = photos.final["in", "0001.jpg"]
    wait_done(fleet, photos)
    first, again = (
        json.loads((fleet.out() / f"{base}.matte.json").read_bytes()) for base in ("0001", "again")
    )
    assert (first["cached"], again["cached"]) == (False, True)
    assert [file["sha256"] for file in again["outputs"]] == [file["sha256"] for file in first["outputs"]]


def a_job_on_another_share_of_that_name_is_refused_and_in_nobody_s_way(
    fleet: FleetRig, broker: Broker
) -> None:
    """As by another studio on the same broker, or from before the share was set up anew."""
    settings = load(fleet.watcher.config)
    [card] = {card_digest(card) for card in cards_of(settings, "fleet").values()}
    job = JobMessage(
        watcher="0123456789abcdef",
        reply_to="test.replies",
        share="f" * 32,
        job=17,
        fence=2,
        attempts=1,
        folder="in",
        source="share://studio/hot/in/0001.jpg",
        stage="share://studio/.hotmatte-fleet/stage/0123456789abcdef/17",
        size=1,
        mtime_ns=1,
        profile_name="portrait",
        profile=settings.profiles["portrait"],
        card=card,
    )
    line = Line(broker.url, lost_after=LOST_AFTER_S)
    try:
        listener = line.listen(job.reply_to, prefetch=1)
        line.send(jobs_queue(card), pack(job))
        delivery = fleet.watcher.wait(listener.take, timeout=SOON_S)
        listener.ack(delivery)
        listener.close()
    finally:
        line.close()
    reply = reply_in(delivery.body)
    assert (reply.job, reply.fence, reply.error) == (17, 2, "HostError")
    assert "another share 'studio'" in reply.reason
    assert not any("takes no work" in node.log() for node in fleet.nodes.values())


def what_a_killed_node_held_is_done_by_another(fleet: FleetRig, photos: Photos, broker: Broker) -> None:
    photos.drop(4, "urgent")
    in_the_hands_of(fleet, photos, "a")
    fleet.nodes["a"].kill()
    fleet.node("c", ready=False)  # for what comes next
    print(f"\nfleet {broker.kind}: kill -9 to everything done {wait_done(fleet, photos):.1f} s")
    fleet.watcher.wait(lambda: fleet.seen()["a"]["state"] == "silent", timeout=SOON_S)
    assert "a: SILENT" in fleet.watcher.hotmatte("status").stdout


def what_a_frozen_node_held_is_done_by_another_and_it_changes_nothing_when_it_wakes(
    fleet: FleetRig, photos: Photos, broker: Broker
) -> None:
    frozen = fleet.nodes["c"]
    fleet.wait_ready(frozen)
    names = in_the_hands_of(fleet, photos, "c", least=2)
    frozen.signal(signal.SIGSTOP)
    print(f"fleet {broker.kind}: SIGSTOP to everything done {wait_done(fleet, photos):.1f} s")
    for relpath in names:  # newer versions, which what the sleeper made must never replace
        photos.overwrite(relpath)
    wait_done(fleet, photos)
    before = all_files(fleet.out())
    ended = _ended(frozen)
    frozen.signal(signal.SIGCONT)
    fleet.watcher.wait(lambda: fleet.is_seen("c"), timeout=SOON_S)
    fleet.watcher.wait(lambda: fleet.hold("c") == 0, timeout=SOON_S)
    fleet.watcher.wait(lambda: _ended(frozen) > ended, timeout=SOON_S)
    more = photos.drop(1)
    wait_done(fleet, photos)
    after = {
        path: file for path, file in all_files(fleet.out()).items() if Path(path).name[:4] not in more[0]
    }
    assert after == before


def what_a_node_that_is_cut_off_held_is_done_by_another_and_it_comes_back(
    fleet: FleetRig, photos: Photos, broker: Broker, host: Host, way: str
) -> None:
    """`b` sees the share all the while, so that nobody but the broker can miss it."""
    far = fleet.nodes["b"]
    names = in_the_hands_of(fleet, photos, "b")
    host.cut(way)
    print(f"fleet {broker.kind}: link {way} to everything done {wait_done(fleet, photos):.1f} s")
    for relpath in names:  # newer versions, which what it made meanwhile must never replace
        photos.overwrite(relpath)
    wait_done(fleet, photos)
    before = all_files(fleet.out())
    host.mend(way)
    start, more = time.monotonic(), []
    while not any(f"file={relpath}" in far.log() for relpath in more):
        assert time.monotonic() < start + DONE_S, far.log()[-4000:]
        more += photos.drop(6)
        wait_done(fleet, photos)
    print(f"fleet {broker.kind}: link back to its node at work {time.monotonic() - start:.1f} s")
    added = {relpath[:4] for relpath in more}
    after = {path: file for path, file in all_files(fleet.out()).items() if Path(path).name[:4] not in added}
    assert after == before


def _ended(node: NodeRig) -> int:
    return node.log().count(" made ") + node.log().count(" failed")


def a_broker_that_is_away_stops_no_intake_and_work_goes_on_when_it_is_back(
    fleet: FleetRig, photos: Photos, broker: Broker
) -> None:
    in_the_hands_of(fleet, photos, "c", "b")
    told = fleet.watcher.log().count("does not answer"), fleet.nodes["c"].log().count("takes no work")
    broker.kill()
    away = time.monotonic()
    fleet.watcher.wait(lambda: fleet.fleet()["broker_lost"], timeout=SOON_S)
    taken_in = 0
    while not taken_in or time.monotonic() < away + AWAY_S:
        late = photos.drop(18)
        fleet.watcher.wait(lambda late=late: all(fleet.watcher.record(name) for name in late), timeout=SOON_S)
        assert "BROKER LOST" in fleet.watcher.hotmatte("status").stdout
        assert fleet.seen()["c"]["state"] == fleet.seen()["b"]["state"] == "working"
        taken_in += len(late)
        pause = time.monotonic() + min(15.0, AWAY_S)
        fleet.watcher.wait(lambda pause=pause: time.monotonic() > pause, timeout=SOON_S)
    seconds = time.monotonic() - away
    broker.start()
    took = wait_done(fleet, photos)
    print(
        f"fleet {broker.kind}: away for {seconds:.0f} s, {taken_in} photos taken in; back to all done {took:.1f} s"
    )
    fleet.watcher.wait(lambda: not fleet.fleet()["broker_lost"], timeout=SOON_S)
    # However long it was, logs are not flooded: each says it once for each time that it is lost.
    assert fleet.watcher.log().count("does not answer") <= told[0] + 3
    assert fleet.nodes["c"].log().count("takes no work") <= told[1] + 3


def a_watcher_that_is_killed_takes_over_what_nodes_made_meanwhile(fleet: FleetRig, photos: Photos) -> None:
    in_the_hands_of(fleet, photos, "b", "c", least=4)
    fleet.watcher.kill()
    stage = fleet.state / "stage"
    deadline = time.monotonic() + 20
    while not list(stage.rglob("*.matte.json")):
        assert time.monotonic() < deadline
    fleet.start()
    wait_done(fleet, photos)


def a_drained_node_finishes_what_it_holds(fleet: FleetRig, photos: Photos) -> None:
    in_the_hands_of(fleet, photos, "b")
    assert fleet.nodes["b"].stop() == 0
    wait_done(fleet, photos)
    fleet.watcher.wait(lambda: "b" not in fleet.seen(), timeout=SOON_S)
    assert fleet.nodes["b"].log().count("EngineUnavailable") == 0


def test_a_host_of_its_own_can_be_made(real_part: Callable[[str, object, str], None]) -> None:
    """Without one, nobody is cut off in the test above."""
    why = unavailable()
    real_part("network namespaces", why is None, why or "")
    host = Host()
    try:
        reached = ["python3", "-c", f"import socket; socket.create_connection(('{host.here}', 9), 5)"]
        said = subprocess.run([*host.prefix, *reached], capture_output=True, text=True, check=False).stderr
        assert "Connection refused" in said  # by this host: there is a way
        host.cut("down")
        said = subprocess.run([*host.prefix, *reached], capture_output=True, text=True, check=False).stderr
        assert "unreachable" in said
    finally:
        host.close()


# --- Refused in words ------------------------------------------------------------------------


@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)  # nothing of it depends on the broker
def test_a_node_that_would_work_wrongly_refuses_with_words(
    fleet: FleetRig, broker: Broker, tmp_path: Path
) -> None:
    fleet.start()
    fleet.watcher.wait(lambda: (fleet.state / "share.json").exists(), timeout=SOON_S)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fleet.watcher.settings["shares"] = {"studio": str(elsewhere)}
    fleet.watcher.configure()
    done = fleet.watcher.hotmatte("node", timeout=SOON_S)
    assert done.returncode == 74
    assert f"cannot read {elsewhere}/.hotmatte-fleet/share.json" in done.stderr
    fleet.watcher.settings["shares"] = {"studio": str(fleet.share)}
    fleet.watcher.configure()
    probe = json.loads((fleet.state / "share.json").read_text())
    (fleet.state / "share.json").write_text(json.dumps({**probe, "hotmatte": "9.1.0", "protocol": 7}))
    done = fleet.watcher.hotmatte("node", timeout=SOON_S)
    assert done.returncode == 78
    assert "the watcher of share studio runs hotmatte 9.1.0 (protocol 7), this host" in done.stderr


@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)  # nothing of it depends on the broker
@pytest.mark.parametrize(
    "foreign",
    [b"not JSON", b"\xff\xfe", b"[]", b"{}", b"17"]
    + [json.dumps({**DRAMATIQ, **odd}).encode() for odd in ({}, {"kwargs": "text"}, {"options": None})],
)
def test_what_somebody_else_writes_into_a_queue_of_redis_ends_no_listener(
    broker: Broker, foreign: bytes
) -> None:
    client: Any = Client(host=broker.address, port=broker.port)
    line = Line(broker.url, lost_after=LOST_AFTER_S)
    queue = f"hotmatte.foreign.{time.monotonic_ns()}"
    client.hset(f"hotmatte:{queue}.msgs", "1", foreign)
    client.rpush(f"hotmatte:{queue}", "1")
    line.send(queue, "ours")
    listener = line.listen(queue, prefetch=1)
    try:
        found = [delivery for delivery in iter(listener.take, None) if listener.ack(delivery) is None]
        assert [delivery.body for delivery in found] == [None, "ours"]
    finally:
        listener.close()
        line.close()
    # One that only lacks its number is let lie.
    assert client.hlen(f"hotmatte:{queue}.msgs") == int(foreign == json.dumps(DRAMATIQ).encode())


def test_a_share_whose_server_is_down_is_told_in_words_by_watcher_and_node(
    tmp_path: Path, real_part: Callable[[str, object, str], None]
) -> None:
    real_part("FUSE", can_mount(), "apt install fuse3")
    with share(tmp_path / "nas", tmp_path / "mnt") as nas:
        shares = Shares({"studio": nas.point})
        token = shares.mark("studio")
        nas.fail(errno={"getattr": errno.EHOSTDOWN})
        with pytest.raises(HostError, match="Host is down"):
            shares.mark("studio")
        with pytest.raises(HostError, match="Host is down"):
            is_wanted(nas.point / "stage" / "17")
        nas.fail()
        assert shares.mark("studio") == token
        assert not is_wanted(nas.point / "stage" / "17")


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_broker_that_lets_us_hear_and_takes_nothing_counts_as_lost_until_it_takes(
    fleet: FleetRig, broker: Broker
) -> None:
    fleet.start()
    watcher = fleet.watcher
    client: Any = Client(host=broker.address, port=broker.port)
    names = ("~hotmatte:__*", "~hotmatte:hotmatte.replies.*", "~hotmatte")
    client.acl_log_reset()
    client.execute_command("ACL", "SETUSER", "default", "resetkeys", *names)
    try:
        drop(fleet.hot() / "a.jpg", jpeg(1))
        # It tries again and again, and hears all the while.
        watcher.wait(lambda: sum(one["count"] for one in client.acl_log()) >= 4, timeout=SOON_S)
        assert "does not answer" in fleet.fleet()["broker_lost"]
    finally:
        client.execute_command("ACL", "SETUSER", "default", "allkeys")
    watcher.wait(lambda: fleet.fleet()["broker_lost"] is None, timeout=SOON_S)
    assert [watcher.log().count(words) for words in ("does not answer", "broker is back")] == [1, 1]


@pytest.mark.parametrize("broker", ["redis"], indirect=True)  # nothing of it depends on the broker
def test_a_node_that_cannot_reach_the_broker_says_so_to_the_watcher_and_has_nothing_sent_again(
    fleet: FleetRig, broker: Broker
) -> None:
    fleet.start()
    watcher = fleet.watcher
    watcher.wait(lambda: (fleet.state / "share.json").exists(), timeout=SOON_S)
    watcher.env["HOTMATTE_QUEUE_URL"] = "redis://127.0.0.1:1/0"
    fleet.node("a")
    watcher.wait(lambda: fleet.seen()["a"]["reason"], timeout=SOON_S)
    assert "127.0.0.1:1 does not answer: nothing listens on this port" in fleet.seen()["a"]["reason"]
    os.kill(fleet.nodes["a"].child.pid, signal.SIGHUP)  # it knows no reload, and stays
    watcher.wait(
        lambda: "reads its configuration at its start only" in fleet.nodes["a"].log(), timeout=SOON_S
    )
    drop(fleet.hot() / "a.jpg", jpeg(1))
    # By then it would have been sent again, twice.
    watcher.wait(lambda: "no node can do slow, for which 1 photo waits" in watcher.log(), timeout=SOON_S)
    assert "GETS NO WORK: the broker redis://127.0.0.1:1" in watcher.hotmatte("status").stdout
    assert "sent again" not in watcher.log()
    watcher.env.clear()
    fleet.node("b")
    watcher.wait_done("a.jpg", timeout=DONE_S)
    assert fleet.nodes["a"].is_alive()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)  # nothing of it depends on the broker
def test_a_photo_at_which_nodes_die_is_given_up(fleet: FleetRig, broker: Broker) -> None:
    fleet.start()
    node = fleet.node("a")
    photos = Photos(fleet)
    [name] = photos.drop(1)
    claim = fleet.watcher.wait(
        lambda: next(
            (path for path in fleet.state.glob("stage/*/*/*/claim.json") if path.stat().st_size), None
        ),
        timeout=SOON_S,
        every=0.005,
    )
    attempt = claim.parent
    node.signal(signal.SIGSTOP)
    for number in range(2, 4):
        shutil.copytree(attempt, attempt.with_name(f"{number}-dead-{os.urandom(4).hex()}"))
    node.kill()
    fleet.node("b")
    fleet.watcher.wait_quarantined(name, timeout=SOON_S)
    [report] = fleet.out().glob("*.error.json")
    assert "3 nodes died" in json.loads(report.read_text())["reason"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)  # nothing of it depends on the broker
def test_a_second_watcher_takes_over_when_the_first_one_dies(fleet: FleetRig, tmp_path: Path) -> None:
    """Both have the hot folders in their configuration; the lock of the folder says who leads."""
    del fleet.watcher.settings["folders"]["in"]  # `urgent` archives what is done
    fleet.watcher.configure()
    fleet.start()
    fleet.node("a")
    second = DaemonRig(tmp_path / "second", folders={"x": {}})
    second.settings = {**fleet.watcher.settings, "state_dir": str(tmp_path / "second" / "state")}
    second.configure()
    second.start()
    try:
        reason = second.wait(lambda: second.status()["folders"]["urgent"]["reason"], timeout=SOON_S)
        assert "another hotmatte" in reason
        photos = Photos(fleet)
        count = len(in_the_hands_of(fleet, photos, "a", folder="urgent"))
        fleet.watcher.kill()
        start = time.monotonic()
        second.wait(lambda: second.status()["folders"]["urgent"]["state"] == "watching", timeout=SOON_S)
        print(f"\nfleet: a watcher killed to the second one leading {time.monotonic() - start:.1f} s")
        second.wait(lambda: len(list(fleet.share.joinpath("old").glob("*.jpg"))) == count, timeout=DONE_S)
        second.wait(lambda: len(list(fleet.out("urgent").glob("*.matte.json"))) == count, timeout=SOON_S)
        check_results(fleet, photos)
        assert second.stop() == 0
    finally:
        second.close()
