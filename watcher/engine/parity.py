"""Whether two runtimes give the same alpha: pictures of many sizes through both, in real workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from watcher.engine.arena import BYTES_A_PIXEL
from watcher.engine.card import Card
from watcher.engine.client import EngineClient
from watcher.engine.launch import prepare

Sizes = tuple[tuple[int, int], ...]

# (width, height): the smallest there is, odd ones, upright and lying, up to what the model is advised for.
SIZES: Sizes = ((1, 1), (31, 33), (320, 240), (641, 479), (480, 853), (1920, 1080))
# Levels of the 8-bit alpha that BSHM gives; its opaque is 254.
LEVELS = 254


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """HxWx3: smooth waves under a little noise, so that every channel, level and edge occurs."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(x / slow + turn) + np.cos(y / (slow * 0.7) - turn) for slow, turn in _WAVES]
    noise = np.random.default_rng(width * 65_537 + height).normal(0, 6, (height, width, 3))
    return np.clip(127 + 60 * np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8)


_WAVES = ((97.0, 0.0), (61.0, 1.0), (143.0, 2.0))


def alphas(card: Card, weights: Path, sizes: Iterable[tuple[int, int]]) -> Iterator[NDArray[np.uint8]]:
    """The alpha of a picture of each size in levels, by a worker of `card` on the CPU. Raises EngineError."""
    for alpha in answers(card, weights, [picture(width, height) for width, height in sizes]):
        yield np.rint(alpha * LEVELS).astype(np.uint8)


def answers(
    card: Card, weights: Path, pictures: Sequence[NDArray[np.uint8]]
) -> Iterator[NDArray[np.float32]]:
    """The alpha of each picture (HxWx3), by a worker of `card` on the CPU. Raises EngineError."""
    launch = prepare(card, weights, device="cpu")
    room = max(one.shape[0] * one.shape[1] for one in pictures) * BYTES_A_PIXEL + 4096
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=room)
    try:
        client.boot(launch.hello, timeout=launch.boot_timeout)
        for one in pictures:
            yield client.infer([one], timeout=card.timeout_s)[0]
    finally:
        client.close()


def steps_apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """The largest difference in levels. Both are of one size."""
    return int(np.abs(one.astype(np.int16) - other.astype(np.int16)).max())
