"""What bounds strangers: requests a minute, bytes of a body and pauses in it, uploads at one time, photos that wait."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import threading
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watcher.desk import Desk
from watcher.web.refusal import Refused, too_many

# Callers remembered; whoever has not asked for longest is forgotten first.
REMEMBERED = 10_000
MULTIPART_ROOM = 1 << 16
DRAIN_S = 20.0
# Of whom we waited so long for so little its place is somebody else's: gone, or keeping it by a byte now and then.
STALL_S = 30.0
LEAST_BYTES = 16_000
CALM_S = 1.0
# Seconds after which even the last in a line should ask again: the pace may have changed.
LONGEST = 30.0
# Turns are handed out so much closer than the pace seen: a try more costs less than a queue that runs dry.
HASTE = 2.0
# Seconds a photo, where none was done in the last minute.
GUESS = 1.0


@dataclass(frozen=True, slots=True)
class Rate:
    """What remains of `limit` requests; `reset`: seconds until all of it is there again."""

    limit: int
    remaining: int
    reset: float

    @property
    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(int(time.time() + self.reset)),
        }


class Rates:
    """A bucket for each caller that fills steadily. Thread-safe."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> Rate:
        """Count a request. Raises Refused (429) where the bucket is empty."""
        with self._lock:
            return self._taken(caller, self._clock(), self._limit / 60)

    def _taken(self, caller: str, now: float, speed: float) -> Rate:
        level, then = self._buckets.pop(caller, (float(self._limit), now))
        level = min(self._limit, level + (now - then) * speed)
        if level < 1:
            self._buckets[caller] = (level, now)
            raise too_many("Too many requests", after=(1 - level) / speed)
        self._buckets[caller] = (level - 1, now)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return Rate(self._limit, int(level - 1), (self._limit - level + 1) / speed)


class Turns:
    """When those who were sent away are to come back: one after the other, not all at once.

    A turn is a promise of nothing: whoever comes while there is room gets it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._given: deque[float] = deque()

    def take(self, room: int, *, arrival: float, end: float) -> float:
        """Seconds until it is worth another try, at most LONGEST.

        `room` photos more may wait; one arrives in `arrival` seconds and is done in `end`.
        """
        now, given = self._clock(), self._given
        while given and given[0] <= now:
            given.popleft()
        turn = (given[-1] if given else now) + (arrival if len(given) < room else end)
        if turn > now + LONGEST:  # the line is longer than it is worth standing in
            return random.uniform(LONGEST / 2, LONGEST)
        given.append(turn)
        return turn - now


class Gate:
    """Counts uploads that are under way. Lives on the event loop."""

    def __init__(self, desk: Desk, *, uploads: int, waiting: int) -> None:
        self._desk = desk
        self._uploads = uploads
        self._waiting = waiting
        self._under_way: Counter[str] = Counter()
        self._calm = asyncio.Event()
        self._calm.set()
        self._turns: defaultdict[str, Turns] = defaultdict(Turns)
        self._arrival = 0.1  # seconds that an upload takes, others beside it: a running mean
        self._pace = (0.0, -math.inf)

    @contextlib.contextmanager
    def enter(self, folder: str) -> Iterator[None]:
        """Raises Refused (429) before a byte of the body is kept."""
        waiting = self._desk.waiting(folder) + self._under_way[folder]
        room = self._waiting - waiting
        if room <= 0:
            raise too_many(
                f"{waiting} photos wait in {folder!r} already",
                after=self._turn(folder, room),
                detail="Try again later.",
            )
        if self._under_way.total() >= self._uploads:
            raise too_many("Too many uploads at the same time", after=self._turn(folder, room))
        self._under_way[folder] += 1
        self._calm.clear()
        began = time.monotonic()
        try:
            yield
        finally:
            self._under_way[folder] -= 1
            if not self._under_way.total():
                self._calm.set()
            self._arrival += (time.monotonic() - began - self._arrival) / 8

    async def calm(self) -> None:
        """Those who are sent away have time: first the photos of those who are not, but not for ever."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._calm.wait(), CALM_S)

    def _turn(self, folder: str, room: int) -> float:
        return self._turns[folder].take(
            room, arrival=self._arrival / self._uploads, end=self._seconds_a_photo()
        )

    def _seconds_a_photo(self) -> float:
        """By the last seconds, or the last minute where nothing ended in them. Looked up once a second."""
        pace, when = self._pace
        if time.monotonic() - when < 1:
            return pace
        now = time.time()
        for window in (5, 60):
            done = sum(bucket.done for bucket in self._desk.throughput(since=now - window, step=window))
            if done:
                break
        pace = window / done / HASTE if done else GUESS
        self._pace = pace, time.monotonic()
        return pace


class BodyLimit:
    """Refuses a body of more than `most` bytes while it arrives, and one that stopped arriving.

    Where an answer comes before the body is read (429, 403), the rest is read and thrown away:
    a client that is still sending would get a broken connection instead of the answer.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most + MULTIPART_ROOM

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, self._most)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                await body.drain(scope["app"].state.site.gate.calm)
            await send(message)

        await self._app(scope, body.receive, sending)


class _Body:
    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, most: int) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        self._length = int(length) if length.isdigit() else None
        self._ended = self._length == 0 or (self._length is None and b"transfer-encoding" not in headers)
        # It sends nothing before it is told to, so there is nothing to drain.
        self._asks_first = b"expect" in headers
        self._receive = receive
        self._most = most
        self._came = 0
        self._renew()

    def _renew(self) -> None:
        """So long, in seconds, will be waited for the next bytes, so many."""
        self._patience, self._wanted = STALL_S, LEAST_BYTES

    async def receive(self) -> Message:
        if self._length is not None and self._length > self._most and not self._came:
            raise self._too_large()
        message = await self._next()
        if self._came > self._most:
            raise self._too_large()
        return message

    async def _next(self) -> Message:
        message = await (self._receive() if self._ended else self._while_it_comes())
        self._asks_first = False
        if message["type"] == "http.request":
            fresh = len(message.get("body", b""))
            self._came += fresh
            self._wanted -= fresh
            if self._wanted <= 0:
                self._renew()
            self._ended = not message.get("more_body", False)
        else:
            self._ended = True
        return message

    async def _while_it_comes(self) -> Message:
        began = monotonic()
        try:
            return await asyncio.wait_for(self._receive(), self._patience)
        except TimeoutError:
            self._ended = True  # nothing more is waited for
            words = f"Less than {LEAST_BYTES / 1e3:g} kB of the upload came in {STALL_S:g} s"
            raise Refused(408, "request_timeout", words, headers={"Connection": "close"}) from None
        finally:
            self._patience -= monotonic() - began

    async def drain(self, calm: Callable[[], Awaitable[None]]) -> None:
        if self._asks_first or self._ended:
            return
        await calm()
        with contextlib.suppress(TimeoutError, Refused):
            async with asyncio.timeout(DRAIN_S):
                while not self._ended and self._came <= 2 * self._most:
                    await self._next()

    def _too_large(self) -> Refused:
        return Refused(
            413, "file_too_large", f"The upload is larger than {(self._most - MULTIPART_ROOM) / 1e6:g} MB"
        )
