"""A fleet in a folder of its own: a real watcher, real nodes, a real broker, one share."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from daemonrig import DaemonRig

READY_S = 90.0
# As fast as it goes; brokers and nodes that are lost are missed soon.
QUICK_QUEUE = {"in_flight": 16, "lost_after_s": 3, "resend_after_s": 2}


class NodeRig:
    """One `hotmatte node`, of its own process group."""

    def __init__(self, fleet: FleetRig, name: str, *, prefix: Sequence[str] = ()) -> None:
        """`prefix`: what makes a command run on the host that the node shall be on."""
        self.name = name
        self._fleet = fleet
        self.log_file = fleet.root / f"{name}.log"
        with self.log_file.open("ab") as log:
            self._begins = log.tell()  # predecessors of the same name wrote what is before
            self.child = subprocess.Popen(
                [*prefix, *fleet.watcher.command("node", "--name", name)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=fleet.watcher.environment(),
                cwd=fleet.root,
                start_new_session=True,
            )

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def is_alive(self) -> bool:
        return self.child.poll() is None

    def is_ready(self) -> bool:
        """Whether this very node, not a predecessor of its name, works and minds signals."""
        return b"node ready" in self.log_file.read_bytes()[self._begins :]

    def signal(self, number: int) -> None:
        """To the node and its workers, as a frozen or dying machine would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, number)

    def kill(self) -> None:
        workers = self._workers()
        self.signal(signal.SIGKILL)
        self.child.wait()
        psutil.wait_procs(workers, timeout=5)

    def stop(self, *, timeout: float = 60.0) -> int:
        self.child.terminate()
        return self.child.wait(timeout)

    def _workers(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


class FleetRig:
    """`url`: the broker's. The share is a folder; each hot folder works with `where: fleet`."""

    def __init__(
        self,
        root: Path,
        url: str,
        *,
        folders: dict[str, dict[str, Any]] | None = None,
        card: str = "tiny",
        queue: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.root = root
        self.share = root / "share"
        self.share.mkdir(parents=True)
        folders = {
            name: {
                "path": f"share://studio/hot/{name}",
                "output": f"share://studio/out/{name}",
                "where": "fleet",
                **own,
            }
            for name, own in (folders or {"in": {}}).items()
        }
        self.watcher = DaemonRig(
            root,
            folders=folders,
            card=card,
            shares={"studio": str(self.share)},
            queue={"url": url, **QUICK_QUEUE, **(queue or {})},
            **settings,
        )
        self.nodes: dict[str, NodeRig] = {}

    def hot(self, name: str = "in") -> Path:
        return self.share / "hot" / name

    def out(self, name: str = "in") -> Path:
        return self.share / "out" / name

    @property
    def state(self) -> Path:
        return self.share / ".hotmatte-fleet"

    def start(self) -> None:
        self.watcher.start()

    def node(self, name: str, *, ready: bool = True, prefix: Sequence[str] = ()) -> NodeRig:
        """Start a node; with `ready`, wait until the watcher counts it among the living."""
        node = self.nodes[name] = NodeRig(self, name, prefix=prefix)
        if ready:
            self.wait_ready(node)
        return node

    def wait_ready(self, node: NodeRig) -> None:
        """Until a node works and the watcher counts it among the living."""
        self.watcher.wait(
            lambda: (node.is_ready() and self.is_seen(node.name)) or not node.is_alive(), timeout=READY_S
        )
        assert node.is_alive(), node.log()[-4000:]

    def fleet(self) -> dict[str, Any]:
        return next(iter(self.watcher.status().get("fleet", [])), {"nodes": []})

    def seen(self) -> dict[str, dict[str, Any]]:
        return {node["node"]: node for node in self.fleet()["nodes"]}

    def is_seen(self, name: str) -> bool:
        return self.seen().get(name, {}).get("state") == "working"

    def hold(self, name: str) -> int:
        """How many jobs a node has begun and not ended, by the folders of its attempts."""
        with contextlib.suppress(FileNotFoundError):  # a job that ended this very moment
            attempts = list(self.state.glob(f"stage/*/*/*-{name}-*"))
            return sum(1 for attempt in attempts if not list(attempt.glob("[!.]*.matte.json")))
        return 0

    def close(self) -> None:
        for node in self.nodes.values():
            if node.is_alive():
                node.kill()
        self.watcher.close()
