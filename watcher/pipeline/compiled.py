"""Machine code for the loops NumPy cannot fuse. Knows numba; nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

_Kernel = TypeVar("_Kernel", bound=Callable[..., object])


def compiled(kernel: _Kernel) -> _Kernel:
    """`kernel` compiled at its first call, without the GIL, and kept on disk where that is possible.

    `NUMBA_CACHE_DIR` says where; a service that may write nowhere compiles at each start.
    """
    try:
        return cast(_Kernel, numba.njit(nogil=True, cache=True)(kernel))
    except RuntimeError:  # numba: "no locator available", no place to write to
        return cast(_Kernel, numba.njit(nogil=True)(kernel))
