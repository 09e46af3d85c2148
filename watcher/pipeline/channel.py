"""What the daemon and its aides speak: small messages (JSON) with descriptors of the memory they are about."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# Messages are small: pixels, profiles and metadata travel in memory that is passed along.
MESSAGE_BYTES = 65536
# Descriptors that a message may come with.
MOST_DESCRIPTORS = 2


def send(channel: socket.socket, message: Mapping[str, Any], fds: list[int]) -> None:
    """One message with file descriptors, which stay the sender's to close."""
    socket.send_fds(channel, [json.dumps(message).encode()], fds)


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; None at the end. Raises ValueError where it is no message."""
    body, fds, flags, _ = socket.recv_fds(channel, MESSAGE_BYTES, MOST_DESCRIPTORS)
    if not body:
        return None, []
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        shut(fds)
        if flags & socket.MSG_CTRUNC:  # never more than there is room for: descriptors have run out
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        raise ValueError("a message that is too long")
    try:
        return json.loads(body), fds
    except ValueError:
        shut(fds)
        raise


def wait_at_most(channel: socket.socket, seconds: float) -> None:
    """From now on `send` and `receive` raise BlockingIOError after so long.

    The kernel waits: with a time-out of Python's, each of them would be two calls that give Python's lock away.
    """
    whole, part = divmod(max(0.001, seconds), 1)
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        channel.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(whole), int(part * 1e6) or 1))


def shut(fds: list[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
