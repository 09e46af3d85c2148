"""The reader process: a stranger's bytes in, a Picture out. Started as `python -m watcher.pipeline.reader FD IDLE_S`.

Decoders are large programs in C that parse hostile files. Here one may crash, hang or eat memory:
whoever asked loses one photo, not the daemon. See readers.py for the other end.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import resource
import select
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2

from watcher.errors import InputError
from watcher.pipeline import apart, parcel, pixels, sniff
from watcher.pipeline.channel import receive, send
from watcher.pipeline.pages import KEPT_BYTES, keep_pages
from watcher.pipeline.picture import Picture
from watcher.pipeline.rooms import METADATA_BYTES, Kept, Part, Room, Rooms

# Address space on top of what Python and the decoders took at their start, for threads and libraries ...
SLACK = 1 << 30
# ... and what decoders may take for a pixel: 16-bit RGBA several times over, as floats once.
BYTES_A_PIXEL = 64
# What pixels of a small picture take at most, 16-bit RGBA: it is read as soon as it is measured.
SMALL_PIXEL = 8
# Seconds without a message after which the memory of large pictures is left to others.
FORGET_S = 3.0


def main(argv: list[str]) -> int:
    apart.begin()
    keep_pages()
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
    kept, rooms = Kept(), Rooms()
    while True:
        _wait(channel, rooms)
        message, fds = receive(channel)
        if message is None:
            return
        result: list[int] = []
        try:
            rooms.take_back(message["free"])
            if message["kind"] == "measure":
                content, kind = _taken(fds[0], message["bytes"]), ""
                _allow(SLACK + 2 * len(content))
                kind = sniff.kind_of(content)
                width, height = sniff.size_of(content, kind)
                area = width * height
                measure = {"format": kind, "width": width, "height": height}
                if SMALL_PIXEL * area + METADATA_BYTES <= KEPT_BYTES:
                    # Into memory that is there anyway: to be asked once more would take longer than to be told no.
                    answer, result = _read(content, kind, area, kept, rooms)
                    content, answer = b"", answer | measure
                else:
                    answer = {"kind": "measured"} | measure
            else:
                answer, result = _read(content, kind, area, kept, rooms)
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


def _wait(channel: socket.socket, rooms: Rooms) -> None:
    """For the next message, but not with memory that others could use."""
    if rooms and not select.select([channel], [], [], FORGET_S)[0]:
        rooms.forget()


def _read(content: bytes, kind: str, area: int, kept: Kept, rooms: Rooms) -> tuple[dict[str, Any], list[int]]:
    """The answer, and the descriptor that goes with it. What was decoded is gone when this returns."""
    _allow(SLACK + 2 * len(content) + BYTES_A_PIXEL * area)
    fields, room = _laid(content, kind, area, kept, rooms)
    told = {"kind": "picture", "fields": fields}
    if room is kept:
        return told | {"room": None}, kept.first_descriptor()
    number, descriptor = rooms.give(room)
    return told | {"room": number}, [descriptor]


def _laid(content: bytes, kind: str, area: int, kept: Kept, rooms: Rooms) -> tuple[dict[str, Any], Room]:
    """The fields of the picture, and where it is: decoded right there, where the decoder can."""
    large = kind == "JPEG" and 3 * area > KEPT_BYTES
    room: Room = rooms.fitting(3 * area + METADATA_BYTES) if large else kept
    fields, parts, size = _packed(pixels.read(content, kind, room.memory))
    if size <= KEPT_BYTES:
        room = kept
    elif room is kept or size > room.size:
        room = rooms.fitting(size)
    room.fill(parts)
    return fields, room


def _packed(picture: Picture) -> tuple[dict[str, Any], list[Part], int]:
    return parcel.packed({field.name: getattr(picture, field.name) for field in dataclasses.fields(picture)})


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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
