"""A fleet of up to 200 nodes on a simulated clock: which part of it is full first?

The ledger is the watcher's own code: what is out, what is sent again, that each photo ends once. Broker,
share, nodes and clock are simulated: queues with servers that take as long as was measured, and
nodes that die. Only what limits a fleet is in it; photos are read and computed in no time but the engine's.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from watcher.domain import Job, Source, Stamp
from watcher.fleet.remote import COLLECTORS
from watcher.fleet.sending import Ledger, Pending

NODES = (1, 10, 25, 50, 100, 200)
LATENCIES_MS = (0.2, 1.0, 5.0)  # of one look at a share: a disk's, a good NAS's, a busy one's
HOLDS = 6  # limits.max_in_flight
ENGINE_S = 0.2
LOST_AFTER_S, RESEND_S = 15.0, 60.0
DEATHS_S = 3600.0  # a node lives for so long on average, and is back a minute later

# Measured with the real thing: `python -m benchmarks fleet`, and the watcher's system calls counted by strace.
CPU_S = 0.0046  # of the watcher, a photo: one Python process, so one after the other
SYNC_S = 0.004  # one transaction of the journal: `python -m benchmarks journal`
LOOKS_SENDING, LOOKS_PUBLISHING = 2, 85  # calls that may reach the share, a photo
LOOKS_NODE = 3  # to read what one node says of itself: open, read, close
# Of Redis, which is one thread: a message sent, taken and acknowledged; a second of a node that asks for work.
BROKER_MESSAGE_S, BROKER_ASKING_S = 0.00008, 0.0037
MESSAGES = 2  # a photo: the job and the reply
MIND_S = 1.0


@dataclass(slots=True)
class Station:
    """`servers` that take `seconds` each; busy time is kept."""

    servers: int
    seconds: float
    queue: deque[Callable[[], None]] = field(default_factory=deque)
    free: int = -1
    busy: float = 0.0


class Simulation:
    """`photos` through `nodes`; a photo's `end` is counted, and must come once."""

    def __init__(self, nodes: int, photos: int, latency: float, *, seed: int = 1) -> None:
        self.now = 0.0
        self._chance = random.Random(seed)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ledger = Ledger(resend_after=RESEND_S)
        self._left, self._photos = photos, photos
        self.ends = bytearray(photos)
        self.ended = 0
        self._in_flight = 2 * HOLDS * nodes
        self.stations = {
            "the watcher's CPU": Station(1, CPU_S),
            "the journal's disk": Station(1, SYNC_S),
            "sending": Station(1, LOOKS_SENDING * latency),
            "publishing": Station(COLLECTORS, LOOKS_PUBLISHING * latency),
            # Their load is counted, nobody waits for them: far from full they are quick.
            "seeing the nodes": Station(1, LOOKS_NODE * latency * nodes),
            "Redis": Station(1, BROKER_MESSAGE_S),
        }
        self._waiting: deque[Pending] = deque()
        self._held: list[dict[int, Pending]] = [{} for _ in range(nodes)]
        self._alive, self._lives = [True] * nodes, [0] * nodes
        self._engine_free = [0.0] * nodes
        self._made_ones: set[int] = set()
        self.engines = 0.0

    def run(self) -> float:
        """Photos a second."""
        for node in range(len(self._alive)):
            self._after(self._chance.expovariate(1 / DEATHS_S), self._dies(node))
        self._after(MIND_S, self._mind)
        self._claim()
        while self.ended < self._photos:
            self.now, _, event = heapq.heappop(self._events)
            event()
        return self._photos / self.now

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def _through(self, name: str, then: Callable[[], None]) -> None:
        """Wait for a server of the station, be served, go on."""
        station = self.stations[name]
        station.queue.append(then)
        station.free = station.servers if station.free < 0 else station.free
        self._serve(station)

    def _serve(self, station: Station) -> None:
        while station.free and station.queue:
            station.free -= 1
            station.busy += station.seconds
            then = station.queue.popleft()

            def served(then: Callable[[], None] = then) -> None:
                station.free += 1
                then()
                self._serve(station)

            self._after(station.seconds, served)

    # --- The watcher -----------------------------------------------------------------------

    def _claim(self) -> None:
        while self._left and len(self._ledger) < self._in_flight:
            number = self._photos - self._left
            self._left -= 1
            pending = Pending(Job(number, Source("hot", str(number), Stamp(1, 1)), 1, 1))
            self._ledger.add(pending)
            self._through("sending", partial(self._send, pending))

    def _send(self, pending: Pending) -> None:
        if pending.job.id in self._made_ones:  # lies on the share, whatever became of the reply
            self._hear(pending)
        elif self._ledger.has(pending):
            self._ledger.sent(pending, now=self.now, generation=0)
            self._waiting.append(pending)
            self._take()

    def _hear(self, pending: Pending) -> None:
        found = self._ledger.answered(pending.job.id)
        if found is not None and self._ledger.take(found):
            self._through(
                "publishing", lambda: self._through("the watcher's CPU", lambda: self._record(found))
            )

    def _record(self, pending: Pending) -> None:
        def end() -> None:
            self.ended += not self.ends[pending.job.id]
            self.ends[pending.job.id] += 1
            self._made_ones.discard(pending.job.id)
            self.stations["Redis"].busy += MESSAGES * BROKER_MESSAGE_S
            self._claim()

        self._through("the journal's disk", end)

    def _mind(self) -> None:
        held = {
            number for alive, jobs in zip(self._alive, self._held, strict=True) if alive for number in jobs
        }
        asking = sum(alive and len(jobs) < HOLDS for alive, jobs in zip(self._alive, self._held, strict=True))
        for pending in self._ledger.to_resend(held, self.now, idle=bool(asking)):
            self._through("sending", partial(self._send, pending))
        seeing = self.stations["seeing the nodes"]
        seeing.busy += seeing.seconds
        pause = seeing.seconds + MIND_S
        self.stations["Redis"].busy += asking * BROKER_ASKING_S * pause
        self._after(pause, self._mind)

    # --- The nodes -------------------------------------------------------------------------

    def _take(self) -> None:
        """Whoever holds least and has room takes the first of the queue."""
        while self._waiting:
            there = [
                node for node, alive in enumerate(self._alive) if alive and len(self._held[node]) < HOLDS
            ]
            if not there:
                return
            node = min(there, key=lambda node: len(self._held[node]))
            pending = self._waiting.popleft()
            if pending.job.id in self._held[node] or not self._ledger.has(pending):
                continue
            self._held[node][pending.job.id] = pending
            start = max(self.now, self._engine_free[node])
            self._engine_free[node] = start + ENGINE_S
            self.engines += ENGINE_S
            self._after(start + ENGINE_S - self.now, self._made(node, pending, self._lives[node]))

    def _made(self, node: int, pending: Pending, life: int) -> Callable[[], None]:
        def made() -> None:
            if self._lives[node] == life and pending.job.id in self._held[node]:
                del self._held[node][pending.job.id]
                self._made_ones.add(pending.job.id)
                self._hear(pending)
                self._take()

        return made

    def _dies(self, node: int) -> Callable[[], None]:
        """What it held goes back to the queue once the broker misses it."""

        def dies() -> None:
            lost, self._held[node] = list(self._held[node].values()), {}
            self._alive[node], self._lives[node] = False, self._lives[node] + 1
            self._engine_free[node] = 0.0
            self._after(LOST_AFTER_S, partial(self._missed, lost))
            self._after(60.0, lambda: self._back(node))

        return dies

    def _missed(self, lost: list[Pending]) -> None:
        self._waiting.extend(lost)
        self._take()

    def _back(self, node: int) -> None:
        self._alive[node] = True
        self._after(self._chance.expovariate(1 / DEATHS_S), self._dies(node))
        self._take()


def run(setting: Setting) -> list[Table]:
    rows: list[tuple[Cell, ...]] = []
    for latency in LATENCIES_MS:
        for nodes in NODES:
            rows.append(_measured(nodes, latency, setting.count(200, quick=10) * nodes + 1000))
    long = [_measured(NODES[-1], 1.0, setting.count(10_000_000, quick=2000))]
    columns = (
        "share, ms a look",
        "nodes",
        "photos",
        "photos a second",
        "nodes busy, %",
        "fullest",
        "full, %",
        "Redis, %",
        "ended not once",
    )
    notes = (
        f"Nodes of {1 / ENGINE_S:g} photos a second, {HOLDS} in hand each, each dying once in {DEATHS_S / 3600:g} h; queue.in_flight twice that.",
        "Fullest: what is busy for most of the time.",
    )
    return [
        Table("A simulated fleet", columns, tuple(rows), notes),
        Table(
            "The same for long",
            columns,
            tuple(long),
            ("Rates are the same after the first thousand photos.",),
        ),
    ]


def _measured(nodes: int, latency_ms: float, photos: int) -> tuple[Cell, ...]:
    simulation = Simulation(nodes, photos, latency_ms / 1000)
    rate = simulation.run()
    busy = {name: at.busy / at.servers / simulation.now for name, at in simulation.stations.items()}
    fullest = max(busy, key=lambda name: busy[name])
    wrong = photos - simulation.ends.count(1)
    engines = 100 * simulation.engines / (nodes * simulation.now)
    redis = 100 * busy["Redis"]
    return latency_ms, nodes, photos, rate, min(100.0, engines), fullest, 100 * busy[fullest], redis, wrong
