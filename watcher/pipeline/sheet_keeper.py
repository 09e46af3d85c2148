"""Keeps today's contact sheets up to date beside the work. Never delays a job, never fails one."""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import date

from watcher.errors import WatcherError
from watcher.log import event
from watcher.pipeline.apart import environment
from watcher.pipeline.sheet import Scope
from watcher.pipeline.sheet_writer import words_of

# Seconds between two looks at the sheets, and at least so many times what the last one took.
PAUSE = 10.0
REST = 4.0
# Seconds after which a writer hangs; a page of 480 large photos takes some minutes.
PATIENCE = 1800.0


class SheetKeeper:
    """One thread for all hot folders that want a sheet (`scopes`, by name); `note` from any thread."""

    def __init__(self, scopes: Mapping[str, Scope], *, pause: float = PAUSE, rest: float = REST) -> None:
        self._scopes = dict(scopes)
        self._pause = pause
        self._rest = rest
        self._noted: queue.SimpleQueue[tuple[str, date] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
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
        """False if it has not left within `timeout` seconds: its process hangs in a share."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            due = self._due()
            began = time.monotonic()
            for name, day in sorted(due):
                self._refresh(name, day)
            self._stopping.wait(max(self._pause, self._rest * (time.monotonic() - began)))

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
        reason, remedy = self._written(self._scopes[name], day)
        if reason and not self._stopping.is_set():
            event(logging.WARNING, f"contact sheet not written: {reason}", folder=name, remedy=remedy)

    def _written(self, scope: Scope, day: date) -> tuple[str, str]:
        """Have a process write it; why it could not, and what to do."""
        command = [sys.executable, "-m", "watcher.pipeline.sheet_writer"]
        command += [json.dumps(words_of(scope)), day.isoformat()]
        try:
            writer = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )
        except OSError as error:
            return f"its process cannot be started: {error.strerror or error}", WatcherError.remedy
        with writer:
            said = self._heard(writer)
        return _reason(writer.returncode, said)

    def _heard(self, writer: subprocess.Popen[bytes]) -> bytes:
        """What it said, once it is gone: by itself, or because there is no more time for it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return writer.communicate(timeout=0.2)[0]
            except subprocess.TimeoutExpired:
                if self._stopping.is_set() or time.monotonic() > deadline:
                    # Publishing is atomic: the page that was being written is the old one still.
                    writer.kill()
                    return writer.communicate()[0]


def _reason(status: int, said: bytes) -> tuple[str, str]:
    if status == 0:
        return "", ""
    try:
        words = json.loads(said)
        return str(words["error"]), str(words["remedy"])
    except (ValueError, LookupError, TypeError):
        return f"its process ended with {status}", "Run `hotmatte sheet` to see why."
