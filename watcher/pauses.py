"""What a lane waits for: folders that cannot be worked on, or the engine. Written by any thread, read by any."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from watcher.domain import Source
from watcher.errors import RetryPolicy, SubfolderClosed, WatcherError, is_about_place
from watcher.log import event
from watcher.tally import CROWDED, ENGINE, Pause

# The longest that anything waits for by itself, in seconds.
LONGEST = 60.0


class Pauses:
    """Keys are names of folders, or ENGINE; `now` is monotonic.

    A folder may be paused for two reasons: its jobs cannot be worked on, which the first success ends;
    or they can, but its sources cannot be retired, which ends with the first that can, or by itself.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failing: dict[str, Pause] = {}
        self._keeping: dict[str, Pause] = {}
        self._shut: dict[tuple[str, str], Pause] = {}

    def failed(self, key: str, error: BaseException, now: float) -> None:
        """Wait longer each time; the first success ends it."""
        old = self._failing.get(key)
        if old is not None and old.until > now:
            return  # several jobs hit the same wall at once: that is one time
        times = old.times + 1 if old else 1
        delay = min(LONGEST, self._policy.backoff(times))
        remedy = error.remedy if isinstance(error, WatcherError) else ""
        self._failing[key] = Pause(str(error), remedy, now + delay, times)
        what = "engine" if key == ENGINE else key
        event(logging.WARNING, f"paused: {error}", folder=what, delay_s=delay, remedy=remedy)

    def shut(self, source: Source, error: BaseException, now: float) -> float:
        """Where only the sub-folder of `source` cannot be written to: for how long its photos wait; else 0."""
        if not isinstance(error, SubfolderClosed):
            return 0.0
        key = source.folder, source.relpath.rpartition("/")[0]
        old, delay = self._shut.get(key), min(LONGEST, self._policy.max_delay)
        if old is None or old.until <= now:
            event(logging.WARNING, f"waiting: {error}", folder=key[0], file=key[1], remedy=error.remedy)
        # Twice: whether it is so still is known only when one of them has been tried again.
        self._shut[key] = Pause(str(error), error.remedy, now + 2 * delay, 1)
        return delay

    def shut_in(self, now: float) -> dict[str, list[Pause]]:
        """By folder, why some of its sub-folders wait."""
        found: dict[str, list[Pause]] = {}
        for (folder, _), pause in self._shut.copy().items():
            if pause.until > now:
                found.setdefault(folder, []).append(pause)
        return found

    def worked(self, *keys: str) -> None:
        for key in keys:
            self._failing.pop(key, None)

    def retired(self, folder: str, error: WatcherError | None, now: float) -> None:
        """A source was retired, or not: where no other one can be either, more would only lie about."""
        if error is None:
            self._keeping.pop(folder, None)
        elif is_about_place(error):
            delay = min(LONGEST, self._policy.max_delay)
            self._keeping[folder] = Pause(str(error), error.remedy, now + delay, 1)

    def is_keeping(self, folder: str) -> bool:
        return folder in self._keeping

    def over(self, now: float) -> list[str]:
        """Folders whose sources are worth another try; each is named once."""
        over = [folder for folder, pause in self._keeping.copy().items() if pause.until <= now]
        for folder in over:
            self._keeping.pop(folder, None)
        return over

    def clear(self) -> None:
        self._shut.clear()
        self._failing.clear()
        self._keeping.clear()

    def closed(self, now: float) -> set[str]:
        pauses = [*self._failing.copy().items(), *self._keeping.copy().items()]
        return {key for key, pause in pauses if pause.until > now}

    def next_end(self, otherwise: float) -> float:
        pauses = [*self._failing.copy().values(), *self._keeping.copy().values()]
        return min((pause.until for pause in pauses), default=otherwise)

    def report(self, stuck: Iterable[str]) -> dict[str, Pause]:
        """All of them, and those of `stuck` folders, whose sources take for ever to be retired."""
        return dict.fromkeys(stuck, CROWDED) | self._keeping | self._failing
