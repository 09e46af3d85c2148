"""A stranger's ONNX file becomes a model card. Only a worker opens the file; here is what it said of it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from watcher.engine.arena import BYTES_A_PIXEL
from watcher.engine.card import Card, proxy_size
from watcher.engine.client import ISLAND, EngineClient
from watcher.engine.launch import prepare
from watcher.engine.parity import picture
from watcher.engine.weights import place, sha256_of
from watcher.errors import ConfigError, EngineError, EngineUnavailable, HostError

LOOK = ISLAND / "look_onnx.py"
# Seconds; a heavy graph takes one to load and some for each of the pictures it is shown.
PATIENCE = 300.0
# An alpha that leaves 0..1 by more than this lacks its sigmoid: rounding does not go so far.
_SLACK = 0.05
# More than this share of person in plain grey, and the model finds somebody everywhere.
_CROWDED = 0.5


@dataclass(frozen=True, slots=True)
class Findings:
    """What a worker saw: the graph's own words, see worker/look_onnx.py."""

    opset: int | None
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    image: Mapping[str, Any]
    states: Mapping[str, list[int]]
    downsample: Mapping[str, Any] | None
    alphas: list[dict[str, Any]]

    @property
    def size(self) -> list[int] | None:
        """[height, width] where the graph takes only one."""
        size: list[int] | None = self.image["size"]
        return size

    def alpha(self, name: str | None) -> Mapping[str, Any]:
        """The output called `name`; without one the likeliest: by its name, or else the first."""
        if name is None:
            named = [one for one in self.alphas if one["name"].lower() in ("alpha", "alphas", "pha", "matte")]
            return (named or self.alphas)[0]
        found = [one for one in self.alphas if one["name"] == name]
        if not found:
            known = ", ".join(one["name"] for one in self.alphas)
            raise ConfigError(
                [f"output {name!r} cannot be the alpha"],
                remedy=f"These can: {known}. Say which with --output.",
            )
        return found[0]


def look_at(
    path: Path, *, mean: tuple[float, ...], std: tuple[float, ...], timeout: float = PATIENCE
) -> Findings:
    """What the graph in `path` is like. Raises EngineUnavailable where it is no use to us, and why."""
    options = {"mean": list(mean), "std": list(std), "seconds": timeout}
    hello = {"model": str(path.absolute()), "device": "cpu", "options": options, "warmup": [8, 8]}
    client = EngineClient(sys.executable, LOOK, arena_bytes=8 * 8 * BYTES_A_PIXEL + 4096)
    try:
        said = client.boot(hello, timeout=timeout)["findings"]
    except EngineUnavailable as error:
        raise EngineUnavailable(f"{path} cannot be used: {error}", remedy=_remedy(path)) from error
    finally:
        client.close()
    if said["problem"]:
        raise EngineUnavailable(f"{path} cannot be used: {said['problem']}", remedy=_remedy(path))
    return Findings(**{name: said[name] for name in Findings.__slots__})


def _remedy(path: Path) -> str:
    beside = [one.name for one in path.parent.glob(f"{path.name}*") if one.name != path.name]
    if beside:
        return f"Its weights may lie beside it ({beside[0]}): save the graph with its weights in one file."
    return "Is it a whole ONNX file with one picture in and an alpha out? Export it again, or see docs/models.md."


def kind_of(alpha: Mapping[str, Any]) -> str:
    """`alpha`, or `logits` where its values show that the sigmoid is missing."""
    inside = alpha["lowest"] >= -_SLACK and alpha["highest"] <= 1 + _SLACK
    return "alpha" if inside else "logits"


def crowded(alpha: Mapping[str, Any]) -> bool:
    """Whether the model takes plain grey for somebody. Only known of one that has its sigmoid."""
    return kind_of(alpha) == "alpha" and alpha["plain"] > _CROWDED


def drafted(findings: Findings, answers: Mapping[str, Any], path: Path) -> Card:
    """The card of `path`. `answers`: name, title, licence (a mapping), mean, std, output, short_side.

    Raises ConfigError where that makes no card.
    """
    alpha, image = findings.alpha(answers.get("output")), findings.image
    sized: dict[str, Any] = {"size": findings.size} if findings.size else {"multiple": image["multiple"]}
    if not findings.size and answers.get("short_side"):
        sized["short_side"] = answers["short_side"]
    options: dict[str, Any] = {} if image["layout"] == "nchw" else {"layout": image["layout"]}
    options |= {"states": dict(findings.states)} if findings.states else {}
    options |= {"downsample": dict(findings.downsample)} if findings.downsample else {}
    try:
        return Card.model_validate(
            {
                "name": answers["name"],
                "title": answers["title"],
                "engine": "onnx",
                "weights": {
                    "file": "model.onnx",
                    "size": path.stat().st_size,
                    "sha256": sha256_of(path),
                    "sources": [{"kind": "file", "path": str(path.absolute())}],
                },
                "licence": answers["licence"],
                "input": {"name": image["name"], "mean": answers["mean"], "std": answers["std"], **sized},
                "output": {"name": alpha["name"], "kind": kind_of(alpha)},
                "timeout_s": PATIENCE,
                "boot_timeout_s": PATIENCE,
                "options": options,
            }
        )
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
        raise ConfigError(problems, remedy="Correct what you said of the model.") from error


def keep(card: Card, path: Path, cache: Path) -> Path:
    """A copy of the file in the cache, so that the original may go. Raises HostError."""
    target = place(card, cache)
    assert target is not None
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise HostError(f"cannot copy {path} to {target}: {error.strerror or error}") from error
    return target


def prove(card: Card, weights: Path) -> NDArray[np.float32]:
    """The alpha of a picture, by the engine as the daemon would run it. Raises EngineError."""
    launch = prepare(card, weights, device="cpu")
    width, height = proxy_size(1200, 900, card)
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes)
    try:
        client.boot(launch.hello, timeout=launch.boot_timeout)
        (alpha,) = client.infer([picture(width, height)], timeout=card.timeout_s)
    except EngineUnavailable:
        raise
    except EngineError as error:
        raise EngineUnavailable(f"the proof failed: {error}", remedy=_remedy(weights)) from error
    finally:
        client.close()
    return alpha


def save(card: Card, folder: Path, *, by: str = "hotmatte models add") -> Path:
    """Write the card, whole or not at all. Raises HostError."""
    path = folder / f"{card.name}.yaml"
    held = {**card.model_dump(mode="json", exclude_defaults=True), "engine": card.engine}
    text = f"# Written by `{by}`.\n{yaml.safe_dump(held, sort_keys=False, allow_unicode=True)}"
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror or error}") from error
    return path
