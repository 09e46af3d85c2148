"""The reader process: a stranger's bytes in, a Picture out. Started as `python -m watcher.pipeline.reader FD IDLE_S`.

Decoders are large programs in C that parse hostile files. Here one may crash, hang or eat memory:
whoever asked loses one photo, not the daemon. See readers.py for the other end.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import json
import mmap
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from watcher.errors import InputError
from watcher.pipeline import pixels, sniff
from watcher.pipeline.pages import KEPT_BYTES, keep_pages
from watcher.pipeline.picture import Picture

# Messages are small: pixels, profiles and metadata travel in memory that is passed along.
MESSAGE_BYTES = 65536
# Address space on top of what Python and the decoders took at their start, for threads and libraries ...
SLACK = 1 << 30
# ... and what decoders may take for a pixel: 16-bit RGBA several times over, as floats once.
BYTES_A_PIXEL = 64
_ALIGN = 64
# All pages in one go: a fault for each costs as much as the copy.
MAP_AT_ONCE = mmap.MAP_SHARED | mmap.MAP_POPULATE
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def main(argv: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    keep_pages()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)
    # LibRaw's threads too, before it is loaded: one for each of many cores would not fit the address space.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with socket.socket(fileno=int(argv[1])) as channel:
        channel.settimeout(float(argv[2]) or None)
        # Nothing to do for long, or nobody left to do it for.
        with suppress(TimeoutError, ConnectionError):
            _serve(channel)
    return 0


def _serve(channel: socket.socket) -> None:
    content, kind, area = b"", "", 0
    kept = Shared(KEPT_BYTES)
    while True:
        message, fds = receive(channel)
        if message is None:
            return
        result: list[int] = []
        try:
            if message["kind"] == "measure":
                content, kind = _taken(fds[0], message["bytes"]), ""
                _allow(SLACK + 2 * len(content))
                kind = sniff.kind_of(content)
                width, height = sniff.size_of(content, kind)
                area = width * height
                answer = {"kind": "measured", "format": kind, "width": width, "height": height}
            else:
                _allow(SLACK + 2 * len(content) + BYTES_A_PIXEL * area)
                answer, result = _read(content, kind, area, kept)
                content = b""
        except InputError as error:
            answer = _failed(type(error).__name__, str(error), error.remedy)
        except MemoryError:
            answer = _failed(
                "InputRejected", "reading it takes more memory than a photo of its size may", None
            )
        except Exception as error:  # noqa: BLE001  (crosses a process)
            answer = _failed(type(error).__name__, f"{error}", None) | {
                "trace": traceback.format_exc()[-4000:]
            }
        send(channel, answer, result)
        for fd in result:
            os.close(fd)


def _read(content: bytes, kind: str, area: int, kept: Shared) -> tuple[dict[str, Any], list[int]]:
    """The answer, and the descriptor that goes with it. What was decoded is gone when this returns."""
    if kind != "JPEG" or 3 * area <= KEPT_BYTES:
        return _laid(content, kind, kept, kept)
    with Shared(3 * area) as room:
        return _laid(content, kind, room, kept)


def _laid(content: bytes, kind: str, room: Shared, kept: Shared) -> tuple[dict[str, Any], list[int]]:
    """The same, decoded into `room` where the decoder can."""
    fields, parts, size = layout(pixels.read(content, kind, room.memory))
    told = {"kind": "picture", "fields": fields, "kept": size <= KEPT_BYTES}
    if size <= KEPT_BYTES:
        kept.fill(parts, size)
        return told, kept.given()
    with Shared(size) if room is kept else nullcontext(room) as shared:
        shared.fill(parts, size)
        return told, shared.given()


def _failed(error: str, reason: str, remedy: str | None) -> dict[str, Any]:
    return {"kind": "failed", "error": error, "reason": reason[:8000], "remedy": remedy}


def _allow(more: int) -> None:
    """Let this process have `more` bytes of address space than it has now: a MemoryError beats the OOM killer."""
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * mmap.PAGESIZE
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = taken + more
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most < 0 else min(wanted, most), most))


def _taken(fd: int, count: int) -> bytes:
    try:
        with mmap.mmap(fd, count, prot=mmap.PROT_READ) as mapped:
            return bytes(mapped)
    finally:
        os.close(fd)


# --- What both ends speak ------------------------------------------------------------------


def send(channel: socket.socket, message: Mapping[str, Any], fds: list[int]) -> None:
    """One message (JSON) with file descriptors, which stay the sender's to close."""
    socket.send_fds(channel, [json.dumps(message).encode()], fds)


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; None at the end. Raises ValueError where it is no message."""
    body, fds, flags, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1)
    if not body:
        return None, []
    if flags & socket.MSG_CTRUNC:  # it came with one descriptor at most, and that is lost
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if flags & socket.MSG_TRUNC:
        raise ValueError("a message that is too long")
    return json.loads(body), fds


Part = tuple[int, "bytes | np.ndarray[Any, Any]"]


def layout(picture: Picture) -> tuple[dict[str, Any], list[Part], int]:
    """Where each field of `picture` lies, what goes there, and how many bytes that takes in all."""
    fields: dict[str, Any] = {}
    parts: list[Part] = []
    end = 0
    for field in dataclasses.fields(picture):
        value = getattr(picture, field.name)
        if isinstance(value, np.ndarray):
            fields[field.name] = {"at": end, "shape": value.shape, "dtype": value.dtype.name}
            length = value.nbytes
        elif isinstance(value, bytes):
            fields[field.name] = {"at": end, "bytes": len(value)}
            length = len(value)
        else:
            fields[field.name] = value
            continue
        parts.append((end, value))
        end = -(-(end + length) // _ALIGN) * _ALIGN
    return fields, parts, max(1, end)


class Shared:
    """An anonymous file, to be passed along once. `memory`: so much of it as was asked for."""

    def __init__(self, size: int) -> None:
        self._fd = os.memfd_create("hotmatte-picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._fd, size)
            self.memory = mmap.mmap(
                self._fd, size, flags=mmap.MAP_SHARED if size <= KEPT_BYTES else MAP_AT_ONCE
            )
        except OSError as error:
            os.close(self._fd)
            if error.errno == errno.ENOMEM:
                raise MemoryError from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.given():
            os.close(fd)
        # A view in the traceback of what went wrong keeps it until that goes.
        with suppress(BufferError):
            self.memory.close()

    def fill(self, parts: list[Part], size: int) -> None:
        """Put the parts where they belong, unless they lie there; before it is given, the file grows to `size`."""
        memory = self.memory
        if size > len(memory):
            os.ftruncate(self._fd, size)
            memory = mmap.mmap(self._fd, size)
        for at, value in parts:
            if isinstance(value, bytes):
                memory[at : at + len(value)] = value
            elif value.ctypes.data != np.frombuffer(self.memory, np.uint8).ctypes.data + at:
                np.ndarray(value.shape, value.dtype, memory, at)[...] = value

    def given(self) -> list[int]:
        """Its descriptor, the first time: now the receiver's to keep, and the caller's to close."""
        fd, self._fd = self._fd, -1
        return [] if fd < 0 else [fd]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
