"""BSHM's three runtimes over the signature graph, each as a card and the weights it runs on."""

from __future__ import annotations

import functools
import hashlib
import shutil
from pathlib import Path

from bshm import environments
from watcher.engine import weights
from watcher.engine.card import Card, card_folders, load_card
from watcher.engine.convert import convert
from watcher.engine.converter import TENSORFLOW

RUNTIMES = ("bshm-tf1", "bshm-tf2", "bshm-onnx")
GRAPH = Path(__file__).parents[1] / "data" / "bshm_signature.pb"


def card_and_weights(runtime: str) -> tuple[Card, Path]:
    """The shipped card, its interpreter replaced by one that is here, and the signature graph."""
    if runtime == "bshm-onnx":
        return shipped("bshm-onnx"), converted()
    make = environments.tensorflow1 if runtime == "bshm-tf1" else environments.tensorflow2
    return shipped("bshm").model_copy(update={"python": environments.demand(make)}), GRAPH


def shipped(name: str) -> Card:
    return load_card(name, card_folders(None))


def with_graph(cache: Path) -> Path:
    """`cache` as someone leaves it who put the graph there by hand."""
    place = weights.place(shipped("bshm"), cache)
    assert place is not None
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(GRAPH, place)
    return cache


@functools.cache
def converted() -> Path:
    """The signature graph as ONNX, by the real conversion; kept as long as graph and converter last."""
    python = environments.demand(environments.tensorflow2)
    recipe = hashlib.sha256(GRAPH.read_bytes() + "\n".join(TENSORFLOW.pins).encode()).hexdigest()[:8]
    cache, target = environments.CACHE / f"signature-{recipe}", shipped("bshm-onnx")
    if weights.state(target, cache) is not weights.State.OK:
        convert(shipped("bshm"), target, with_graph(cache), python=python, sizes=((33, 31),), say=print)
    made = weights.ensure(target, cache, offline=True)
    assert made is not None
    return made
