"""Threads and processes, where the kernel may refuse one: a service has a limit of tasks (TasksMax=), a user one of processes."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from watcher.errors import HostError

_FULL = "there are as many tasks as there may be"
_REMEDY = "Raise TasksMax= of the service, or lower limits.threads; work resumes by itself."
_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


def start(thread: threading.Thread) -> None:
    """Raises HostError where there may be no more of them."""
    try:
        thread.start()
    except RuntimeError as error:
        raise _refused(thread.name) from error


def _refused(name: str) -> HostError:
    return HostError(f"cannot start a thread ({name}): {_FULL}", remedy=_REMEDY)


def fork_refused(error: OSError, does: str) -> HostError | None:
    """What an error of fork means; None where it is another one. `does` completes "a process that ..."."""
    if error.errno != errno.EAGAIN:
        return None
    return HostError(f"cannot start a process that {does}: {_FULL}", remedy=_REMEDY)


class Team:
    """Up to `threads` threads, started by need, that take what is submitted in turn.

    Where one more is refused those that there are do the work; what a ThreadPoolExecutor raises then leaves
    open whether it is done.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._name = name
        self._there = threading.Event()  # at least one thread, which stays
        self._over = False
        self._pool = ThreadPoolExecutor(threads, name, initializer=self._there.set)

    def submit(
        self, work: Callable[_Given, _Made], *args: _Given.args, **more: _Given.kwargs
    ) -> Future[_Made]:
        """Raises HostError where nobody is there to do it; then nobody will."""
        done: Future[_Made] = Future()

        def into() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(work(*args, **more))
            except BaseException as error:  # noqa: BLE001  (crosses a thread)
                done.set_exception(error)

        try:
            self._pool.submit(into)
        except RuntimeError as error:
            if self._over:
                raise
            # It was put where any thread of the pool finds it, before another was asked for.
            if not self._there.is_set() and done.cancel():
                raise _refused(self._name) from error
        return done

    def open(self) -> None:
        """Have a thread, so that what is submitted will be done, whoever else takes all there may be.

        Raises HostError where there is none and none can be started.
        """
        if not self._there.is_set():
            self.submit(lambda: None)

    def shutdown(self) -> None:
        """Wait for all that was submitted. Whoever submits more gets a RuntimeError."""
        self._over = True
        self._pool.shutdown()
