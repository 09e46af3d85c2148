"""Several workers with one model, as one engine: while one computes, another prepares its batch."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from watcher.domain import EngineAbout
from watcher.engine.launch import Launch
from watcher.engine.supervisor import Supervisor


class Crew:
    """`infer` may be called by as many threads as there are workers at one time; more wait.

    `wanted` says, once the first worker has said where it computes, how many there shall be.
    Each is replaced by itself when it dies; one that cannot be is fatal for all.
    """

    def __init__(self, launch: Launch, *, wanted: Callable[[EngineAbout], int] = lambda _: 1) -> None:
        self._launch = launch
        self._wanted = wanted
        self._members = [Supervisor(launch)]
        self._free: queue.SimpleQueue[Supervisor] = queue.SimpleQueue()
        self._free.put(self._members[0])

    @property
    def size(self) -> int:
        return len(self._members)

    @property
    def about(self) -> EngineAbout | None:
        """Who computes; None before the first boot."""
        return self._members[0].about

    @property
    def restarts(self) -> int:
        """How often a worker had to be replaced."""
        return sum(member.restarts for member in self._members)

    @property
    def fatal(self) -> bool:
        return any(member.fatal for member in self._members)

    def start(self) -> EngineAbout:
        """Boot them all, the others together after the first. Raises EngineUnavailable; may be tried again."""
        about = self._members[0].start()
        while self.size < self._wanted(about):
            self._members.append(Supervisor(self._launch))
            self._free.put(self._members[-1])
        with ThreadPoolExecutor(self.size, "boot-worker") as boots:
            for boot in [boots.submit(member.start) for member in self._members[1:]]:
                boot.result()
        return about

    def infer(self, proxies: list[NDArray[np.uint8]], *, timeout: float) -> list[NDArray[np.float32]]:
        """See EngineClient.infer, by whoever is free."""
        member = self._free.get()
        try:
            return member.infer(proxies, timeout=timeout)
        finally:
            self._free.put(member)

    def close(self) -> None:
        """See Supervisor.close."""
        for member in self._members:
            member.close()
