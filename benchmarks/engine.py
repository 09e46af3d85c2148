"""Inference itself, and what it costs that it happens in another process."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.service import CARDS, FAKE, REAL
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import cpu_seconds
from watcher.engine import weights
from watcher.engine.card import Card, card_folders, load_card
from watcher.engine.client import EngineClient
from watcher.engine.launch import prepare
from watcher.worker import engine_fake

# (height, width) of the proxy of a 1920x1080 photo.
FULL_HD_PROXY = 512, 896
SIZES = ((64, 64), (256, 256), (512, 512), FULL_HD_PROXY, (1024, 1024), (2048, 2048))
TIMEOUT_S = 120.0

Proxy = NDArray[np.uint8]


def run(setting: Setting) -> list[Table]:
    return [_inference(setting), _round_trips(setting)]


def _inference(setting: Setting) -> Table:
    times = setting.count(20, quick=2)
    card = load_card(REAL, card_folders(None))
    proxy = _proxy(setting.photos[0], FULL_HD_PROXY)
    rows: list[tuple[Cell, ...]] = []
    for threads in (1, 2):
        client = _client(card, threads=threads)
        try:
            client.infer([proxy], timeout=TIMEOUT_S)
            cpu, walls = cpu_seconds(client.pid), []
            for _ in range(times):
                walls.append(_timed(client, proxy))
            used = 1000 * (cpu_seconds(client.pid) - cpu) / times
        finally:
            client.close()
        rows.append((threads, statistics.median(walls), min(walls), used))
    columns = ("threads", "wall, median ms", "wall, least ms", "worker CPU ms")
    cores = len(os.sched_getaffinity(0))
    notes = (f"MODNet fp32, one proxy of 896x512, {times} times, on {cores} cores; the round trip is in it.",)
    return Table("MODNet's inference", columns, tuple(rows), notes)


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


def _client(card: Card, *, threads: int) -> EngineClient:
    path = weights.ensure(card, weights.cache_folder(None))
    launch = prepare(card, path, device="cpu", threads=threads)
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes)
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
