"""What one photo took of memory is kept for the next. Knows the C library and the kernel; nothing else does."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from watcher.cores import cores

# Arrays up to this size, and so much of the heap's free end: what refining 1080p takes beside the photo. It is the
# most that the C library agrees to.
KEPT_BYTES = 32 << 20
KEPT_END_BYTES = 64 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# An array in a block of more than so many times its size holds memory that others could use.
_ROOMY = 2


def keep_pages() -> None:
    """Do not give pages back to the kernel that the next photo will ask for.

    To have them cleared and mapped anew costs as much as decoding a photo, and a sixth of refining it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_END_BYTES)


class Blocks:
    """Memory for arrays that are too large for the C library to keep; `most` blocks at most while no array is in them.

    Thread-safe.
    """

    def __init__(self, most: int) -> None:
        # Whoever lets go of an array's last view adds its block, in whatever thread, even within another call of ours.
        self._spare: deque[mmap.mmap] = deque(maxlen=most)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """As `numpy.empty`. Raises MemoryError."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= KEPT_BYTES:
            return np.empty(shape, dtype)
        block = self._fitting(size) or _fresh(size)
        flat = np.frombuffer(block, np.uint8, size)
        # What all views of it hold on to, and nobody else: NumPy's own view of the block.
        weakref.finalize(flat.base, self._spare.append, block)
        return flat.view(dtype).reshape(shape)

    def forget(self) -> None:
        """Hold nothing that no array is in."""
        self._spare.clear()

    def _fitting(self, size: int) -> mmap.mmap | None:
        """A spare block for `size` bytes. Those that do not fit are of no use to photos like this: one of them goes."""
        misfits = []
        found = None
        with suppress(IndexError):
            while found is None:
                block = self._spare.pop()
                if size <= len(block) <= _ROOMY * size:
                    found = block
                else:
                    misfits.append(block)
        self._spare.extend(misfits if found is not None else misfits[1:])
        return found


def _fresh(size: int) -> mmap.mmap:
    try:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for {size} bytes of pixels") from error
    with suppress(AttributeError, OSError):  # a kernel without
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


# Each thread that renders needs one.
BLOCKS = Blocks(max(2, cores()))
