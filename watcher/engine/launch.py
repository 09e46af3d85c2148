"""A model card with its weights at hand, as what a worker is started with. Pure but for looks at files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from watcher.cores import cores
from watcher.domain import EngineAbout
from watcher.engine.arena import BYTES_A_PIXEL
from watcher.engine.card import Card, bounds_of, engine_file
from watcher.engine.choice import engine_for
from watcher.engine.weights import sha256_of


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one worker. `boot_timeout` in seconds, `hello` as engines expect it."""

    model: str
    engine: str
    engine_file: Path
    python: str
    hello: Mapping[str, Any]
    arena_bytes: int
    boot_timeout: float
    weights_sha256: str | None

    def with_threads(self, threads: int) -> Launch:
        """The same with so many threads; 0: one for each core."""
        options = {**self.hello["options"], "threads": threads}
        return replace(self, hello={**self.hello, "options": options})

    def about(self, said: Mapping[str, Any]) -> EngineAbout:
        """Who computes, from what the engine says of itself."""
        return EngineAbout(
            model=self.model,
            engine=str(said.get("engine", self.engine)),
            framework=str(said.get("framework", "unknown")),
            device=str(said.get("device", "unknown")),
            weights_sha256=self.weights_sha256,
        )


def prepare(
    card: Card, weights: Path | None, *, device: str = "auto", threads: int = 0, warm: bool = True
) -> Launch:
    """`weights` as `weights.ensure` returned it; `threads` 0 means every core. Raises ConfigError.

    `warm`: ready means that it has computed once; not needed where another one just has.
    """
    sha256 = _sha256(card, weights)
    options = {
        "mean": list(card.input.mean),
        "std": list(card.input.std),
        "output": card.output.kind,
        "input_name": card.input.name,
        "output_name": card.output.name,
        "threads": threads or cores(),
        "latency_s": card.latency_s,
        "engine_cpu": card.engine_cpu,
        "weights_sha256": sha256,
        "sizes": {**bounds_of(card), "batch": max(card.max_batch, card.max_batch_cpu)},
        **card.options,
    }
    engine = engine_for(card, device)
    height, width = card.input.size or card.warmup
    batch = max(card.max_batch, card.max_batch_cpu)
    return Launch(
        model=card.name,
        engine=engine,
        engine_file=engine_file(engine),
        python=card.interpreter,
        hello={
            "model": str(weights or ""),
            "device": device,
            "options": options,
            "warmup": [height, width] if warm else None,
        },
        # A little more for the alignment of each part.
        arena_bytes=batch * (card.input.largest * BYTES_A_PIXEL + 128),
        boot_timeout=card.boot_timeout_s,
        weights_sha256=sha256,
    )


def _sha256(card: Card, weights: Path | None) -> str | None:
    """What the card says, or, where it cannot know, what lies there."""
    if card.weights is None or card.weights.sha256 is not None or weights is None:
        return card.weights.sha256 if card.weights else None
    return sha256_of(weights)
