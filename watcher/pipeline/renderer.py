"""The process that renders: pixels and an alpha in, the bytes of the results out.

Started as `python -m watcher.pipeline.renderer FD IDLE_S CACHE now|later`: when compiled loops are loaded from CACHE. See renderers.py for the other end.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2

from watcher.domain import as_json
from watcher.errors import HostError, InputError, host_error
from watcher.pipeline import apart, parcel
from watcher.pipeline.channel import receive, send, shut
from watcher.pipeline.compiled import compile_all
from watcher.pipeline.compiler import call_each_kernel
from watcher.pipeline.order import order_of
from watcher.pipeline.pages import BLOCKS, KEPT_BYTES, keep_pages
from watcher.pipeline.render import Rendered, render
from watcher.pipeline.rooms import Memory, Room

# Seconds without a message after which memory is left to others.
FORGET_S = 3.0
# The daemon that hands out the work, its engines and its readers come first: else all cores render, and nobody brings more.
_NICE = 5


def main(argv: list[str]) -> int:
    apart.begin()
    os.nice(_NICE)
    keep_pages()
    cv2.setNumThreads(1)
    with socket.socket(fileno=int(argv[1])) as channel:
        channel.settimeout(float(argv[2]) or None)
        # Nothing to do for long, or nobody left to do it for.
        with suppress(TimeoutError, ConnectionError):
            _serve(channel, Path(argv[3]), warm=argv[4] == "now")
    return 0


def _serve(channel: socket.socket, cache: Path, *, warm: bool) -> None:
    results, room = _Results(), None
    if warm:
        try:
            compile_all(call_each_kernel, cache)
        except (OSError, ImportError):  # such as too few files that may be open: again with the first photo
            warm = False
    while True:
        if not select.select([channel], [], [], FORGET_S)[0]:
            BLOCKS.forget()
            results.forget()
        message, fds = receive(channel)
        if message is None:
            return
        if message["room"] is not None:
            if room is not None:
                room.close()
            room = Room(message["room"], fds.pop(0))
        assert room is not None
        try:
            if not warm:
                compile_all(call_each_kernel, cache)
                warm = True
            answer = _rendered(message["fields"], room, fds, results)
        except (InputError, HostError) as error:
            cause = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
            answer = _failed(type(error).__name__, str(error), error.remedy) | {"errno": cause}
        except OSError as error:
            host = host_error(error, "render a photo")
            remedy = None if host is None else host.remedy
            answer = _failed(type(host or error).__name__, str(host or error), remedy) | {
                "errno": error.errno
            }
        except MemoryError:
            answer = _failed("InputNotReady", "there was not enough memory to render it", _MEMORY)
        except Exception as error:  # noqa: BLE001  (crosses a process)
            answer = _failed(type(error).__name__, str(error), None) | {
                "trace": traceback.format_exc()[-4000:]
            }
        finally:
            shut(fds)
        send(channel, answer, results.first_descriptor())


_MEMORY = "Give hotmatte more memory, or lower limits.threads; then `hotmatte retry`."


def _failed(error: str, reason: str, remedy: str | None) -> dict[str, Any]:
    return {"kind": "failed", "error": error, "reason": reason[:8000], "remedy": remedy}


def _rendered(fields: dict[str, Any], room: Room, fds: list[int], results: _Results) -> dict[str, Any]:
    """The answer to what lies there. All that was made for it is gone when this returns."""
    picture = Memory.of(fds[0]) if fds else None
    frame, answer, style = order_of(parcel.unpacked(fields, room.memory, picture))
    timings: dict[str, float] = {}
    return _told(render(frame, answer, style, timings=timings), timings, results)


def _told(rendered: Rendered, timings: dict[str, float], results: _Results) -> dict[str, Any]:
    return {
        "kind": "rendered",
        "contents": [
            (content.suffix, at, len(content.body), content.sha256)
            for content, at in zip(
                rendered.contents, results.fill([c.body for c in rendered.contents]), strict=True
            )
        ],
        "review": as_json(rendered.review),
        "lost": rendered.lost,
        "timings": timings,
    }


class _Results:
    """A file with what became of the last photo."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("hotmatte-results", os.MFD_CLOEXEC)
        self._given = False

    def fill(self, bodies: list[bytes | memoryview]) -> list[int]:
        """Where each of them is."""
        self.forget()
        places, end = [], 0
        for body in bodies:
            places.append(end)
            left = memoryview(body)
            while left:
                count = os.pwrite(self._fd, left, end)
                left, end = left[count:], end + count
        return places

    def first_descriptor(self) -> list[int]:
        """For the first answer: the other end keeps it."""
        if self._given:
            return []
        self._given = True
        return [self._fd]

    def forget(self) -> None:
        """Pages are kept, but not those of large photos."""
        if os.fstat(self._fd).st_size > KEPT_BYTES:
            os.ftruncate(self._fd, KEPT_BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
