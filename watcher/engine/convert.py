"""BSHM's frozen graph made into ONNX: converted, compared with the original, and put on record."""

from __future__ import annotations

import os
from pathlib import Path

from watcher.engine import converter, parity, provenance, weights
from watcher.engine.card import Card, ConvertedSource
from watcher.engine.converter import TENSORFLOW, Say
from watcher.engine.provenance import Origin, Parity, Provenance
from watcher.errors import ConfigError, EngineUnavailable

OPSET = 17
INPUT, OUTPUT = "input_image:0", "output_png:0"
# Both runtimes truncate to eight bits: one that rounds the other way shows as one step, and no more.
ALLOWED_STEPS = 1


def target_of(card: Card, cards: list[Card]) -> Card:
    """The card whose weights are converted from those of `card`. Raises ConfigError."""
    found = next((other for other in cards if origin_of(other) == card.name), None)
    if found is None:
        raise ConfigError([f"no model card has weights converted from {card.name!r}"])
    return found


def origin_of(card: Card) -> str | None:
    """The model whose weights those of `card` are converted from; None where they are not."""
    sources = card.weights.sources if card.weights else ()
    return next((source.model for source in sources if isinstance(source, ConvertedSource)), None)


def convert(
    card: Card,
    target: Card,
    cache: Path,
    *,
    python: Path | None = None,
    sizes: parity.Sizes = parity.SIZES,
    offline: bool = False,
    say: Say,
) -> Provenance:
    """Make the weights of `target` from those of `card` and return their record.

    `python` has TensorFlow 2, tf2onnx and onnx; without it an environment is made under `cache`.
    Raises EngineUnavailable, also where the two graphs are more than a step apart: then nothing is kept.
    """
    original, made = places(card, target, cache, offline=offline)
    python = python or converter.interpreter(cache, TENSORFLOW, say=say)
    versions = converter.versions(python, TENSORFLOW)
    part = made.with_name(made.name + ".part")
    say(f"converting {original}")
    try:
        _to_onnx(original, part, python)
        say(f"comparing at {len(sizes)} sizes, up to {max(sizes)[0]} x {max(sizes)[1]}")
        largest = _compare(card.model_copy(update={"python": python}), original, target, part, sizes)
        made_by = {**versions, "opset": str(OPSET)}
        record = recorded(card, original, part, made_by, Parity(sizes=sizes, largest=largest))
        install(part, made, record)
    finally:
        part.unlink(missing_ok=True)
    return record


def places(card: Card, target: Card, cache: Path, *, offline: bool) -> tuple[Path, Path]:
    """Where the weights of `card` are, fetched if need be, and where those of `target` go. Raises ConfigError."""
    original, made = weights.ensure(card, cache, offline=offline), weights.place(target, cache)
    if original is None or made is None:
        raise ConfigError([f"{card.name!r} or {target.name!r} has no weights"])
    made.parent.mkdir(parents=True, exist_ok=True)
    return original, made


def recorded(card: Card, original: Path, part: Path, made_by: dict[str, str], measured: Parity) -> Provenance:
    """What is to be known of `part`, which was made from `original`, the weights of `card`."""
    assert card.weights is not None
    return Provenance(
        sha256=weights.sha256_of(part),
        size=part.stat().st_size,
        source=f"converted from {card.name}",
        converted_from=Origin(model=card.name, file=card.weights.file, sha256=weights.sha256_of(original)),
        converter=made_by,
        parity=measured,
    )


def _to_onnx(graph: Path, onnx: Path, python: Path) -> None:
    names = ["--inputs", INPUT, "--outputs", OUTPUT, "--opset", str(OPSET)]
    command = [str(python), "-m", "tf2onnx.convert", "--graphdef", str(graph), *names, "--output", str(onnx)]
    converter.run(command, TENSORFLOW, doing=f"convert {graph}")


def _compare(card: Card, original: Path, target: Card, onnx: Path, sizes: parity.Sizes) -> int:
    """The largest difference in steps. Raises EngineUnavailable where it is more than allowed."""
    largest = 0
    # One runtime after the other: side by side they would need the memory of both.
    expected = list(parity.alphas(card, original, sizes))
    for (width, height), one, other in zip(sizes, expected, parity.alphas(target, onnx, sizes), strict=True):
        apart = parity.steps_apart(one, other)
        if apart > ALLOWED_STEPS:
            raise EngineUnavailable(
                f"the converted graph is {apart} of {parity.LEVELS} steps off at {width} x {height}; "
                "it was not kept",
                remedy="Use TensorFlow for this model, and report the versions of the converter.",
            )
        largest = max(largest, apart)
    return largest


def install(part: Path, made: Path, record: Provenance) -> None:
    """Keep what was made. Durable, then named. Died in between, the file is not the recorded one, and is refused."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    provenance.write(made, record)
    part.replace(made)
