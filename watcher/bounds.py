"""How much goes on at one time, where the settings leave it open."""

from __future__ import annotations

import os

from watcher.config import Settings
from watcher.engine.card import Card
from watcher.engine.crew import Crew


def in_flight(card: Card, supervisor: Crew, settings: Settings) -> int:
    """How many photos there may be between decoding and publishing at one time.

    Unless it is set: as many as keep every thread at work while each worker has a batch in hand and
    the next one waits, and two that wait for the disk.
    """
    chosen = settings.limits.max_in_flight
    return chosen or stage_threads(settings) + 2 * batch_of(card, supervisor) * supervisor.most + 2


def batch_of(card: Card, supervisor: Crew) -> int:
    on_cpu = supervisor.about is None or supervisor.about.device == "cpu"
    return card.max_batch_cpu if on_cpu else card.max_batch


def stage_threads(settings: Settings) -> int:
    return settings.limits.threads or len(os.sched_getaffinity(0))
