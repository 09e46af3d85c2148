"""What all settings are made of. Knows no setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    model_validator,
)


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
    """Unknown keys are refused: a typo must not become a default in silence. Nor `yes` a 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            name: _as_written(value)
            if name in cls.model_fields and _is_number(cls.model_fields[name].annotation)
            else value
            for name, value in values.items()
        }


def _as_written(value: Any) -> Any:
    """`true`, a word that is no number, for True, which counts as 1; in a list as well."""
    if isinstance(value, list | tuple):
        return [_as_written(part) for part in value]
    return str(value).lower() if isinstance(value, bool) else value


def _is_number(kind: Any) -> bool:
    """Whether values of this type are numbers, or consist of them, and never true or false."""
    if parts := get_args(kind):
        return any(map(_is_number, parts)) and bool not in parts
    return kind in (int, float)


def upon(ground: Mapping[str, BaseModel], given: Any) -> Any:
    """`given`, settings by name as they are written: one with a name of `ground` says what is different there."""
    if not isinstance(given, dict):
        return given
    sets = {name: model.model_dump(exclude_unset=True) for name, model in ground.items()}
    named = {
        name: {**sets.get(name, {}), **own} if isinstance(own, dict) else own for name, own in given.items()
    }
    return named | {name: model for name, model in ground.items() if name not in named}
