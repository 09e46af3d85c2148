"""Three hosts with a share that each mounts elsewhere, and a broker on a fourth address: docs/scaling.md for real.

The hosts are namespaces of this machine, each with its own name, network and mounts.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemonrig import DaemonRig, check_set, drop, jpeg, sha256, write_card
from fleetrig import QUICK_QUEUE
from rigs.brokers import Redis, missing
from rigs.network import Host, unavailable

MOUNTS = {"desk": "mnt/studio", "gpu1": "srv/nas", "gpu2": "media/studio.2"}
# Deadlines, not expectations: nobody waits for them where all is well.
DONE_S = READY_S = 90.0


class Studio:
    """`nas` is what the share holds; each host sees it at its own mount only."""

    def __init__(self, root: Path, hosts: dict[str, Host], redis: Redis) -> None:
        self.root, self.hosts = root, hosts
        self.nas = root / "nas"
        self.nas.mkdir()
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        shape = {"short_side": 16, "multiple": 1, "max_side": 512}
        cards = write_card(root / "cards", "slow", input=shape, latency_s=0.4).parent
        self.rigs = {
            name: DaemonRig(
                root / name,
                folders={
                    "in": {
                        "path": "share://studio/hot",
                        "output": "share://studio/mattes",
                        "where": "fleet",
                    }
                },
                card="slow",
                cards=cards,
                shares={"studio": str(root / name / MOUNTS[name])},
                queue={**QUICK_QUEUE, "url": redis.url_at(host.here)},
                limits={"max_in_flight": 4, "drain_timeout_s": 10},
            )
            for name, host in hosts.items()
        }
        for name in hosts:
            self.mount_of(name).mkdir(parents=True)
            self.mount(name)
        self.desk = self.rigs["desk"]
        self.photos: dict[str, str] = {}

    def mount_of(self, name: str) -> Path:
        return self.root / name / MOUNTS[name]

    def mount(self, name: str) -> None:
        self.hosts[name].mount(self.nas, self.mount_of(name))

    def below(self, name: str) -> list[str]:
        """What a host sees where it mounts the share."""
        words = [*self.hosts[name].prefix, "ls", "-A", str(self.mount_of(name))]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    def start(self) -> None:
        self.desk.start(command=[*self.hosts["desk"].prefix, *self.desk.command("run", "--no-progress")])
        self.desk.wait(lambda: (self.nas / ".hotmatte-fleet" / "share.json").exists(), timeout=READY_S)
        for name in ("gpu1", "gpu2"):
            rig = self.rigs[name]
            with rig.log_file.open("ab") as log:
                self.nodes[name] = subprocess.Popen(
                    [*self.hosts[name].prefix, *rig.command("node")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=rig.environment(),
                    start_new_session=True,
                )
        for name in self.nodes:
            self.desk.wait(lambda name=name: self.works(name) or not self.lives(name), timeout=READY_S)
            assert self.lives(name), self.rigs[name].log()

    def lives(self, name: str) -> bool:
        return self.nodes[name].poll() is None

    def seen(self, name: str) -> dict[str, Any]:
        fleets = self.desk.status().get("fleet") or [{"nodes": []}]
        return next((node for node in fleets[0]["nodes"] if node["node"] == name), {})

    def works(self, name: str) -> bool:
        return self.seen(name).get("state") == "working"

    def holds(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):  # a job that ended this very moment
            attempts = self.nas.glob(f".hotmatte-fleet/stage/*/*/*-{name}-*")
            return any(not list(attempt.glob("[!.]*.matte.json")) for attempt in attempts)
        return False

    def drop(self, count: int) -> list[str]:
        names = [f"{len(self.photos) + number:04d}.jpg" for number in range(count)]
        for name in names:
            content = jpeg(int(name[:4]))
            self.photos[name] = sha256(content)
            drop(self.nas / "hot" / name, content)
        return names

    def drop_until(self, condition: Callable[[], object]) -> None:
        """A node may find nothing to do where the others are quick: then there is more."""
        deadline = time.monotonic() + DONE_S
        while not condition():
            assert time.monotonic() < deadline
            self.drop(12)
            self.desk.wait(lambda: condition() or self.are_done(), timeout=DONE_S)

    def are_done(self) -> bool:
        return self.desk.counts().get("done") == len(self.photos)

    def wait_done(self) -> None:
        self.desk.wait(lambda: self.desk.counts().get("done") == len(self.photos), timeout=DONE_S, every=0.1)

    def close(self) -> None:
        for node in self.nodes.values():
            node.kill()
            node.wait()
        self.desk.close()


@pytest.fixture
def studio(tmp_path: Path, real_part: Callable[[str, object, str], None]) -> Iterator[Studio]:
    for part, why in (("redis", missing("redis")), ("namespaces", unavailable())):
        real_part(part, why is None, why or "")
    with contextlib.ExitStack() as stack:
        hosts = {}
        for name in MOUNTS:
            hosts[name] = stack.enter_context(contextlib.closing(Host(name)))
        redis = Redis(tmp_path / "redis", address=" ".join(host.here for host in hosts.values()))
        redis.start()
        stack.callback(redis.close)
        yield stack.enter_context(contextlib.closing(Studio(tmp_path, hosts, redis)))


@pytest.mark.timeout(300)
def test_three_hosts_work_on_one_share_each_by_its_own_path(studio: Studio) -> None:
    studio.start()
    assert all(not list(studio.mount_of(name).iterdir()) for name in MOUNTS)  # nobody else has these mounts
    assert {studio.seen(name)["host"] for name in studio.nodes} == {"gpu1", "gpu2"}
    for name in studio.nodes:
        studio.drop_until(lambda name=name: " made " in studio.rigs[name].log())
    studio.wait_done()
    a_host_that_loses_network_and_share_loses_no_photo_and_comes_back(studio)
    every_result_is_whole_and_names_no_host_s_path(studio)
    for name, node in studio.nodes.items():
        node.terminate()
        assert node.wait(DONE_S) == 0, studio.rigs[name].log()[-4000:]
    assert studio.desk.stop() == 0
    assert studio.desk.leftovers() == []


def a_host_that_loses_network_and_share_loses_no_photo_and_comes_back(studio: Studio) -> None:
    studio.drop_until(lambda: studio.holds("gpu1"))
    studio.hosts["gpu1"].cut("down")
    studio.hosts["gpu1"].unmount(studio.mount_of("gpu1"))
    start = time.monotonic()
    studio.wait_done()
    print(f"\nfleet: a host without network and share to everything done {time.monotonic() - start:.1f} s")
    studio.desk.wait(lambda: studio.seen("gpu1")["state"] == "silent", timeout=DONE_S)
    assert studio.lives("gpu1")
    log = studio.rigs["gpu1"].log
    studio.desk.wait(lambda: "takes no work: share studio: cannot read" in log(), timeout=DONE_S)
    # What it had in hand must not have gone below the mount.
    assert studio.below("gpu1") == []
    studio.mount("gpu1")
    studio.hosts["gpu1"].mend("down")
    studio.desk.wait(lambda: studio.works("gpu1"), timeout=DONE_S)
    made = log().count(" made ")
    studio.drop_until(lambda: log().count(" made ") > made)
    studio.wait_done()


def every_result_is_whole_and_names_no_host_s_path(studio: Studio) -> None:
    mattes = studio.nas / "mattes"
    found = {}
    for path in sorted(mattes.glob("*.matte.json")):
        text = path.read_text()
        assert str(studio.root) not in text
        content = json.loads(text)
        check_set(path, content, mattes)
        found[content["source"]["path"]] = content["source"]["sha256"]
    assert found == studio.photos
