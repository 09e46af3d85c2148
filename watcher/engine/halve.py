"""A model's ONNX graph made one in half precision, as a model of its own: converted, compared, put on record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from watcher.engine import converter, parity
from watcher.engine.card import Card, ConvertedSource, Weights
from watcher.engine.client import ISLAND
from watcher.engine.convert import install, places, recorded
from watcher.engine.converter import HALF, Say
from watcher.engine.provenance import Parity, Provenance
from watcher.errors import ConfigError, EngineError, EngineUnavailable

PROGRAM = ISLAND / "half_onnx.py"
SUFFIX = "-fp16"
STEPS = 255
# In steps of an 8-bit alpha, on average over a picture: as far off as rounding to 8 bits ever is.
ALLOWED_MEAN = 0.5

Pictures = Sequence[NDArray[np.uint8]]


def half_card(card: Card) -> Card:
    """The card of what `halve` makes of the model of `card`. Raises ConfigError where that is nothing."""
    if card.engine != "onnx" or card.weights is None:
        raise ConfigError(
            [f"{card.name!r} has no ONNX graph of its own to make half precision of"],
            remedy="Name a model whose engine is `onnx`.",
        )
    return card.model_copy(
        update={
            "name": f"{card.name}{SUFFIX}",
            "title": f"{card.title}, in half precision, for a GPU",
            "weights": Weights(
                file=card.weights.file, sources=(ConvertedSource(kind="converted", model=card.name),)
            ),
            "engine_cpu": None,
            # It was measured in single precision, and nobody wants this one on a CPU.
            "memory_mb": None,
        }
    )


def halve(
    card: Card,
    target: Card,
    cache: Path,
    pictures: Pictures,
    *,
    python: Path | None = None,
    offline: bool = False,
    say: Say,
) -> Provenance:
    """Make the weights of `target` from those of `card` and return their record.

    `pictures`: HxWx3 proxies, of sizes that the model takes, which the two are compared on. `python` has
    onnxruntime and onnx; without it an environment is made under `cache`. Raises EngineUnavailable, also
    where the two are further apart than ALLOWED_MEAN: then nothing is kept.
    """
    original, made = places(card, target, cache, offline=offline)
    python = python or converter.interpreter(cache, HALF, say=say)
    versions = converter.versions(python, HALF)
    part, twin = made.with_name(made.name + ".part"), made.with_name(made.name + ".rehearsal")
    say(f"converting {original}")
    try:
        command = [str(python), str(PROGRAM), str(original), str(part), str(twin)]
        converter.run(command, HALF, doing=f"convert {original}")
        say(f"comparing on {len(pictures)} pictures")
        measured = _compared(card, original, (part, twin), pictures)
        record = recorded(card, original, part, {**versions, "precision": "float16"}, measured)
        install(part, made, record)
    finally:
        part.unlink(missing_ok=True)
        twin.unlink(missing_ok=True)
    return record


def _compared(card: Card, original: Path, made: Sequence[Path], pictures: Pictures) -> Parity:
    """How far those `made` are from the original at worst. Raises EngineUnavailable where that is too far."""
    # An engine for CPUs may not know half precision, and what is compared is the graphs.
    card = card.model_copy(update={"engine_cpu": None})
    # One graph after the other: side by side they would need the memory of all.
    expected = list(parity.answers(card, original, pictures))
    largest = mean = 0.0
    for graph in made:
        try:
            apart = [
                np.abs(one - other) * STEPS
                for one, other in zip(expected, parity.answers(card, graph, pictures), strict=True)
            ]
        except EngineError as error:
            raise EngineUnavailable(
                f"in half precision the graph does not work: {error}; it was not kept", remedy=_REMEDY
            ) from error
        largest = max(largest, *(float(one.max()) for one in apart))
        mean = max(mean, *(float(one.mean()) for one in apart))
    if mean > ALLOWED_MEAN:
        raise EngineUnavailable(
            f"in half precision the alpha of a picture is {mean:.2f}/{STEPS} off on average "
            f"(allowed: {ALLOWED_MEAN}); it was not kept",
            remedy=_REMEDY,
        )
    sizes = tuple((one.shape[1], one.shape[0]) for one in pictures)
    return Parity(sizes=sizes, largest=math.ceil(largest), mean=round(mean, 4))


_REMEDY = "Use the model in single precision: some graphs need its range."
