"""Reader processes, on the daemon's side: borrowed, asked, and killed where they do not answer. See reader.py."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, Protocol

import numpy as np

from watcher import errors
from watcher.errors import HostError, InputError, InputNotReady, InputRejected, host_error
from watcher.log import event
from watcher.pipeline import parcel, pixels, sniff
from watcher.pipeline.aides import Aide, Aides, Gone, death
from watcher.pipeline.channel import shut
from watcher.pipeline.picture import Picture
from watcher.pipeline.rooms import Memory, mapped

_F_ADD_SEALS, _SEAL_SHRINK, _SEAL_GROW = 1033, 2, 4
# What the start of a reader takes: Python, NumPy, OpenCV and the decoders.
START_S = 0.25
# Threads that wait lose nothing while others use the cores, as they do when a folder is full of photos. So more of it
# is borne than a start would cost: eight photos of 24 megapixels at once, on two threads, wait for half a second.
PATIENCE_S = 4 * START_S


class Reading(Protocol):
    """One file on its way to being a picture: first its measure, then, if that is wanted, its pixels."""

    def measure(self) -> tuple[str, int, int]: ...
    def picture(self) -> Picture: ...


class Reads(Protocol):
    """Whoever turns bytes into pictures."""

    def opened(self, content: bytes) -> AbstractContextManager[Reading]: ...


class _Reader(Aide):
    """A reader process: see reader.py."""

    def __init__(self, idle_s: float) -> None:
        super().__init__("watcher.pipeline.reader", does="reads photos", idle_s=idle_s)
        self.kept: mmap.mmap | None = None
        # Rooms whose pictures are gone; whoever lets go of the last view says so, in whatever thread.
        self._freed: deque[int] = deque()

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


class Readers:
    """A pool of reader processes, as many as threads read at one time (see Aides). Thread-safe.

    `timeout`: seconds that one photo may take.
    """

    def __init__(self, *, timeout: float, idle_s: float = 60.0, patience: float = PATIENCE_S) -> None:
        self._timeout = timeout
        self._aides = Aides(_Reader, idle_s=idle_s, patience=patience)

    @contextmanager
    def opened(self, content: bytes) -> Iterator[Reading]:
        """A reading of `content`. Its methods raise InputRejected, InputNotReady or HostError."""
        reading = _Reading(self._aides, content, self._timeout)
        try:
            yield reading
        finally:
            reading.end()

    def close(self) -> None:
        self._aides.close()


class _Reading:
    """One photo with one process: measure, then picture."""

    def __init__(self, readers: Aides[_Reader], content: bytes, timeout: float) -> None:
        self._readers = readers
        self._content = content
        self._timeout = timeout
        self._process: _Reader | None = None
        self._read: tuple[dict[str, Any], list[int]] | None = None  # a small one, with the measure

    def measure(self) -> tuple[str, int, int]:
        """Format, width and height as the header has them."""
        if not self._content:
            sniff.kind_of(self._content)
        fd = os.memfd_create("hotmatte-source", os.MFD_CLOEXEC)
        try:
            _write(fd, self._content)
            count, self._content = len(self._content), b""
            answer, given = self._ask({"kind": "measure", "bytes": count}, [fd])
        finally:
            os.close(fd)
        if answer["kind"] == "picture":
            self._read = answer, given
        return str(answer["format"]), int(answer["width"]), int(answer["height"])

    def picture(self) -> Picture:
        """What `pixels.read` makes of it, in memory of its own."""
        process = self._process
        assert process is not None
        if self._read is None:
            self._read = self._ask({"kind": "read"}, [])
        (answer, fds), self._read = self._read, None
        with _closing(fds):
            try:
                if (room := answer["room"]) is not None:
                    return _picture(answer["fields"], process.take(fds[0], room), copies=False)
                if fds:
                    self._keep(process, fds[0])
                # The next picture will be written over this one.
                return _picture(answer["fields"], process.kept, copies=True)
            except (OSError, ValueError, TypeError, LookupError) as error:
                if isinstance(error, OSError) and (host := host_error(error, "take the picture over")):
                    raise host from error
                raise InputNotReady(f"the process that read it answered nonsense ({error})") from error

    def _keep(self, process: _Reader, fd: int) -> None:
        try:
            _seal(fd)
            process.kept = mapped(fd, os.fstat(fd).st_size)
        except OSError:
            # It is given once: without it no picture of this process could be read.
            self._lose().kill()
            self._readers.replace(process)
            raise

    def end(self) -> None:
        if self._process is None:
            return
        process = self._lose()
        if self._read is not None and self._read[1]:
            # Refused for its measure, and with it came what is given once: see `_keep`.
            shut(self._read[1])
            process.kill()
            self._readers.replace(process)
        else:
            self._readers.give_back(process)

    def _ask(self, message: Mapping[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        while True:
            if self._process is None:
                self._process = self._readers.borrow()
            process, fresh = self._process, self._process.fresh
            try:
                told, deadline = {**message, "free": process.freed()}, time.monotonic() + self._timeout
                answer, given = process.ask(told, fds=fds, deadline=deadline)
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
            except (Gone, ValueError) as error:
                status = self._lose().kill()
                self._readers.replace(process)
                # It had left for want of work just when it was borrowed.
                if isinstance(error, Gone) and not fresh and status == 0 and message["kind"] == "measure":
                    continue
                if isinstance(error, ValueError):
                    raise InputNotReady(f"the process that read it answered nonsense ({error})") from None
                raise death(status, "read") from None
            if answer["kind"] == "failed":
                with _closing(given):
                    _complain(answer)
            return answer, given

    def _lose(self) -> _Reader:
        process, self._process = self._process, None
        assert process is not None
        return process


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


def _mapped(fd: int) -> Memory:
    _seal(fd)
    return Memory.of(fd)


def _seal(fd: int) -> None:
    # A reader that a hostile photo took over must not be able to pull the memory away from under us.
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW)


def _picture(fields: Mapping[str, Any], memory: mmap.mmap | None, *, copies: bool) -> Picture:
    """The picture in `memory`; arrays are views of it unless `copies`. Raises where it does not add up."""
    if memory is None:
        raise ValueError("a picture in no memory")
    picture = Picture(**parcel.unpacked(fields, memory, copies=copies))
    _check(picture)
    return picture


def _check(picture: Picture) -> None:
    shape, opacity = picture.pixels.shape, picture.opacity
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or picture.pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels of shape {shape} and type {picture.pixels.dtype}")
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
