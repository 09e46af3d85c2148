"""What all settings are made of. Knows no setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict


def _possible(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("no path can hold a NUL character")
    return path


def _given(path: Any) -> Any:
    # As a path it would be the configuration's own folder, such as from a variable that was never set.
    if isinstance(path, str) and not path.strip():
        raise ValueError("must not be empty")
    return path


Place = Annotated[Path, BeforeValidator(_given), AfterValidator(_possible)]


class Strict(BaseModel):
    """Unknown keys are refused: a typo must not become a default in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def upon(ground: Mapping[str, BaseModel], given: Any) -> Any:
    """`given`, settings by name as they are written: one with a name of `ground` says what is different there."""
    if not isinstance(given, dict):
        return given
    sets = {name: model.model_dump(exclude_unset=True) for name, model in ground.items()}
    named = {
        name: {**sets.get(name, {}), **own} if isinstance(own, dict) else own for name, own in given.items()
    }
    return named | {name: model for name, model in ground.items() if name not in named}
