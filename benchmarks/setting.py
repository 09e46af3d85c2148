"""What all benchmarks are told: how much to do, where, with which photos."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Setting:
    """`scratch` must be on the disk that is to be measured; `photos` are portraits of any size.

    `pairs` are folders with image/ and alpha/.
    """

    quick: bool
    scratch: Path
    photos: tuple[Path, ...]
    pairs: tuple[Path, ...] = ()

    def count(self, full: int, *, quick: int) -> int:
        """How often, or how many."""
        return quick if self.quick else full

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """An empty folder of its own, gone afterwards."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"hotmatte-{name}-", dir=self.scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
