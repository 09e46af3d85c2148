"""What is kept of compiled kernels on disk: whether it is all there, and of the sources as they are. No word of numba's.

numba looks at the file that a kernel is in, and not at those of the kernels and numbers it uses, which it has a copy
of: after an upgrade that changed those only, it would go on with the old ones.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SOURCES = "kernels.sha256"
_WHOLE = "kernels.whole"


@dataclass(frozen=True, slots=True)
class KeptKernel:
    """One kernel: its name, the file it is written in, and the folder where its machine code is kept."""

    name: str
    source: Path
    folder: Path

    def files(self) -> Iterable[Path]:
        return self.folder.glob(f"{self.source.stem}.{self.name}-*.nb?")


class CompiledCache:
    """That of `kernels`. `maker`: all that machine code depends on besides: compiler, NumPy, processor.

    A folder that cannot be written, or is gone, is one in which nothing is whole; no method raises OSError.
    """

    def __init__(self, kernels: Sequence[KeptKernel], *, maker: str) -> None:
        self._kernels = kernels
        self._sources = _digest(path.read_bytes() for path in sorted({one.source for one in kernels}))
        mark = _digest([f"{sys.implementation.cache_tag} {maker}".encode()])[:16]
        # Beside what belongs to one installation; another one has a folder of its own.
        place = min((one.folder for one in kernels), default=None)
        self._told = None if place is None else place / _SOURCES
        self._whole = None if place is None else place / f"{_WHOLE}.{mark}"

    def renew(self) -> None:
        """Throw away what was made of other sources."""
        if self._told is None or self._made_of_these():
            return
        self.drop()
        _write(self._told, self._sources)

    def whole(self) -> bool:
        """Was everything compiled, of these sources and for this processor?"""
        return self._whole is not None and self._made_of_these() and self._whole.exists()

    def complete(self) -> None:
        """Everything has been compiled."""
        if self._whole is not None and self._made_of_these():
            _write(self._whole, "")

    def drop(self) -> None:
        """Throw all of it away."""
        if self._told is None:
            return
        with suppress(OSError):
            for path in self._told.parent.glob(f"{_WHOLE}.*"):
                path.unlink(missing_ok=True)
        for kernel in self._kernels:
            with suppress(OSError):
                for path in kernel.files():
                    path.unlink(missing_ok=True)

    def _made_of_these(self) -> bool:
        with suppress(OSError):
            return self._told is not None and self._told.read_text("ascii", "replace") == self._sources
        return False


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _write(path: Path, words: str) -> None:
    with suppress(OSError):
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(words, "ascii")
        temporary.replace(path)
