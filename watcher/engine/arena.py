"""Shared memory for pixels: an anonymous file, so nothing to name or clean up."""

from __future__ import annotations

import contextlib
import mmap
import os

import numpy as np
from numpy.typing import NDArray

_ALIGN = 64
# What one pixel of a batch takes: three bytes of colour in, one float32 of alpha out.
BYTES_A_PIXEL = 7


class ArenaFull(Exception):
    """The batch needs more than the arena was made for."""


class Arena:
    """A fixed stretch of memory handed out front to back, then reset as a whole.

    It cannot grow: the worker has mapped it already. Pages cost memory only once they are
    touched, so it may be sized for the largest batch there can ever be.
    """

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("hotmatte-arena")
        try:
            os.ftruncate(self.fd, size)
            self._map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        self._size = size
        self._used = 0

    def reset(self) -> None:
        """Forget everything handed out."""
        self._used = 0

    def reserve(self, count: int) -> int:
        """The offset of `count` fresh bytes, aligned for any dtype. Raises ArenaFull."""
        offset = self._used
        if offset + count > self._size:
            raise ArenaFull(f"the batch needs more than the {self._size} bytes of shared memory")
        self._used = -(-(offset + count) // _ALIGN) * _ALIGN
        return offset

    def pixels(self, offset: int, height: int, width: int) -> NDArray[np.uint8]:
        """HxWx3 at `offset`; a view, valid until `close`."""
        return np.ndarray((height, width, 3), np.uint8, self._map, offset)

    def alpha(self, offset: int, height: int, width: int) -> NDArray[np.float32]:
        """HxW at `offset`; a view, valid until `close`."""
        return np.ndarray((height, width), np.float32, self._map, offset)

    def close(self) -> None:
        """Give the memory back. Safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        # A view held by somebody's traceback keeps the mapping until that goes.
        with contextlib.suppress(BufferError):
            self._map.close()
