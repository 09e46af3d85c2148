"""What is remembered about weights whose sha256 no card could know: a small JSON beside the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from watcher.config import Strict
from watcher.errors import EngineUnavailable

Digest = str


class Origin(Strict):
    """The weights that others were converted from."""

    model: str
    file: str
    sha256: Digest = Field(pattern=r"^[0-9a-f]{64}$")


class Parity(Strict):
    """How far two runtimes were apart, or two precisions: in steps of an 8-bit alpha, sizes as [width, height].

    `largest` of any pixel; `mean` of the worst picture, where that counts.
    """

    sizes: tuple[tuple[int, int], ...]
    largest: int
    mean: float | None = None


class Provenance(Strict):
    """Where a file came from and what it was; `size` in bytes."""

    version: Literal[1] = 1
    sha256: Digest = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    source: str
    converted_from: Origin | None = None
    converter: dict[str, str] | None = None
    parity: Parity | None = None


def place(weights: Path) -> Path:
    """Where the record of the file `weights` lies."""
    return weights.with_name(weights.name + ".json")


def read(weights: Path) -> Provenance | None:
    """The record beside `weights`; None where there is none. Raises EngineUnavailable if it is unreadable."""
    path = place(weights)
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        # Not to be mistaken for a missing one: the next file to come would be believed.
        raise EngineUnavailable(
            f"{path}: cannot be read: {error}",
            remedy=f"Correct or delete {path}; deleted, the file beside it is trusted as it is.",
        ) from error


def write(weights: Path, record: Provenance) -> None:
    """Write the record of `weights`, whole or not at all. Raises OSError."""
    path = place(weights)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(record.model_dump(mode="json", exclude_none=True), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
