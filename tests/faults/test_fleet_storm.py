"""Random deaths all over a fleet, many times over: no photo is lost, torn, doubled or left behind.

`HOTMATTE_FAULTS=full` (which `make faults` sets) makes it 50 deaths during 5 000 photos, with RabbitMQ as well;
`HOTMATTE_SEED` repeats the choices, as far as processes can be made to repeat themselves.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemonrig import check_set, drop, jpeg, sha256
from fleetrig import FleetRig, NodeRig
from rigs.brokers import Broker, Rabbit, Redis, missing

FULL = os.environ.get("HOTMATTE_FAULTS") == "full"
DEATHS, PHOTOS = (50, 5000) if FULL else (5, 150)
# Nothing of it depends on the broker but what a broker forgets, and Redis forgets everything.
KINDS = ("redis", "rabbit") if FULL else ("redis",)
SEED = int(os.environ.get("HOTMATTE_SEED") or random.SystemRandom().randrange(10**6))
EVENTS = ["kill", "kill", "kill", "freeze", "freeze", "drain", "watcher", "broker"]
NODES = ("a", "b", "c")


@pytest.fixture(params=KINDS)
def broker(
    request: pytest.FixtureRequest, tmp_path: Path, real_part: Callable[[str, object, str], None]
) -> Iterator[Broker]:
    why = missing(request.param)
    real_part(request.param, why is None, why or "")
    server = {"redis": Redis, "rabbit": Rabbit}[request.param](tmp_path / "broker")
    server.start()
    yield server
    server.close()


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[FleetRig]:
    # Whoever is there at fifty deaths is innocent here: nobody shall be given up.
    retry = {"max_attempts": 100, "base_delay_s": 0.02, "max_delay_s": 0.2}
    rig = FleetRig(
        tmp_path / "fleet", broker.url, retry=retry, limits={"max_in_flight": 4, "drain_timeout_s": 5}
    )
    yield rig
    rig.close()


@pytest.mark.timeout(3600)
def test_no_photo_is_lost_or_doubled_by_deaths_all_over_a_fleet(fleet: FleetRig, broker: Broker) -> None:
    print(f"\nfleet storm: seed {SEED}, {DEATHS} deaths, {PHOTOS} photos")
    chance = random.Random(SEED)
    fleet.start()
    for name in NODES:
        fleet.node(name, ready=False)
    fleet.watcher.wait(lambda: any(fleet.is_seen(name) for name in NODES), timeout=60)
    began, dropped, deaths = time.monotonic(), {}, Counter()
    for number in range(DEATHS):
        _drop(fleet, dropped, upto=PHOTOS * (number + 1) // DEATHS)
        what = chance.choice(EVENTS)
        _wait_for_work(fleet)
        deaths[what] += 1
        _happen(fleet, broker, what, chance)
    _until_done(fleet, len(dropped))
    seconds = time.monotonic() - began
    print(f"fleet storm on {broker.kind}: {dict(deaths)}, {len(dropped)} photos in {seconds:.0f} s")
    assert fleet.watcher.counts() == {"done": len(dropped)}
    _check(fleet, dropped)
    for node in fleet.nodes.values():
        assert node.stop() == 0, node.log()[-2000:]
    assert fleet.watcher.stop() == 0
    assert fleet.watcher.leftovers() == []


def _drop(fleet: FleetRig, dropped: dict[str, str], *, upto: int) -> None:
    for number in range(len(dropped), upto):
        content = jpeg(number)
        dropped[f"{number:05d}.jpg"] = sha256(content)
        drop(fleet.hot() / f"{number:05d}.jpg", content)


def _wait_for_work(fleet: FleetRig) -> None:
    """Something shall be in somebody's hands; with nobody there, or nothing left, the next event comes at once."""
    deadline = time.monotonic() + 2.0
    while not any(fleet.hold(name) for name in NODES) and time.monotonic() < deadline:
        time.sleep(0.005)


def _happen(fleet: FleetRig, broker: Broker, what: str, chance: random.Random) -> None:
    name = chance.choice(NODES)
    node = fleet.nodes[name]
    match what:
        case "kill":
            node.kill()
            fleet.node(name, ready=False)
        case "drain":
            _replaced(fleet, node)
        case "freeze":
            node.signal(signal.SIGSTOP)
            # Longer than anybody waits for it, or not.
            _pass(fleet, chance.uniform(0.5, 5.0))
            node.signal(signal.SIGCONT)
        case "watcher":
            fleet.watcher.kill()
            fleet.watcher.start(ready=False)
        case "broker":
            broker.kill()
            _pass(fleet, chance.uniform(0.0, 2.0))
            broker.start()


def _replaced(fleet: FleetRig, node: NodeRig) -> None:
    """A node that is still starting knows no SIGTERM yet: it dies of it, which is as well."""
    node.stop()
    fleet.node(node.name, ready=False)


def _pass(fleet: FleetRig, seconds: float) -> None:
    """Let time pass; the watcher has to live through it."""
    deadline = time.monotonic() + seconds
    fleet.watcher.wait(lambda: time.monotonic() > deadline, timeout=seconds + 10)


def _until_done(fleet: FleetRig, count: int) -> None:
    """Everything done, and everybody there again: who was killed last may still be starting."""
    fleet.watcher.wait(lambda: fleet.watcher.counts().get("done") == count, timeout=300, every=0.2)
    fleet.watcher.wait(fleet.watcher.is_ready, timeout=60)
    for node in fleet.nodes.values():
        fleet.wait_ready(node)


def _check(fleet: FleetRig, dropped: dict[str, str]) -> None:
    """One whole set for each photo, and nothing else."""
    found: dict[str, str] = {}
    for path in sorted(fleet.out().rglob("*.matte.json")):
        content = json.loads(path.read_bytes())
        check_set(path, content, fleet.out())
        assert content["source"]["path"] not in found
        found[content["source"]["path"]] = content["source"]["sha256"]
    assert found == dropped
    assert len(list(fleet.out().iterdir())) == 3 * len(dropped)
