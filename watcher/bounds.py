"""How much goes on at one time, where the settings leave it open."""

from __future__ import annotations

from collections.abc import Callable

from watcher.config import Settings
from watcher.cores import cores
from watcher.engine.card import Card
from watcher.engine.crew import Crew
from watcher.memory import available_mb
from watcher.pipeline.budget import PixelBudget

# Megapixels for each thread: one photo in work. And for few threads what keeps them at work, two photos of 45 or
# five of 24: with one at a time a core waits while the other computes. Measured on two cores with 24 MP: with 90
# megapixels a flood took 2 to 7 % longer than with 120.
EACH_MP, LEAST_MP = 30.0, 120.0
# Fewer would leave a network between two photos without work.
LEAST_DELIVERERS = 4
# Threads wait for Python's lock, the more of them the longer; fewer than these do not wait long enough for processes to be
# worth their memory. What one of those takes besides its photo (1080p, two cores).
LEAST_RENDERERS, RENDERER_MB = 8, 185.0
# Bytes that a pixel in work takes at most (docs/benchmarks.md), and the share of what is free that photos may have.
BYTES_A_PIXEL, SHARE = 10.0, 0.25


def in_flight(card: Card, supervisor: Crew, settings: Settings) -> int:
    """How many photos there may be between decoding and publishing at one time.

    Unless it is set: as many as keep every thread at work, those that publish among them, while each worker has a
    batch in hand and the next one waits.
    """
    chosen = settings.limits.max_in_flight
    at_work = stage_threads(settings) + deliverers(settings)
    return chosen or at_work + 2 * batch_of(card, supervisor) * supervisor.most


def pixel_budget(settings: Settings) -> PixelBudget:
    """What bounds the pixels between decoding and publishing."""
    return PixelBudget(pixels_in_flight(settings))


def pixels_in_flight(settings: Settings, *, available: Callable[[], float | None] = available_mb) -> int:
    """How many pixels there may be between decoding and publishing at one time.

    Unless it is set: as many as keep every thread at work, and take no more than a quarter of the free memory.
    """
    chosen = settings.limits.max_in_flight_mp
    if not chosen:
        chosen, free = EACH_MP * stage_threads(settings), available()
        if free is not None:
            chosen = min(chosen, SHARE * free / BYTES_A_PIXEL)
        chosen = max(chosen, LEAST_MP)
    return int(chosen * 1e6)


def batch_of(card: Card, supervisor: Crew) -> int:
    on_cpu = supervisor.about is None or supervisor.about.device == "cpu"
    return card.max_batch_cpu if on_cpu else card.max_batch


def stage_threads(settings: Settings) -> int:
    return settings.limits.threads or cores()


def renderers(
    settings: Settings, supervisor: Crew, *, available: Callable[[], float | None] = available_mb
) -> int:
    """How many processes may render; 0: threads of the daemon do.

    Unless it is set: one for each thread where a GPU leaves many cores to rendering, and there is memory for so many.
    """
    chosen, threads = settings.limits.rendering, stage_threads(settings)
    if chosen == "threads":
        return 0
    if chosen == "processes":
        return threads
    if supervisor.about is None or supervisor.about.device == "cpu" or threads < LEAST_RENDERERS:
        return 0
    free = available()
    return threads if free is None or free >= 2 * threads * RENDERER_MB else 0


def deliverers(settings: Settings) -> int:
    """Threads that publish, of each hot folder: they wait for a disk or a share, where several at once are done sooner."""
    return max(LEAST_DELIVERERS, stage_threads(settings))
