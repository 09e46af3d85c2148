"""Which engine computes a model here: cards may name another for CPUs. Imports no framework."""

from __future__ import annotations

from pathlib import Path

from watcher.engine.card import Card

# What drivers of NVIDIA put there, on Linux and on Windows's Linux.
GPUS = Path("/dev/nvidiactl"), Path("/dev/nvidia0"), Path("/dev/dxg")


def engine_for(card: Card, device: str) -> str:
    """The name of the engine where `device` (cpu, cuda:0, auto) is asked for."""
    return card.engine_on(device, gpu=any(path.exists() for path in GPUS))
