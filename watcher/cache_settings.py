"""The `cache` section of the configuration, and where the cache lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from watcher import cache
from watcher.strict import Strict

Megabytes = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Cache(Strict):
    """What has been computed or fetched once is not computed or fetched again."""

    size_mb: Megabytes = Field(
        2048.0, description="what is kept at most, the least used goes first; 0: keep nothing"
    )


def root_of(chosen: Path | None) -> Path:
    """`models.cache` of the settings, or the user's cache folder (XDG)."""
    if chosen is not None:
        return chosen
    root = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if root.startswith("/") else Path.home() / ".cache"
    return base / "hotmatte"


def place_of(chosen: Path | None) -> Path:
    """Where answers and fetched photos are kept: beside the weights."""
    return root_of(chosen) / "answers"


def opened(settings: Cache, chosen: Path | None) -> cache.Cache:
    """The cache itself; `chosen` is `models.cache`."""
    return cache.Cache(place_of(chosen), most=int(settings.size_mb * 1e6))
