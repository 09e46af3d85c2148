"""One worker process and the conversation with it. The deadline is the heartbeat."""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from watcher.engine.arena import Arena, ArenaFull
from watcher.engine.child import Child
from watcher.errors import (
    EngineCrashed,
    EngineError,
    EngineOutOfMemory,
    EngineTimeout,
    EngineUnavailable,
    HostError,
    InputRejected,
    host_error,
)
from watcher.log import event
from watcher.threads import fork_refused
from watcher.worker import wire

ISLAND = Path(wire.__file__).parent
# mallopt has no such thing. glibc from 2.35 on knows it, where the kernel has huge pages for who asks; all others pass it over.
_HUGE_PAGES = "glibc.malloc.hugetlb"


class EngineClient:
    """Asks one worker, one question at a time. After EngineCrashed or EngineTimeout only `close` is left.

    Not for several threads, except `kill` and `alive`.
    """

    def __init__(
        self, python: str, engine: Path, *, arena_bytes: int, env: Mapping[str, str] | None = None
    ) -> None:
        """Start `python` on the engine file. `env` is added to the environment.

        Raises EngineUnavailable where the interpreter cannot be started, HostError where nothing could be.
        """
        try:
            self._arena = Arena(arena_bytes)
        except OSError as error:
            raise HostError(f"no memory to share with the engine: {error.strerror or error}") from error
        command = [python, "-u", str(ISLAND), str(engine), str(self._arena.fd)]
        try:
            self._child = Child(command, fds=(self._arena.fd,), env=_environment(python, env or {}))
        except HostError:
            self._arena.close()
            raise
        except OSError as error:
            self._arena.close()
            if (host := fork_refused(error, "computes") or host_error(error, f"start {python}")) is not None:
                raise host from error
            raise EngineUnavailable(
                f"cannot start the interpreter {python}: {error.strerror or error}",
                remedy="Correct `python` in the model card, or install that interpreter.",
            ) from error

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.alive

    def boot(self, hello: Mapping[str, Any], *, timeout: float) -> dict[str, Any]:
        """Load the model and warm it up; returns the engine's `about`.

        Whatever goes wrong here is not a file's fault: EngineUnavailable.
        """
        try:
            reply = self._ask("hello", hello, timeout)
        except (EngineCrashed, EngineTimeout) as error:
            raise EngineUnavailable(f"the engine did not start: {error}") from error
        match reply:
            case {"kind": "ready", "protocol": wire.PROTOCOL, "about": dict() as about}:
                return about
            case {"kind": "ready", "protocol": spoken}:
                raise EngineUnavailable(f"worker speaks protocol {spoken}, not {wire.PROTOCOL}")
            case {"kind": "failed", "detail": detail}:
                raise EngineUnavailable(f"the engine did not start: {detail}")
        raise EngineUnavailable(f"the engine did not start: unexpected answer {reply['kind']!r}")

    def infer(
        self, proxies: list[NDArray[np.uint8]], *, timeout: float, threads: int = 0
    ) -> list[NDArray[np.float32]]:
        """Alphas (HxW float32 in 0..1) for proxies (HxWx3 uint8 RGB), same order and sizes.

        `threads`: of an engine that can be told, on a CPU that others use at the same time; 0: all it has.
        Raises EngineCrashed, EngineTimeout (the worker is dead then), EngineOutOfMemory (the
        batch is too big; the worker lives) or InputRejected (the engine refuses the image).
        """
        if not proxies:
            return []
        try:
            items = [self._place(proxy) for proxy in proxies]
        except ArenaFull as error:
            raise EngineOutOfMemory(str(error)) from error
        finally:
            self._arena.reset()
        reply = self._ask("infer", {"items": items, "threads": threads}, timeout)
        if reply["kind"] == "failed":
            raise _failure(reply)
        if reply["kind"] != "done":
            self._give_up(f"unexpected answer {reply['kind']!r} to infer")
        # Copied: the next batch overwrites the arena.
        return [self._arena.alpha(i["out"], i["height"], i["width"]).copy() for i in items]

    def kill(self) -> None:
        """End the worker now, from any thread: a conversation under way fails with EngineCrashed."""
        self._child.kill()

    def close(self, *, grace: float = 5.0) -> None:
        """Hang up; a worker that does not leave within `grace` seconds is killed. Idempotent."""
        self._child.bury(grace=grace)
        self._arena.close()

    def _place(self, proxy: NDArray[np.uint8]) -> dict[str, int]:
        if proxy.dtype != np.uint8 or proxy.ndim != 3 or proxy.shape[2] != 3 or proxy.size == 0:
            raise TypeError(f"a proxy is HxWx3 uint8, not {proxy.shape} {proxy.dtype}")
        height, width = proxy.shape[:2]
        into = self._arena.reserve(height * width * 3)
        self._arena.pixels(into, height, width)[:] = proxy
        out = self._arena.reserve(height * width * 4)
        return {"height": height, "width": width, "in": into, "out": out}

    def _ask(self, kind: str, fields: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        child = self._child
        if child.buried:  # its descriptors belong to somebody else by now
            raise EngineCrashed(f"the worker is gone: {child.epitaph()}")
        try:
            wire.send(child.inbox, kind, dict(fields), ready=_by(deadline, child.inbox, select.POLLOUT))
            reply = wire.receive(child.outbox, ready=_by(deadline, child.outbox, select.POLLIN))
        except _Late:
            child.kill()
            child.bury(grace=1.0)
            raise EngineTimeout(
                f"no answer to {kind} within {timeout:g} s, so the worker was killed"
            ) from None
        except (BrokenPipeError, EOFError) as error:
            self._give_up(f"the worker died during {kind}", error)
        except wire.WireError as error:
            child.kill()
            self._give_up(f"the worker answered {kind} with garbage ({error})", error)
        if reply is None:
            self._give_up(f"the worker died during {kind}")
        return reply

    def _give_up(self, what: str, cause: BaseException | None = None) -> NoReturn:
        self._child.bury(grace=1.0)
        raise EngineCrashed(f"{what}: {self._child.epitaph()}") from cause


class _Late(Exception):
    """The deadline passed."""


def _by(deadline: float, fd: int, event: int) -> Callable[[], None]:
    """Waits until `fd` is ready for `event`; raises _Late after `deadline` (monotonic)."""
    poller = select.poll()
    poller.register(fd, event)

    def ready() -> None:
        remaining = max(0.0, deadline - time.monotonic())
        if not poller.poll(remaining * 1000):
            raise _Late

    return ready


def _failure(reply: Mapping[str, Any]) -> EngineError | InputRejected:
    detail = str(reply.get("detail", ""))
    match reply.get("why"):
        case "memory":
            return EngineOutOfMemory(f"the engine ran out of memory. {detail}".strip())
        case "input":
            return InputRejected(f"the engine refuses the image: {detail}")
    # The last line of a traceback says what; the rest says where, which is for the log.
    event(logging.WARNING, f"the engine failed: {detail}")
    return EngineCrashed(f"the engine failed: {detail.strip().rpartition(chr(10))[2] or 'no reason given'}")


def _environment(python: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, less what would lead another interpreter to our packages, and with huge pages for weights and layers.

    These are read all over, again and again, so that a core spends its time on looking up where small pages lie.
    """
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **extra}
    tunables = env.get("GLIBC_TUNABLES", "")
    if _HUGE_PAGES not in tunables:
        env["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{_HUGE_PAGES}=1"]))
    if python != sys.executable:
        for name in ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"):
            env.pop(name, None)
    return env
