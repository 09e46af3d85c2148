"""Several workers with one model, as one engine: while one computes, another prepares its batch.

On a GPU they are all there from the start. On a CPU the first has every core, and the others are booted
when work waits: a lone photo is computed by all cores, photos side by side by their share of them each,
since threads that wait for each other at every layer of a model cost a tenth more CPU time and more.
Where an engine cannot be told to use fewer threads, the first only computes what comes alone from then on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from watcher.cores import cores
from watcher.domain import EngineAbout
from watcher.engine.card import Card
from watcher.engine.launch import Launch
from watcher.engine.supervisor import Supervisor
from watcher.errors import EngineUnavailable, HostError
from watcher.log import event
from watcher.memory import available_mb
from watcher.threads import start

# Who has more cores can ask for more in the card. Four with four threads each did less than half of what sixteen cores can
# (docs/benchmarks.md): what threads of one picture share is cut ever smaller.
MOST = 16
# Workers beyond these leave half of the free memory to others.
MODEST = 4
# Beside a further worker, for photos in work and for whoever else lives here.
SPARE_MB = 500.0
# Of engines whose threads are fixed, fewer further ones than this are no gain beside the first.
FEWEST = 2
# So many photos that nobody has begun are worth the start of a further worker. Measured on two cores with photos of
# 1080p: bursts of 3 and 6 were done 0.5 and 1 s later by two workers than by one, of 12 at the same time.
ENOUGH = 12
# Seconds until a further worker that found no room or did not boot is tried again.
AGAIN_S = 60.0
# Seconds after which a further worker that nobody needed gives its memory back.
IDLE_S = 300.0


def most_on_cpu(card: Card, cores: int) -> int:
    """How many workers may share these cores: as the card says, or, where it says what one takes, each a core."""
    return card.workers_cpu or (min(cores, MOST) if card.memory_mb else 1)


def has_room(card: Card, more: int, *, available: Callable[[], float | None] = available_mb) -> bool:
    """Whether so many workers more may be booted now; who asked for a number of them gets it."""
    if card.workers_cpu or card.memory_mb is None:
        return True
    free, wanted = available(), more * card.memory_mb
    return free is None or (free >= wanted + SPARE_MB and (more <= MODEST or free >= 2 * wanted))


@dataclass(frozen=True, slots=True)
class Growth:
    """Further workers on a CPU, so that at `most` so many compute side by side, while there is `room` for so many more.

    One is booted, or all where the first does not count (see `Crew.start`), when work has waited for `after` seconds, some of it all the time, and there is a backlog (see
    `Crew.heed`); without one after `patience`: for a few photos its start would cost more than it gains.
    """

    launch: Launch
    most: int
    room: Callable[[int], bool] = lambda _: True
    after: float = 0.25
    patience: float = 8.0


class Crew:
    """`infer` may be called by as many threads as there may be workers at one time; more wait.

    `wanted` says, once the first worker has said where it computes, how many there shall be from the start;
    `growth` how many there may be on a CPU. Each is replaced by itself when it dies; one from the start that
    cannot be is fatal for all.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        wanted: Callable[[EngineAbout], int] = lambda _: 1,
        growth: Growth | None = None,
    ) -> None:
        self._launch = launch
        self._wanted = wanted
        self._growth = growth
        self._backlog: Callable[[], int] = lambda: 0
        self._company: Callable[[], int] = lambda: 1
        self._changed = threading.Condition()
        # All below are guarded by it. The first of `_members` is who is asked first.
        self._members = [Supervisor(launch)]
        self._busy: set[Supervisor] = set()
        self._fixed = 1  # so many never leave
        self._waiting = 0
        self._crowded: float | None = None  # monotonic: since when somebody has always waited
        self._booting: list[Supervisor] | None = None  # empty: it is being found out whether any shall come
        self._not_before = 0.0  # monotonic
        self._needed = 0.0  # monotonic: when more than the fixed ones were at work
        # (workers, threads of each of so many): to find out how many cores there are takes a dozen files.
        self._each = 0, 0
        self._lost = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Workers there are."""
        return len(self._members)

    @property
    def most(self) -> int:
        """Workers that may compute at one time."""
        beside = self.size - 1 if self._stands_back() else self.size
        return max(beside, self._growth.most) if self._grows() and self._growth else self.size

    @property
    def about(self) -> EngineAbout | None:
        """Who computes; None before the first boot."""
        return self._members[0].about

    @property
    def restarts(self) -> int:
        """How often a worker had to be replaced."""
        with self._changed:
            return self._lost + sum(member.restarts for member in self._members)

    @property
    def fatal(self) -> bool:
        with self._changed:
            return any(member.fatal for member in self._members[: self._fixed])

    def heed(self, backlog: Callable[[], int]) -> None:
        """`backlog` is asked, at most once a second, how many photos there are that nobody has begun; it may take long."""
        self._backlog = backlog

    def mind(self, company: Callable[[], int]) -> None:
        """`company` says at once how many photos are under way that will be asked for yet, this one included."""
        self._company = company

    def start(self) -> EngineAbout:
        """Boot those wanted from the start, the others together after the first.

        Raises EngineUnavailable; may be tried again.
        """
        about = self._members[0].start()
        with self._changed:
            while self.size < self._wanted(about):
                self._members.append(Supervisor(self._launch))
            self._fixed = max(self._fixed, self.size if not self._grows() else 1)
            others = self._members[1 : self._fixed]
        _start_all(others)
        return about

    def infer(self, proxies: list[NDArray[np.uint8]], *, timeout: float) -> list[NDArray[np.float32]]:
        """See EngineClient.infer, by whoever is free."""
        member, threads = self._take()
        try:
            return member.infer(proxies, timeout=timeout, threads=threads)
        finally:
            with self._changed:
                self._busy.discard(member)
                self._drop_if_hopeless(member)
                self._changed.notify()

    def rest(self, *, now: float | None = None) -> None:
        """Close the further workers that nobody has needed for a while. To be called now and then."""
        with self._changed:
            quiet = (time.monotonic() if now is None else now) - self._needed
            if quiet < IDLE_S or not self._grows():
                return
            leaving = [member for member in self._members[self._fixed :] if member not in self._busy]
            for member in leaving:
                self._leave(member)
        for member in leaving:
            member.close()

    def close(self) -> None:
        """See Supervisor.close."""
        with self._changed:
            self._closed = True
            members = [*self._members, *(self._booting or [])]
        for member in members:
            member.close()

    def _grows(self) -> bool:
        return self._growth is not None and self.about is not None and self.about.device == "cpu"

    def _stands_back(self) -> bool:
        """Does the first compute only what comes alone? It has all threads for good, and there are others."""
        return self._grows() and self._members[0].fixed_threads and self.size > FEWEST

    def _take(self) -> tuple[Supervisor, int]:
        """Who computes next, and on how many threads; 0: on all."""
        with self._changed:
            if self._free() is not None and not self._waiting:
                self._crowded = None
            self._waiting += 1
            while (free := self._free()) is None:
                self._changed.wait(self._grow())
            self._waiting -= 1
            grows = self._grows()
            alone = grows and self._alone() and not self._waiting
            self._busy.add(free)
            if free not in self._members[: self._fixed]:
                self._needed = time.monotonic()
            return free, 0 if alone or not grows else self._share()

    def _free(self) -> Supervisor | None:
        stands_back = self._stands_back() and not (self._alone() and self._waiting <= 1)
        asked = self._members[1:] if stands_back else self._members
        return next((member for member in asked if member not in self._busy), None)

    def _alone(self) -> bool:
        """Does nobody compute, and is no other photo under way to us?"""
        return not self._busy and self._company() <= 1

    def _share(self) -> int:
        """Threads of each, of those there are."""
        if self.size == 1:
            return 0
        if self._each[0] != self.size:
            self._each = self.size, _shared(self.size)
        return self._each[1]

    def _missing(self) -> int:
        """How many could be booted now for `growth.most` to compute side by side."""
        assert self._growth is not None
        if self._members[0].fixed_threads:
            return self._growth.most - (self.size - 1)
        return min(1, self._growth.most - self.size)

    def _grow(self) -> float | None:
        """See aside to more, if there may be more: who waits takes whoever is free first.

        Returns in how many seconds to ask again, None: not before something changes.
        """
        growth, now = self._growth, time.monotonic()
        if growth is None or not self._grows() or self._closed or self._booting is not None:
            return None
        self._crowded = now if self._crowded is None else self._crowded
        missing = self._missing()
        if missing <= 0:
            return None
        ripe = max(self._crowded + growth.after, self._not_before)
        if now < ripe:
            return ripe - now
        patient = now - self._crowded < growth.patience
        self._booting = []
        work = partial(self._join, missing, growth, patient=patient)
        try:
            start(threading.Thread(target=work, name="boot-worker", daemon=True))
        except HostError:  # those that there are go on
            self._booting, self._not_before = None, now + AGAIN_S
        return None

    def _join(self, missing: int, growth: Growth, *, patient: bool) -> None:
        """Boot those missing; the crew works on without them where that is not worth it, or fails.

        Nobody waits for this: the journal, which knows the backlog, may be on a disk that stalls.
        """
        again, failed = AGAIN_S, None
        members: list[Supervisor] = []
        if patient and self._backlog() < ENOUGH:
            again = 1.0
        else:
            members = self._recruited(self._fitting(missing, growth), growth)
        try:
            _start_all(members)
        except (EngineUnavailable, HostError) as error:
            failed = error
        with self._changed:
            self._booting = None
            joins = bool(members) and failed is None and not self._closed
            if joins:
                self._members += members
                self._needed = time.monotonic()
            else:
                self._not_before = time.monotonic() + again
            self._changed.notify_all()
        if not joins:
            for member in members:
                member.close()
        if failed is not None and not self._closed:
            event(
                logging.WARNING,
                f"no further worker, {self.size} go(es) on: {failed}",
                model=self._launch.model,
            )

    def _fitting(self, missing: int, growth: Growth) -> int:
        """As many of those missing as there is room for and as are a gain."""
        least = 1
        if self._members[0].fixed_threads:
            least = max(1, min(FEWEST, growth.most) - (self.size - 1))
        return next((count for count in range(missing, least - 1, -1) if growth.room(count)), 0)

    def _recruited(self, count: int, growth: Growth) -> list[Supervisor]:
        """So many, not booted yet; where threads are fixed, with a share of the cores for each that computes."""
        with self._changed:
            if self._closed or not count:
                return []
            launch = growth.launch
            if self._members[0].fixed_threads:
                launch = launch.with_threads(_shared(self.size - 1 + count))
            self._booting = [Supervisor(launch) for _ in range(count)]
            return list(self._booting)

    def _drop_if_hopeless(self, member: Supervisor) -> None:
        """A further worker that cannot be replaced is none: the first goes on."""
        if member.fatal and member in self._members[self._fixed :]:
            self._leave(member)
            self._not_before = time.monotonic() + AGAIN_S

    def _leave(self, member: Supervisor) -> None:
        self._members.remove(member)
        self._lost += member.restarts


def _shared(workers: int) -> int:
    """Threads of each of so many."""
    return max(1, cores() // workers)


def _start_all(members: list[Supervisor]) -> None:
    """Boot them together. Raises what the first that cannot be booted raises."""
    with ThreadPoolExecutor(max(1, len(members)), "boot-worker") as boots:
        for boot in [boots.submit(member.start) for member in members]:
            boot.result()
