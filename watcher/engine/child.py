"""A worker process as the daemon sees it: spawned, listened to, ended, buried. Knows no protocol."""

from __future__ import annotations

import collections
import logging
import os
import queue
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence

from watcher.errors import HostError
from watcher.threads import start

logger = logging.getLogger("hotmatte.engine")

_KEPT_LINES = 200
_SHOWN_LINES = 8


class Child:
    """One process. `inbox` is its stdin, `outbox` its stdout, as file descriptors.

    It is spawned by the thread that then reads its stderr: the kernel's parent-death signal
    follows the spawning *thread*, so that thread must live as long as the process.
    """

    def __init__(self, command: Sequence[str], *, fds: Sequence[int], env: Mapping[str, str]) -> None:
        """Raises OSError where the command cannot be started, HostError where no thread can be."""
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._over = os.eventfd(0)
        born: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._live, args=(command, tuple(fds), env, born), name="engine-worker", daemon=True
        )
        try:
            start(self._thread)
        except HostError:
            os.close(self._over)
            raise
        child = born.get()
        if isinstance(child, OSError):
            self._thread.join()
            os.close(self._over)
            raise child
        self._process = child
        assert child.stdin and child.stdout
        self.inbox, self.outbox = child.stdin.fileno(), child.stdout.fileno()
        self.buried = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, from any thread, at any time; whoever waits for the process sees it go."""
        self._process.kill()

    def bury(self, *, grace: float) -> None:
        """Hang up, wait `grace` seconds, kill, and give back all it held. Safe to call twice."""
        if self.buried:
            return
        self.buried = True
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._process.stdin.close()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Not the end of stderr: a grandchild may hold it open for ever.
        os.eventfd_write(self._over, 1)
        self._thread.join()
        self._process.stdout.close()
        self._process.stderr.close()
        os.close(self._over)

    def epitaph(self) -> str:
        """How it ended and its last words. Only after `bury`."""
        words = "\n".join(list(self._lines)[-_SHOWN_LINES:])
        ended = _ended(self._process.returncode)
        return f"{ended}; its last words:\n{words}" if words else ended

    def _live(
        self,
        command: Sequence[str],
        fds: tuple[int, ...],
        env: Mapping[str, str],
        born: queue.SimpleQueue[subprocess.Popen[bytes] | OSError],
    ) -> None:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                env=env,
                bufsize=0,
            )
        except OSError as error:
            born.put(error)
            return
        born.put(process)
        assert process.stderr
        self._listen(process.stderr.fileno())

    def _listen(self, stderr: int) -> None:
        """Read stderr until told that all is over, so that the worker never blocks on its log."""
        os.set_blocking(stderr, False)
        poller = select.poll()
        poller.register(stderr, select.POLLIN)
        poller.register(self._over, select.POLLIN)
        rest, over, open_ = b"", False, True
        while not over or open_:
            over = over or any(fd == self._over for fd, _ in poller.poll())
            if not open_:
                continue
            piece = _read(stderr)
            if piece:
                rest = self._note(rest + piece)
            elif piece == b"" or over:
                open_ = False
                poller.unregister(stderr)
        self._note(rest + b"\n" if rest else b"")

    def _note(self, text: bytes) -> bytes:
        """Keep and log the whole lines; return what has no end yet (bounded)."""
        *lines, rest = text.split(b"\n")
        for line in lines:
            shown = line.decode("utf-8", "replace").rstrip()[:1000]
            if shown:
                self._lines.append(shown)
                logger.debug("worker %s", shown)
        return rest[-65536:]


def _read(fd: int) -> bytes | None:
    """What is there; b"" at the end, None if there is nothing yet."""
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None


def _ended(status: int | None) -> str:
    if status is None or status >= 0:
        return f"it exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (perhaps by the kernel, out of memory)" if status == -signal.SIGKILL else ""
    return f"it was killed by {name}{hint}"
