"""Machine code for the loops NumPy cannot fuse. Knows numba; nothing else does."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from watcher.log import event

_Kernel = TypeVar("_Kernel", bound=Callable[..., object])
_kernels: list[Any] = []

# What pickle makes of a file that a power cut tore, and a disk of a cache it has no room for.
_TROUBLE = (
    OSError,
    EOFError,
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
)


def compiled(kernel: _Kernel) -> _Kernel:
    """`kernel` compiled at its first call, without the GIL, and kept on disk where that is possible.

    `NUMBA_CACHE_DIR` says where; a service that may write nowhere compiles at each start.
    """
    try:
        made = numba.njit(nogil=True, cache=True)(kernel)
        _kernels.append(made)
    except RuntimeError:  # numba: "no locator available", no place to write to
        made = numba.njit(nogil=True)(kernel)
    return cast(_Kernel, made)


def compile_all(call_each: Callable[[], None]) -> None:
    """Have `call_each` call every kernel once with each signature, so that no photo has to wait.

    A cache that is damaged or has no room is thrown away and done without until the next
    start: it must cost time, not photos.
    """
    try:
        call_each()
    except _TROUBLE as error:
        event(logging.WARNING, f"the cache of compiled code is not usable and is left out: {error!r}")
        for kernel in _kernels:
            _drop_cache(kernel)
        call_each()


def _drop_cache(kernel: Any) -> None:
    with suppress(OSError):
        stem = Path(kernel.py_func.__code__.co_filename).stem
        for path in Path(kernel.stats.cache_path).glob(f"{stem}.{kernel.__name__}-*.nb?"):
            path.unlink(missing_ok=True)
    # Private, and the only way: numba has a switch to turn a kernel's cache on, none to turn it off.
    kernel._cache.disable()
