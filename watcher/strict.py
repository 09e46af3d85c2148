"""What all settings are made of. Knows no setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _possible(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("no path can hold a NUL character")
    return path


Place = Annotated[Path, AfterValidator(_possible)]


class Strict(BaseModel):
    """Unknown keys are refused: a typo must not become a default in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)
