"""Keeps today's contact sheets up to date beside the work. Never delays a job, never fails one."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import Any

from watcher.errors import WatcherError
from watcher.log import event
from watcher.pipeline import sheet
from watcher.pipeline.sheet import Scope
from watcher.pipeline.sheet_page import Row

# Seconds between two looks at the sheets, and at least so many times what the last one cost.
PAUSE = 10.0
_REST = 10


class SheetKeeper:
    """One thread for all hot folders that want a sheet (`scopes`, by name); `note` from any thread."""

    def __init__(self, scopes: Mapping[str, Scope], *, pause: float = PAUSE) -> None:
        self._scopes = dict(scopes)
        self._pause = pause
        self._noted: queue.SimpleQueue[tuple[str, date] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._caches: dict[str, dict[Any, Row]] = {name: {} for name in self._scopes}
        # A share that hangs must not keep the daemon from leaving.
        self._thread = threading.Thread(target=self._loop, name="contact-sheets", daemon=True)

    def start(self) -> None:
        """What the last run left undone is done first."""
        if self._scopes:
            self._thread.start()
            for name in self._scopes:
                self.note(name)

    def note(self, folder: str) -> None:
        """A job of `folder` has ended."""
        if folder in self._scopes:
            # The day it ended on: at midnight the old day's sheet still lacks its last photo.
            self._noted.put((folder, date.today()))

    def stop(self) -> None:
        self._stopping.set()
        self._noted.put(None)

    def join(self, timeout: float) -> bool:
        """False if it still hangs in a file system."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        with suppress(OSError):  # of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while not self._stopping.is_set():
            due = self._due()
            began = time.monotonic()
            for name, day in sorted(due):
                self._refresh(name, day)
            self._stopping.wait(max(self._pause, _REST * (time.monotonic() - began)))

    def _due(self) -> set[tuple[str, date]]:
        """Wait for a word, give its photo the time to be archived, then take all that have been said."""
        due = {self._noted.get()}
        self._stopping.wait(self._pause / 5)
        with suppress(queue.Empty):
            while True:
                due.add(self._noted.get_nowait())
        return {one for one in due if one is not None}

    def _refresh(self, name: str, day: date) -> None:
        if self._stopping.is_set():
            return
        scope = self._scopes[name]
        try:
            sheet.write(scope, day, scope.place(day), self._caches[name])
        except WatcherError as error:
            event(logging.WARNING, f"contact sheet not written: {error}", folder=name, remedy=error.remedy)
        except Exception as error:  # noqa: BLE001  (a sheet is no reason to stop the work)
            event(logging.ERROR, f"contact sheet not written: bug: {error!r}", folder=name)
