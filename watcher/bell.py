"""A pipe in the state folder: whoever queues work from another process rings, and the daemon looks.

A lost ring costs seconds, never a job: the dispatcher looks into the journal by itself as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from watcher.errors import HostError
from watcher.pulse import Pulse

BELL = "bell"
_RING, _LOOK = b"!", b"?"
# The listener wakes by itself this often, in seconds.
TICK = 5.0


class Bell:
    """The daemon's end. `on_ring` runs in a thread of the bell's own, once for several rings in a row.

    It is told whether one of them asked to look at the folders, too.
    """

    def __init__(self, state_dir: Path, on_ring: Callable[[bool], None]) -> None:
        path = state_dir / BELL
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path, 0o660)
            # For reading and writing: opening waits for nobody, and reading never meets an end.
            self._pipe = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise HostError(f"cannot listen on {path}: {error.strerror}") from error
        if not stat.S_ISFIFO(os.fstat(self._pipe).st_mode):
            os.close(self._pipe)
            raise HostError(f"{path} is not a pipe", remedy="Move it away and start again.")
        self._on_ring = on_ring
        self._closing = threading.Event()
        self.pulse = Pulse("bell")
        self._thread = threading.Thread(target=self._listen, name="bell", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while not self._closing.is_set():
            self.pulse.beat()
            if not poll.poll(TICK * 1000):
                continue
            rings = os.read(self._pipe, 4096)
            if self._closing.is_set():
                break
            self._on_ring(_LOOK in rings)
        self.pulse.rest()

    def close(self) -> None:
        self._closing.set()
        os.write(self._pipe, _RING)
        self._thread.join()
        os.close(self._pipe)


def ring(state_dir: Path, *, folders: bool = False) -> bool:
    """Tell the daemon on `state_dir` to look into its journal now; False if none listens. Never waits.

    `folders`: and to list its folders, and try those that are paused.
    """
    try:
        pipe = os.open(state_dir / BELL, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        os.write(pipe, _LOOK if folders else _RING)
    except OSError as error:
        # Full: it has been rung often enough.
        return error.errno == errno.EAGAIN
    finally:
        os.close(pipe)
    return True
