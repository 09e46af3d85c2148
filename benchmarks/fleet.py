"""How a fleet scales: nodes on this machine with an engine of a fixed speed, and what the detour costs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
import yaml

from benchmarks.service import CARDS
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import children, cpu_seconds

NODES = (1, 2, 4)
SPEED = 5.0  # photos a second of one node with benchfleet
READY_S, STALLED_S = 120.0, 120.0
URL = "HOTMATTE_BENCH_QUEUE"


def run(setting: Setting) -> list[Table]:
    if URL not in os.environ and shutil.which("redis-server") is None:
        return [Table("Fleet: not measured", ("why",), ((f"no redis-server, and no broker in ${URL}",),))]
    return [_scaling(setting), _detour(setting)]


def _scaling(setting: Setting) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for nodes in NODES:
        count = setting.count(75, quick=10) * nodes
        with setting.folder("fleet") as folder, _broker(folder) as url:
            seconds, _ = _measure(folder, url, nodes, count, model="benchfleet")
        rate = count / seconds
        rows.append((nodes, count, rate, 100 * rate / (nodes * SPEED)))
    notes = (
        f"Each node's engine does {SPEED:g} photos a second, whatever the machine: efficiency is the share of that.",
        "Watcher, broker and all nodes share this machine; photos of 16 x 16 pixels, so that it is not what limits.",
        "From the first photo's arrival to the last one's result; photos lie ready at the start.",
    )
    return Table(
        "A fleet of nodes", ("nodes", "photos", "photos a second", "efficiency, %"), tuple(rows), notes
    )


def _detour(setting: Setting) -> Table:
    """Photos that cost nothing, so that only the way is measured."""
    count = setting.count(600, quick=30)
    rows: list[tuple[Cell, ...]] = []
    for words, nodes in (("one machine", 0), ("watcher and one node", 1), ("watcher and two nodes", 2)):
        with setting.folder("fleet") as folder, _broker(folder) as url:
            seconds, cpu = _measure(folder, url, nodes, count, model="benchtiny")
        rows.append((words, count / seconds, 1000 * cpu[0] / count, 1000 * cpu[1] / count))
    columns = ("", "photos a second", "watcher, CPU ms a photo", "nodes, CPU ms a photo")
    return Table(
        "What the detour costs", columns, tuple(rows), ("As above, with an engine that takes no time.",)
    )


def _measure(
    folder: Path, url: str, nodes: int, count: int, *, model: str
) -> tuple[float, tuple[float, float]]:
    """Seconds from start to end, and CPU seconds of (watcher, nodes)."""
    config = _configure(folder, url, model=model, where="fleet" if nodes else "here")
    hot, out = folder / "share" / "hot", folder / "share" / "out"
    with ExitStack() as stack:
        watcher = stack.enter_context(_process(config, "run", "--no-progress"))
        _wait(lambda: _status(folder).get("ready"))
        there = [stack.enter_context(_process(config, "node", "--name", f"n{n}")) for n in range(nodes)]
        _wait(lambda: _working(folder) == nodes)
        _drop(hot.with_name("aside"), count)
        before = _cpu(watcher), sum(map(_cpu, there))
        began = time.monotonic()
        for path in (hot.with_name("aside")).iterdir():
            path.rename(hot / path.name)
        _wait(lambda: len(list(out.glob("*.matte.json"))) >= count)
        seconds = time.monotonic() - began
        return seconds, (_cpu(watcher) - before[0], sum(map(_cpu, there)) - before[1])


def _configure(folder: Path, url: str, *, model: str, where: str) -> Path:
    share = folder / "share"
    (share / "hot").mkdir(parents=True)
    hot = {"path": "share://studio/hot", "output": "share://studio/out", "where": where, "quiet_s": 0.1}
    settings = {
        "state_dir": "state",
        "folders": {"hot": hot},
        "profiles": {"portrait": {"model": model, "device": "cpu"}},
        "models": {"cards": str(CARDS)},
        "shares": {"studio": str(share)},
        "queue": {"url": url},
        "log": {"format": "text", "level": "warning"},
    }
    path = folder / "hotmatte.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def _drop(folder: Path, count: int) -> None:
    folder.mkdir()
    chance = np.random.default_rng(1)
    for number in range(count):
        pixels = chance.integers(0, 255, (16, 16, 3), np.uint8)
        (folder / f"{number:05d}.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


@contextmanager
def _process(config: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "watcher", *words, "--config", str(config)]
    with (
        (config.parent / "log.txt").open("ab") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as child,
    ):
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    """The one of the environment, or a Redis of our own."""
    if url := os.environ.get(URL):
        yield url
        return
    port = 20_000 + os.getpid() % 20_000
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        try:
            time.sleep(0.5)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def _cpu(process: subprocess.Popen[bytes]) -> float:
    return cpu_seconds(process.pid) + sum(map(cpu_seconds, children(process.pid)))


def _status(folder: Path) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads((folder / "state" / "status.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _working(folder: Path) -> int:
    fleets = _status(folder).get("fleet") or [{"nodes": []}]
    return sum(node["state"] == "working" for node in fleets[0]["nodes"])  # type: ignore[index]


def _wait(condition: object) -> None:
    deadline = time.monotonic() + max(READY_S, STALLED_S)
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise RuntimeError("the fleet stalled")
        time.sleep(0.02)
