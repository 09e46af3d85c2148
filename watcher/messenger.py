"""Delivers messages in a thread of its own: bounded, with retries, and nobody waits for it."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from watcher.digest import Notice
from watcher.log import event
from watcher.webhook import NotSent

# Messages that wait; when there are more, the oldest go.
MOST_WAITING = 100
# Between tries: 1 s, doubled, up to five minutes; 12 tries take half an hour.
FIRST_S, LONGEST_S, TRIES = 1.0, 300.0, 12

# (message, its id): raises NotSent.
Send = Callable[[Notice, str], None]


@dataclass(slots=True)
class Letter:
    """A message on its way; its id stays the same however often it is tried."""

    notice: Notice
    id: str
    tries: int = 0


class Messenger:
    """`name` is what the log calls the receiver. `first` is the wait after the first failure, in seconds.

    `waiting`: what an earlier one had not delivered when it was closed.
    """

    def __init__(
        self, name: str, send: Send, *, first: float = FIRST_S, waiting: Iterable[Letter] = ()
    ) -> None:
        self.name = name
        self._send = send
        self._first = first
        self._waiting: deque[Letter] = deque(waiting)
        self._under_way: Letter | None = None
        self._kept: list[Letter] = []
        self._change = threading.Condition()
        self._closing = False
        self.sent = self.failed = 0
        # A receiver that hangs must not keep the service from leaving.
        self._thread = threading.Thread(target=self._loop, name=f"notify-{name}", daemon=True)
        self._thread.start()

    def put(self, notice: Notice) -> None:
        """Never waits."""
        with self._change:
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self._give_up("too many messages wait")
            self._waiting.append(Letter(notice, f"msg_{uuid.uuid4().hex}"))
            self._change.notify()

    def close(self, *, grace: float = 2.0) -> list[Letter]:
        """What waits is tried once more, for `grace` seconds; returns what was not delivered."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join(grace)
        with self._change:
            left = [*self._kept, *([self._under_way] if self._under_way else []), *self._waiting]
            self._waiting.clear()
        return left

    def _loop(self) -> None:
        while (letter := self._next()) is not None:
            try:
                self._send(letter.notice, letter.id)
            except NotSent as error:
                letter.tries += 1
                if error.final or letter.tries >= TRIES:
                    self._give_up(str(error))
                elif self._closing:
                    self._kept.append(letter)
                else:
                    self._again(letter, str(error))
            else:
                self.sent += 1
            self._under_way = None

    def _next(self) -> Letter | None:
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closing)
            self._under_way = self._waiting.popleft() if self._waiting else None
            return self._under_way

    def _again(self, letter: Letter, reason: str) -> None:
        """Order is kept: while this one waits, so do the others."""
        delay = min(LONGEST_S, self._first * 2.0 ** (letter.tries - 1))
        if letter.tries == 1:
            event(logging.WARNING, f"message to {self.name} not delivered, tried again: {reason}")
        with self._change:
            self._waiting.appendleft(letter)
            until = time.monotonic() + delay
            self._change.wait_for(lambda: self._closing or time.monotonic() >= until, delay)

    def _give_up(self, reason: str) -> None:
        self.failed += 1
        words = f"message to {self.name} given up: {reason}"
        event(logging.WARNING, words, remedy="`hotmatte notify` sends a test message.")
