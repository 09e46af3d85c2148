"""Delivers messages in a thread of its own: bounded, with retries, and nobody waits for it."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
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
class _Letter:
    notice: Notice
    id: str
    tries: int = 0


class Messenger:
    """`name` is what the log calls the receiver. `first` is the wait after the first failure, in seconds."""

    def __init__(self, name: str, send: Send, *, first: float = FIRST_S) -> None:
        self._name = name
        self._send = send
        self._first = first
        self._waiting: deque[_Letter] = deque()
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
            self._waiting.append(_Letter(notice, f"msg_{uuid.uuid4().hex}"))
            self._change.notify()

    def close(self, *, grace: float = 2.0) -> None:
        """What waits is given up after `grace` seconds."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join(grace)

    def _loop(self) -> None:
        while (letter := self._next()) is not None:
            try:
                self._send(letter.notice, letter.id)
            except NotSent as error:
                letter.tries += 1
                if error.final or letter.tries >= TRIES or self._closing:
                    self._give_up(str(error))
                else:
                    self._again(letter, str(error))
            else:
                self.sent += 1

    def _next(self) -> _Letter | None:
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closing)
            return self._waiting.popleft() if self._waiting else None

    def _again(self, letter: _Letter, reason: str) -> None:
        """Order is kept: while this one waits, so do the others."""
        delay = min(LONGEST_S, self._first * 2.0 ** (letter.tries - 1))
        if letter.tries == 1:
            event(logging.WARNING, f"message to {self._name} not delivered, tried again: {reason}")
        with self._change:
            self._waiting.appendleft(letter)
            until = time.monotonic() + delay
            self._change.wait_for(lambda: self._closing or time.monotonic() >= until, delay)

    def _give_up(self, reason: str) -> None:
        self.failed += 1
        words = f"message to {self._name} given up: {reason}"
        event(logging.WARNING, words, remedy="`hotmatte notify` sends a test message.")
