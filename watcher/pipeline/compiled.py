"""Machine code for the loops NumPy cannot fuse. Knows numba; nothing else does."""

from __future__ import annotations

import functools
import logging
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np

from watcher import threads
from watcher.errors import EngineUnavailable, HostError
from watcher.log import event
from watcher.pipeline.compiled_cache import CompiledCache, KeptKernel
from watcher.pipeline.compilers import Compilers, worthwhile

_Kernel = TypeVar("_Kernel", bound=Callable[..., object])
_waiting: list[Callable[..., object]] = []
_in_any_order: set[Callable[..., object]] = set()
_made: dict[Any, Any] = {}
_kernels: list[Any] = []
_turn = threading.Lock()
_through = threading.Event()  # nobody need wait
_through.set()
_given_up = threading.Event()
_aside: threading.Thread | None = None
_beside: Compilers | None = None

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

    numba is imported as late, too: it takes longer than all the rest. From then on the
    kernel's name stands for the machine code in every module with kernels, so that they
    may call each other.
    """
    _waiting.append(kernel)

    @functools.wraps(kernel)
    def first_call(*args: Any) -> object:
        if kernel not in _made:
            _make_all()
        return _made[kernel](*args)

    return cast(_Kernel, first_call)


def summing(kernel: _Kernel) -> _Kernel:
    """`compiled`, where sums may be added up in any order: that is several terms at a time, and differs by rounding."""
    _in_any_order.add(kernel)
    return compiled(kernel)


def _make_all() -> None:
    import numba

    with _turn:
        fresh, made = list(_waiting), dict(_made)
        kept: list[Any] = []
        for kernel in fresh:
            order = {"reassoc"} if kernel in _in_any_order else False
            # Nobody calls one from C, and to be ready for it takes a sixteenth of the time.
            options: dict[str, Any] = {"nogil": True, "fastmath": order, "no_cfunc_wrapper": True}
            try:
                made[kernel] = numba.njit(**options, cache=True)(kernel)
                kept.append(made[kernel])
            except RuntimeError:  # numba: "no locator available", no place to write to
                made[kernel] = numba.njit(**options)(kernel)
        # Only now: after an error, such as too few files that may be open, whoever calls next tries again.
        del _waiting[: len(fresh)]
        _kernels.extend(kept)
        for kernel in fresh:
            names = kernel.__globals__
            for name, value in list(names.items()):
                if isinstance(value, FunctionType) and (of := getattr(value, "__wrapped__", None)) in made:
                    names[name] = made[of]
        # Last: who finds a kernel there does not wait, and what it calls has to be there, too.
        _made.update(made)


def _keep_below(cache: Path) -> None:
    """Where no one has said it for all programs: with the weights, in a place that may be written."""
    import numba

    if not os.environ.get("NUMBA_CACHE_DIR"):
        config: Any = numba.config
        config.CACHE_DIR = str(cache / "compiled")


def compile_all(
    call_each: Callable[[], None], cache: Path | None = None, *, parts: Sequence[int] = ()
) -> bool:
    """Have `call_each` call every kernel once with each signature, so that no photo has to wait.

    `parts`: those of compiler.py, by number, that processes compile before, where that is worthwhile.
    The code is kept below `cache` for the next start, unless `NUMBA_CACHE_DIR` says where;
    without either, where numba finds a place. Who may write nowhere compiles at each start.
    A cache that is damaged or has no room is thrown away and done without until the next
    start: it must cost time, not photos. False if it was given up before the end: `give_up_compilers`.
    """
    if cache is not None:
        _keep_below(cache)
    _make_all()
    kept = _cache()
    if parts:
        kept.renew()
        if not kept.whole():
            _compile_beside(parts)
    if _is_given_up():
        return False
    try:
        call_each()
    except _TROUBLE as error:
        event(logging.WARNING, f"the cache of compiled code is not usable and is left out: {error!r}")
        kept.drop()
        for kernel in _kernels:
            # Private, and the only way: numba has a switch to turn a kernel's cache on, none to turn it off.
            kernel._cache.disable()
        call_each()
        return True
    if parts:
        kept.complete()
    return True


def _cache() -> CompiledCache:
    """Of all kernels that numba has found a place for."""
    import llvmlite.binding
    import numba

    places = [
        KeptKernel(one.__name__, Path(one.py_func.__code__.co_filename), Path(one.stats.cache_path))
        for one in _kernels
    ]
    processor = llvmlite.binding.get_host_cpu_name()
    return CompiledCache(places, maker=f"{numba.__version__} {np.__version__} {processor}")


def _is_given_up() -> bool:
    """For the thread of `compile_aside`; nobody gives up any other."""
    return _given_up.is_set() and threading.current_thread() is _aside


def _compile_beside(parts: Sequence[int]) -> None:
    global _beside
    import numba

    if not _kernels or not (count := worthwhile()):
        return
    _beside = Compilers(parts, count=count)
    if not _is_given_up():  # or `give_up_compilers` found nobody yet
        config: Any = numba.config
        _beside.run({"NUMBA_CACHE_DIR": config.CACHE_DIR} if config.CACHE_DIR else {})


def compile_aside(
    call_each: Callable[[], None], cache: Path | None = None, *, parts: Sequence[int] = ()
) -> threading.Thread:
    """`compile_all` in a thread of its own, which is returned; `wait_for_compilers` waits for it."""
    global _aside
    _given_up.clear()
    _through.clear()

    def work() -> None:
        try:
            if compile_all(call_each, cache, parts=parts):
                _given_up.clear()
        except (OSError, ImportError) as error:  # such as too few files that may be open
            event(
                logging.WARNING,
                f"not all loops are compiled yet: {error}",
                remedy="The first photo compiles them.",
            )
        finally:
            _through.set()

    _aside = threading.Thread(target=work, name="compile")
    try:
        threads.start(_aside)
    except HostError:
        _through.set()
        raise
    return _aside


def wait_for_compilers() -> None:
    """Return once no `compile_aside` is under way: a cache that is damaged is thrown away by then.

    Raises EngineUnavailable where they were given up.
    """
    _through.wait()
    if _given_up.is_set():
        raise EngineUnavailable(
            "stopped before all loops were compiled", remedy="Nothing: work resumes at start."
        )


def give_up_compilers() -> None:
    """Let nobody wait for them any more. Processes end at once; this one's cannot be interrupted: see `compilers_at_work`."""
    if compilers_at_work():
        _given_up.set()
        if _beside is not None:
            _beside.kill()
        _through.set()


def compilers_at_work() -> bool:
    """A process that ends now must not wait for its threads, nor end under their feet: `exits.leave`."""
    return _aside is not None and _aside.is_alive()
