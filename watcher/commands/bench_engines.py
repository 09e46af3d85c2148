"""What `hotmatte bench` measures: each model on each device, in the worker that the daemon would use."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from watcher.commands.bench_memory import gpu_mb_in_use, gpu_mb_of, host_peak_mb
from watcher.commands.bench_photos import decoded
from watcher.config import Profile
from watcher.engine import weights
from watcher.engine.card import Card
from watcher.engine.client import EngineClient
from watcher.engine.launch import Launch, prepare
from watcher.engine.weights import State
from watcher.errors import EngineUnavailable, WatcherError
from watcher.pipeline.encode import encode
from watcher.pipeline.refine import refine

# Those that compute on a GPU as well as on a CPU. Any other is left to choose.
ON_BOTH = ("onnx", "bshm")
# At the size that is measured: the first runs choose algorithms and take memory.
WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Effort:
    """At most so many measured runs, none begun after so many seconds; but always one."""

    runs: int = 20
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on one device, with one photo. Sizes are (width, height); times milliseconds.

    `median_ms`, `p95_ms`: inference of one proxy, the way into the worker and back in it, of `runs` runs.
    `end_to_end_ms`: read, decode, infer, refine, encode, once; nothing is published.
    `start_ms`: from no worker to a warm one. `host_mb`: the worker's peak. `gpu_mb`: what it held on GPUs
    after the last run; frameworks keep what they took. `gpu_shared` where that is the rise in what all
    processes hold, as the driver did not know this one.
    """

    model: str
    framework: str
    device: str
    photo: tuple[int, int]
    proxy: tuple[int, int]
    runs: int
    median_ms: float
    p95_ms: float
    end_to_end_ms: float
    start_ms: float
    host_mb: float | None
    gpu_mb: float | None
    gpu_shared: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """What was not measured, why, and what to do. `device` None: on none."""

    model: str
    device: str | None
    reason: str
    remedy: str


def devices_of(card: Card, asked: str | None) -> tuple[str, ...]:
    """What to measure `card` on: what was asked for, or else every kind there is."""
    if asked is not None:
        return (asked,)
    return ("cpu", "cuda") if card.engine in ON_BOTH else ("auto",)


def obstacles(card: Card, cache: Path) -> Iterator[Missing]:
    """What `card` lacks on whatever device. Looks only: fetches nothing, records nothing."""
    if shutil.which(card.interpreter) is None:
        words = f"its interpreter {card.interpreter} is not there"
        yield Missing(card.name, None, words, "Install it, or correct `python` in the model card.")
    match weights.state(card, cache):
        case State.OK | State.NOT_NEEDED:
            return
        case State.UNRECORDED:
            words = "the sha256 of its weights is not on record yet"
            yield Missing(card.name, None, words, f"Run `hotmatte models pull {card.name}`.")
        case state:
            words = f"its weights are {state.value.lower()}"
            yield Missing(card.name, None, words, _how_to_fetch(card, cache))


def _how_to_fetch(card: Card, cache: Path) -> str:
    try:
        weights.ensure(card, cache, offline=True)
    except EngineUnavailable as error:
        return error.remedy
    return "Nothing: they have come meanwhile. Measure again."


def measure(
    card: Card, device: str, photos: Sequence[Path], *, cache: Path, effort: Effort, gpus: Sequence[str]
) -> Iterator[Measured | Missing]:
    """Each photo in a worker of its own, so that peaks of memory are its own; ends with the first failure.

    `gpus`: the names of those there are.
    """
    if device.startswith("cuda") and not gpus:
        remedy = "See whether `nvidia-smi` finds one."
        yield Missing(card.name, device, "no NVIDIA GPU was found", remedy)
        return
    try:
        launch = prepare(card, weights.ensure(card, cache, offline=True), device=device)
        for photo in photos:
            yield _measured(card, launch, photo, effort)
    except WatcherError as error:
        yield Missing(card.name, device, str(error), error.remedy)


def _measured(card: Card, launch: Launch, photo: Path, effort: Effort) -> Measured:
    before, began = gpu_mb_in_use(), time.perf_counter()
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes)
    try:
        about = launch.about(client.boot(launch.hello, timeout=launch.boot_timeout))
        start = time.perf_counter() - began
        frame = decoded(photo, card)
        walls = _walls(client, frame.proxy, effort, timeout=card.timeout_s)
        whole = _end_to_end(client, photo, card)
        gpu, shared = _on_gpu(client.pid, before) if about.device.startswith("cuda") else (None, False)
        return Measured(
            model=card.name,
            framework=about.framework,
            device=about.device,
            photo=(frame.width, frame.height),
            proxy=(frame.proxy.shape[1], frame.proxy.shape[0]),
            runs=len(walls),
            median_ms=_ms(statistics.median(walls)),
            p95_ms=_ms(percentile(walls, 0.95)),
            end_to_end_ms=_ms(whole),
            start_ms=_ms(start),
            host_mb=_rounded(host_peak_mb(client.pid)),
            gpu_mb=_rounded(gpu),
            gpu_shared=shared,
        )
    finally:
        client.close()


def _walls(client: EngineClient, proxy: NDArray[np.uint8], effort: Effort, *, timeout: float) -> list[float]:
    """Seconds of each run that counts. A very slow engine gets one run to warm up and one that counts."""
    deadline = time.perf_counter() + effort.seconds
    for run in range(WARM_UP):
        if run == 0 or time.perf_counter() < deadline:
            client.infer([proxy], timeout=timeout)
    walls: list[float] = []
    while len(walls) < effort.runs and (not walls or time.perf_counter() < deadline):
        began = time.perf_counter()
        client.infer([proxy], timeout=timeout)
        walls.append(time.perf_counter() - began)
    return walls


def _end_to_end(client: EngineClient, photo: Path, card: Card) -> float:
    """Seconds from the file to the contents of the default results, in a row in one thread."""
    profile, began = Profile(), time.perf_counter()
    frame = decoded(photo, card)
    (alpha,) = client.infer([frame.proxy], timeout=card.timeout_s)
    refined = refine(
        frame, alpha, method=profile.refine, side=profile.refine_side, decontaminate=profile.decontaminate
    )
    for output in profile.outputs:
        encode(output, refined, frame)
    return time.perf_counter() - began


def _on_gpu(pid: int, before: float | None) -> tuple[float | None, bool]:
    """What the worker holds, and whether others may be in it. `before`: what all held without it."""
    own = gpu_mb_of(pid)
    if own is not None:
        return own, False
    now = gpu_mb_in_use()
    return (None, False) if now is None or before is None else (max(0.0, now - before), True)


def percentile(values: Sequence[float], share: float) -> float:
    """The least of `values` that `share` (0..1) of them do not exceed: the nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


def _rounded(megabytes: float | None) -> float | None:
    return None if megabytes is None else round(megabytes, 1)
