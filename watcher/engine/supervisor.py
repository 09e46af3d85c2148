"""Keeps one worker alive: boots it, replaces it when it dies or hangs, and knows when to give up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from watcher.domain import EngineAbout
from watcher.engine.client import EngineClient
from watcher.engine.launch import Launch
from watcher.errors import EngineCrashed, EngineTimeout, EngineUnavailable
from watcher.log import event

# So many failed boots in a row are no accident.
GIVE_UP_AFTER = 3


def pause_before_boot(strikes: int) -> float:
    """Seconds to wait after so many misfortunes in a row; the first replacement comes at once."""
    return 0.0 if strikes <= 1 else float(min(30.0, 0.5 * 2.0 ** min(strikes - 2, 16)))


class Supervisor:
    """An engine that survives its worker. `infer` may be called by one thread, `close` by any."""

    def __init__(self, launch: Launch, *, pause: Callable[[int], float] = pause_before_boot) -> None:
        self._launch = launch
        self._pause = pause
        self._turn = threading.Lock()
        self._closing = threading.Event()
        self._client: EngineClient | None = None
        self._about: EngineAbout | None = None
        self._fixed_threads = False
        self._boots = 0
        self._strikes = 0  # misfortunes since the last success
        self._not_before = 0.0  # monotonic
        self._failed_boots = 0
        self._last_failure: EngineUnavailable | None = None

    @property
    def about(self) -> EngineAbout | None:
        """Who computes; None before the first boot."""
        return self._about

    @property
    def fixed_threads(self) -> bool:
        """Whether the worker ignores `threads`: it computes on as many as it was started with."""
        return self._fixed_threads

    @property
    def restarts(self) -> int:
        """How often a worker had to be replaced."""
        return max(0, self._boots - 1)

    @property
    def failed_boots(self) -> int:
        """Boots that failed in a row."""
        return self._failed_boots

    @property
    def fatal(self) -> bool:
        """Whether trying again is pointless: from now on every call fails at once."""
        return self._failed_boots >= GIVE_UP_AFTER

    def start(self) -> EngineAbout:
        """Boot now rather than with the first batch. Raises EngineUnavailable."""
        with self._turn:
            self._ready()
        assert self._about is not None
        return self._about

    def infer(
        self, proxies: list[NDArray[np.uint8]], *, timeout: float, threads: int = 0
    ) -> list[NDArray[np.float32]]:
        """See EngineClient.infer. Boots where there is no worker: raises EngineUnavailable if it cannot."""
        with self._turn:
            client = self._ready()
            try:
                alphas = client.infer(proxies, timeout=timeout, threads=threads)
            except (EngineCrashed, EngineTimeout) as error:
                self._bury(client)
                self._refuse_if_closing()
                event(logging.WARNING, f"worker lost, will be replaced: {error}", model=self._launch.model)
                raise
            self._strikes = 0
            return alphas

    def close(self) -> None:
        """End the worker; a boot or a batch under way is cut short. Idempotent."""
        self._closing.set()
        if not self._turn.acquire(timeout=0.05):
            client = self._client
            if client is not None:
                client.kill()
            self._turn.acquire()
        try:
            if self._client is not None:
                self._client.close()
                self._client = None
        finally:
            self._turn.release()

    def _ready(self) -> EngineClient:
        """A worker that is warm and alive."""
        self._refuse_if_closing()
        if self._client is not None and not self._client.alive:
            # It died between two batches: no file is to blame.
            event(logging.WARNING, "worker died while idle, will be replaced", model=self._launch.model)
            self._bury(self._client)
        if self._client is None:
            self._boot()
        assert self._client is not None
        return self._client

    def _boot(self) -> None:
        if self.fatal and self._last_failure is not None:
            raise EngineUnavailable(str(self._last_failure), remedy=self._last_failure.remedy)
        self._closing.wait(max(0.0, self._not_before - time.monotonic()))
        self._refuse_if_closing()
        launch, started = self._launch, time.monotonic()
        try:
            client = self._client = EngineClient(
                launch.python, launch.engine_file, arena_bytes=launch.arena_bytes
            )
            # Between the first look and this one close() may have found no client to kill.
            self._refuse_if_closing()
            said = client.boot(launch.hello, timeout=launch.boot_timeout)
        except EngineUnavailable as error:
            self._bury(self._client)
            self._refuse_if_closing()
            self._failed_boots += 1
            self._last_failure = error
            raise
        self._boots += 1
        self._failed_boots = 0
        self._about = launch.about(said)
        self._fixed_threads = bool(said.get("fixed_threads", False))
        event(
            logging.INFO,
            "engine",
            model=launch.model,
            device=self._about.device,
            framework=self._about.framework,
            boot_ms=round((time.monotonic() - started) * 1000),
        )

    def _bury(self, client: EngineClient | None) -> None:
        """One worker less, one strike more."""
        if client is not None:
            client.kill()
            client.close()
        self._client = None
        self._strikes += 1
        self._not_before = time.monotonic() + self._pause(self._strikes)

    def _refuse_if_closing(self) -> None:
        if self._closing.is_set():
            raise EngineUnavailable("the engine is being shut down", remedy="Nothing: work resumes at start.")
