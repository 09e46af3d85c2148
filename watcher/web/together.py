"""What several threads ask for at the same time is asked for once: a commit waits for the disk, whatever is in it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Wish(Generic[T, R]):
    what: T
    answer: R | None = None
    error: BaseException | None = None
    done: bool = False


class Together(Generic[T, R]):
    """`many` answers a list of wishes, in their order; each caller gets the answer to his own."""

    def __init__(self, many: Callable[[list[T]], list[R]]) -> None:
        self._many = many
        self._wishes: deque[_Wish[T, R]] = deque()
        self._turn = threading.Lock()

    def __call__(self, what: T) -> R:
        """Raises what `many` raises, for everybody who was in the same list."""
        wish: _Wish[T, R] = _Wish(what)
        self._wishes.append(wish)
        with self._turn:
            if not wish.done:
                self._grant()
        if wish.error is not None:
            raise wish.error
        return wish.answer  # type: ignore[return-value]

    def _grant(self) -> None:
        wishes = [self._wishes.popleft() for _ in range(len(self._wishes))]
        try:
            for wish, answer in zip(wishes, self._many([wish.what for wish in wishes]), strict=True):
                wish.answer = answer
        except BaseException as error:  # noqa: BLE001  (crosses threads)
            for wish in wishes:
                wish.error = error
        for wish in wishes:
            wish.done = True
