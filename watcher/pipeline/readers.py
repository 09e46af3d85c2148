"""Reader processes, on the daemon's side: borrowed, asked, and killed where they do not answer. See reader.py."""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

import watcher
from watcher import errors
from watcher.errors import HostError, InputError, InputNotReady, InputRejected, host_error
from watcher.log import event
from watcher.pipeline import pixels, reader, sniff
from watcher.pipeline.picture import Picture
from watcher.pipeline.rooms import mapped

_F_ADD_SEALS, _SEAL_SHRINK, _SEAL_GROW = 1033, 2, 4
# What the start of a reader takes: Python, NumPy, OpenCV and the decoders.
START_S = 0.25
# Threads that wait lose nothing while others use the cores, as they do when a folder is full of photos. So more of it
# is borne than a start would cost: eight photos of 24 megapixels at once, on two threads, wait for half a second.
PATIENCE_S = 4 * START_S
_ROOT = Path(watcher.__file__).parents[1]


class Reading(Protocol):
    """One file on its way to being a picture: first its measure, then, if that is wanted, its pixels."""

    def measure(self) -> tuple[str, int, int]: ...
    def picture(self) -> Picture: ...


class Reads(Protocol):
    """Whoever turns bytes into pictures."""

    def opened(self, content: bytes) -> AbstractContextManager[Reading]: ...


class _Gone(Exception):
    """The process is not there any more; its exit status."""


class _Reader:
    """One reader process and the conversation with it, for one thread at a time."""

    def __init__(self, *, idle_s: float) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "watcher.pipeline.reader", str(theirs.fileno()), str(idle_s)]
            env = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
            }
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=env,
                )
            except OSError as error:
                ours.close()
                raise HostError(
                    f"cannot start a process that reads photos: {error.strerror or error}"
                ) from error
        self._channel = ours
        self.keeps = idle_s == 0
        self.fresh = True
        self.kept: mmap.mmap | None = None
        # Rooms whose pictures are gone; whoever lets go of the last view says so, in whatever thread.
        self._freed: deque[int] = deque()

    def ask(
        self, message: Mapping[str, Any], *, fds: list[int], deadline: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Raises TimeoutError after `deadline` (monotonic), _Gone, or ValueError for nonsense."""
        try:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            reader.send(self._channel, message, fds)
            answer, given = reader.receive(self._channel)
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise
            raise _Gone from error
        if answer is None:
            raise _Gone
        self.fresh = False
        return answer, given

    def take(self, fd: int, room: Any) -> mmap.mmap:
        """The memory with the picture; when the last view of it is gone, `room` may have the next one."""
        try:
            memory = _mapped(fd)
        except OSError:
            self._freed.append(room)
            raise
        weakref.finalize(memory, self._freed.append, room)
        return memory

    def freed(self) -> list[int]:
        """Rooms that were freed since this was asked."""
        return [self._freed.popleft() for _ in range(len(self._freed))]

    def close(self) -> int:
        """End it, now; its exit status. Safe to call twice."""
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(0.5)
        self._process.kill()
        return self._process.wait()

    def kill(self) -> int:
        self._process.kill()
        return self.close()


class Readers:
    """A pool that grows, by need, to the number of threads that read at one time. Thread-safe.

    `timeout`: seconds that one photo may take. One process stays for the next photo; the others
    leave by themselves after `idle_s` seconds with nothing to do. One more is started when threads have
    waited for `patience` seconds together, without a moment in which one of the processes was free.
    """

    def __init__(self, *, timeout: float, idle_s: float = 60.0, patience: float = PATIENCE_S) -> None:
        self._timeout = timeout
        self._idle_s = idle_s
        self._patience = patience
        self._changed = threading.Condition()
        # All below are guarded by it.
        self._idle = [_Reader(idle_s=0)]
        self._waiting = 0
        self._waited = 0.0  # seconds, all threads together, since the last start or free process ...
        self._tallied = 0.0  # ... up to this time, monotonic
        self._closed = False

    @contextmanager
    def opened(self, content: bytes) -> Iterator[Reading]:
        """A reading of `content`. Its methods raise InputRejected, InputNotReady or HostError."""
        reading = _Reading(self, content, self._timeout)
        try:
            yield reading
        finally:
            reading.end()

    def borrow(self) -> _Reader:
        """The one that was used last, so that the others may leave; or a new one, where waiting costs as much."""
        with self._changed:
            if self._idle:
                self._waited = 0.0
            self._tally(+1)
            try:
                while not self._idle and not self._closed:
                    if self._waited >= self._patience:
                        self._waited = 0.0
                        break
                    self._changed.wait((self._patience - self._waited) / self._waiting)
                    self._tally(0)
            finally:
                self._tally(-1)
            if self._idle:
                return self._idle.pop()
        return _Reader(idle_s=self._idle_s)

    def give_back(self, process: _Reader) -> None:
        with self._changed:
            if not self._closed:
                # The one that keeps the seat goes to the end of the list, where it is taken first.
                self._idle.append(process)
                self._idle.sort(key=lambda one: one.keeps)
                self._changed.notify()
                return
        process.close()

    def _tally(self, more: int) -> None:
        """Add up what those who wait have waited; `more` of them from now on."""
        now = time.monotonic()
        self._waited += self._waiting * (now - self._tallied)
        self._tallied = now
        self._waiting += more

    def replace(self, process: _Reader) -> None:
        """`process` is dead; the seat stays warm."""
        if process.keeps:
            self.give_back(_Reader(idle_s=0))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for process in idle:
            process.close()


class _Reading:
    """One photo with one process: measure, then picture."""

    def __init__(self, readers: Readers, content: bytes, timeout: float) -> None:
        self._readers = readers
        self._content = content
        self._timeout = timeout
        self._process: _Reader | None = None

    def measure(self) -> tuple[str, int, int]:
        """Format, width and height as the header has them."""
        if not self._content:
            sniff.kind_of(self._content)
        fd = os.memfd_create("hotmatte-source", os.MFD_CLOEXEC)
        try:
            _write(fd, self._content)
            count, self._content = len(self._content), b""
            answer, _ = self._ask({"kind": "measure", "bytes": count}, [fd])
        finally:
            os.close(fd)
        return str(answer["format"]), int(answer["width"]), int(answer["height"])

    def picture(self) -> Picture:
        """What `pixels.read` makes of it, in memory of its own."""
        process = self._process
        assert process is not None
        answer, fds = self._ask({"kind": "read", "free": process.freed()}, [])
        with _closing(fds):
            try:
                if (room := answer["room"]) is not None:
                    return _picture(answer["fields"], process.take(fds[0], room), copies=False)
                if fds:
                    process.kept = _mapped(fds[0])
                # The next picture will be written over this one.
                return _picture(answer["fields"], process.kept, copies=True)
            except (OSError, ValueError, TypeError, LookupError) as error:
                if isinstance(error, OSError) and (host := host_error(error, "take the picture over")):
                    raise host from error
                raise InputNotReady(f"the process that read it answered nonsense ({error})") from error

    def end(self) -> None:
        if self._process is not None:
            self._readers.give_back(self._process)
            self._process = None

    def _ask(self, message: Mapping[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        while True:
            if self._process is None:
                self._process = self._readers.borrow()
            process, fresh = self._process, self._process.fresh
            try:
                answer, given = process.ask(message, fds=fds, deadline=time.monotonic() + self._timeout)
            except TimeoutError:
                self._lose().kill()
                self._readers.replace(process)
                raise InputRejected(
                    f"reading it took longer than {self._timeout:g} s, and was stopped",
                    remedy="Export the photo again, or raise limits.decode_timeout_s, then `hotmatte retry`.",
                ) from None
            except OSError as error:
                # The picture is lost, and the memory it was in: the process has to begin anew.
                self._lose().kill()
                self._readers.replace(process)
                raise HostError(f"cannot take the picture over: {error.strerror or error}") from error
            except (_Gone, ValueError) as error:
                status = self._lose().kill()
                self._readers.replace(process)
                # It had left for want of work just when it was borrowed.
                if isinstance(error, _Gone) and not fresh and status == 0 and message["kind"] == "measure":
                    continue
                if isinstance(error, ValueError):
                    raise InputNotReady(f"the process that read it answered nonsense ({error})") from None
                raise _death(status) from None
            if answer["kind"] == "failed":
                with _closing(given):
                    _complain(answer)
            return answer, given

    def _lose(self) -> _Reader:
        process, self._process = self._process, None
        assert process is not None
        return process


def _death(status: int) -> InputNotReady:
    if status == -signal.SIGKILL:  # not by us: that is said where it is done
        return InputNotReady(
            "the process that read it was killed (signal 9), as a rule by the kernel for want of memory",
            remedy="Raise MemoryMax= of the service, or lower limits.max_in_flight_mp; then `hotmatte retry`.",
        )
    return InputNotReady(
        f"the process that read it died ({_words(status)})",
        remedy="Export the photo again; if others fail as well, look at the memory of this machine.",
    )


def _words(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _complain(answer: Mapping[str, Any]) -> NoReturn:
    kind = getattr(errors, str(answer["error"]), None)
    if isinstance(kind, type) and issubclass(kind, InputError):
        raise kind(str(answer["reason"]), remedy=answer["remedy"])
    event(logging.WARNING, f"a decoder failed: {answer.get('trace') or answer['reason']}")
    raise InputRejected(f"its decoder failed: {answer['error']}: {answer['reason']}")


@contextmanager
def _closing(fds: list[int]) -> Iterator[None]:
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


def _write(fd: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def _mapped(fd: int) -> mmap.mmap:
    # A reader that a hostile photo took over must not be able to pull the memory away from under us.
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW)
    return mapped(fd, os.fstat(fd).st_size)


def _picture(fields: Mapping[str, Any], memory: mmap.mmap | None, *, copies: bool) -> Picture:
    """The picture in `memory`; arrays are views of it unless `copies`. Raises where it does not add up."""
    if memory is None:
        raise ValueError("a picture in no memory")
    picture = Picture(**{name: _field(memory, value, copies) for name, value in fields.items()})
    _check(picture)
    return picture


def _field(memory: mmap.mmap, value: Any, copies: bool) -> Any:
    match value:
        case {"at": int() as at, "bytes": int() as count}:
            return memory[at : at + count]
        case {"at": int() as at, "shape": list() as shape, "dtype": "uint8" | "uint16" as dtype}:
            array = np.ndarray(tuple(shape), dtype, memory, at)
            return array.copy() if copies else array
        case list() if value and all(isinstance(item, float | int) for item in value):
            return tuple(value)
        case {}:
            raise ValueError("a field of an unknown kind")
    return value


def _check(picture: Picture) -> None:
    shape, opacity = picture.pixels.shape, picture.opacity
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"pixels of shape {shape}")
    if opacity is not None and (opacity.shape != shape[:2] or opacity.dtype != picture.pixels.dtype):
        raise ValueError(f"opacity of shape {opacity.shape}")


class Inline:
    """Reads right here: for benchmarks of the decoders, and for pictures of our own."""

    @contextmanager
    def opened(self, content: bytes) -> Iterator[Reading]:
        yield _Plain(content)


INLINE = Inline()


class _Plain:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._kind = ""

    def measure(self) -> tuple[str, int, int]:
        self._kind = sniff.kind_of(self._content)
        return self._kind, *sniff.size_of(self._content, self._kind)

    def picture(self) -> Picture:
        return pixels.read(self._content, self._kind)
