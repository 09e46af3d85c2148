"""Inference itself, and what it costs that it happens in another process."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.service import CARDS, FAKE, REAL
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import cpu_seconds, huge_mb, resident_mb, scheduled
from watcher.engine import weights
from watcher.engine.card import Card, card_folders, load_card
from watcher.engine.choice import engine_for
from watcher.engine.client import EngineClient
from watcher.engine.launch import prepare
from watcher.worker import engine_fake

# (height, width) of the proxy of a 1920x1080 photo.
FULL_HD_PROXY = 512, 896
# Those of the looks at a photo of 3:2 that is in doubt.
LOOKS = (512, 768), (768, 1152), (384, 576)
SIZES = ((64, 64), (256, 256), (512, 512), FULL_HD_PROXY, (1024, 1024), (2048, 2048))
TIMEOUT_S = 120.0

Proxy = NDArray[np.uint8]


def run(setting: Setting) -> list[Table]:
    return [_inference(setting), _huge_pages(setting), _round_trips(setting)]


def _inference(setting: Setting) -> Table:
    """Every way in turn, so that whatever else the machine does meets them all alike."""
    times = setting.count(20, quick=2)
    proxy = _proxy(setting.photos[0], FULL_HD_PROXY)
    cores = len(os.sched_getaffinity(0))
    ways = [_Way(card, threads, workers) for card in _cards() for threads, workers in _shares(cores)]
    try:
        for number in range(times + 1):
            for way in ways:
                way.infer(proxy, counts=number > 0)
        least = min(statistics.median(way.cpus) for way in ways)
        rows = [way.row(least) for way in ways]
    finally:
        for way in ways:
            way.close()
    columns = (
        "model",
        "runtime",
        "workers x threads",
        "CPU ms an image",
        "to the least",
        "wall ms an image",
        "wall, least ms",
        "memory of the workers, MB",
    )
    notes = (
        f"One proxy of 896x512, {times} times each, in turn, on {cores} cores; the round trip is in it. Medians.",
        "Several workers infer at one time; the wall time is that of all, through their number.",
    )
    return Table("MODNet's inference on the CPU", columns, tuple(rows), notes)


def _cards() -> list[Card]:
    """MODNet by the engine of its card for CPUs, by that for GPUs, and by others that are installed."""
    real = load_card(REAL, card_folders(None))
    others = ["modnet-openvino", "modnet-bf16"] if find_spec("openvino") else []
    by_onnx_runtime = real.model_copy(update={"engine_cpu": None})
    return [real, by_onnx_runtime, *(load_card(name, card_folders(None)) for name in others)]


def _shares(cores: int) -> list[tuple[int, int]]:
    """Threads and workers: one core, all by one, all by as many."""
    return [(1, 1), (cores, 1), (1, cores)] if cores > 1 else [(1, 1)]


class _Way:
    """One way to use the cores: so many workers of so many threads."""

    def __init__(self, card: Card, threads: int, workers: int) -> None:
        self._card = card
        self._threads = threads
        self._clients = [_client(card, threads=threads) for _ in range(workers)]
        self._pool = ThreadPoolExecutor(workers)
        self.cpus: list[float] = []
        self._walls: list[float] = []

    def infer(self, proxy: Proxy, *, counts: bool) -> None:
        workers = len(self._clients)
        cpu, began = self._cpu(), time.perf_counter()
        list(self._pool.map(lambda client: _timed(client, proxy), self._clients))
        if counts:
            self._walls.append(1000 * (time.perf_counter() - began) / workers)
            self.cpus.append(1000 * (self._cpu() - cpu) / workers)

    def row(self, least: float) -> tuple[Cell, ...]:
        cpu = statistics.median(self.cpus)
        return (
            self._card.name,
            engine_for(self._card, "cpu"),
            f"{len(self._clients)} x {self._threads}",
            cpu,
            cpu / least,
            statistics.median(self._walls),
            min(self._walls),
            sum(resident_mb(client.pid) for client in self._clients),
        )

    def close(self) -> None:
        self._pool.shutdown()
        for client in self._clients:
            client.close()

    def _cpu(self) -> float:
        return sum(cpu_seconds(client.pid) for client in self._clients)


def _huge_pages(setting: Setting) -> Table:
    """Two workers in turn, one of which asks for them; with looks of one size nothing would be seen."""
    times = setting.count(30, quick=2)
    card = load_card(REAL, card_folders(None))
    looks = [_proxy(setting.photos[0], size) for size in LOOKS]
    clients = {
        name: _client(card, threads=1, env={"GLIBC_TUNABLES": f"glibc.malloc.hugetlb={asks}"})
        for name, asks in (("asked for", 1), ("not asked for", 0))
    }
    cpus: dict[str, list[float]] = {name: [] for name in clients}
    try:
        for number in range(times + 1):
            for name, client in clients.items():
                before, _ = scheduled(client.pid)
                for look in looks:
                    client.infer([look], timeout=TIMEOUT_S)
                if number:
                    cpus[name].append(1000 * (scheduled(client.pid)[0] - before))
        memory = {name: (resident_mb(client.pid), huge_mb(client.pid)) for name, client in clients.items()}
    finally:
        for client in clients.values():
            client.close()
    least = min(map(statistics.mean, cpus.values()))
    rows = tuple(
        (name, statistics.mean(took), statistics.mean(took) / least, statistics.median(took), *memory[name])
        for name, took in cpus.items()
    )
    columns = (
        "huge pages",
        "CPU ms for three looks",
        "to the least",
        "median",
        "memory of the worker, MB",
        "of it huge",
    )
    notes = (
        (
            f"{card.name} by {engine_for(card, 'cpu')}, one thread, looks of {', '.join(f'{w}x{h}' for h, w in LOOKS)},"
            f" {times} times each, in turn."
        ),
        "Transparent huge pages for who asks (`madvise`), by the C library; where the kernel has `always` or `never`, both are alike.",
    )
    return Table("Huge pages for a worker", columns, rows, notes)


def _round_trips(setting: Setting) -> Table:
    """The fake engine through a worker, less the same engine called directly."""
    times = setting.count(200, quick=10)
    card = load_card(FAKE, card_folders(CARDS))
    direct = engine_fake.load("", "cpu", {})  # type: ignore[no-untyped-call]
    client = _client(card, threads=1)
    rows: list[tuple[Cell, ...]] = []
    try:
        for height, width in SIZES:
            proxy = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
            client.infer([proxy], timeout=TIMEOUT_S)
            walls = [_timed(client, proxy) for _ in range(times)]
            alone = []
            for _ in range(times):
                began = time.perf_counter()
                direct.infer([proxy])
                alone.append(1000 * (time.perf_counter() - began))
            trip, engine = statistics.median(walls), statistics.median(alone)
            rows.append((f"{width}x{height}", trip, engine, trip - engine))
    finally:
        client.close()
    columns = ("proxy", "round trip, ms", "the engine alone, ms", "overhead, ms")
    notes = (
        f"Medians of {times}. The overhead is two messages, pixels into shared memory, alpha checked and out again.",
    )
    return Table("Round trip to the worker", columns, tuple(rows), notes)


def _client(card: Card, *, threads: int, env: Mapping[str, str] | None = None) -> EngineClient:
    path = weights.ensure(card, weights.cache_folder(None))
    launch = prepare(card, path, device="cpu", threads=threads)
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes, env=env)
    client.boot(launch.hello, timeout=launch.boot_timeout)
    return client


def _timed(client: EngineClient, proxy: Proxy) -> float:
    began = time.perf_counter()
    client.infer([proxy], timeout=TIMEOUT_S)
    return 1000 * (time.perf_counter() - began)


def _proxy(photo: Path, size: tuple[int, int]) -> Proxy:
    with Image.open(photo) as image:
        pixels = np.array(image.convert("RGB"))
    return np.ascontiguousarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
