"""Messages between daemon and worker: a length, then JSON. Python 3.7 syntax.

Pixels never travel here; they lie in the shared arena and are named by offset.
"""

import json
import os
import struct
from typing import Any, Callable, Dict, Optional

PROTOCOL = 1
_LENGTH = struct.Struct("!I")
_LIMIT = 1 << 20
# POSIX: poll() calls a pipe writable when this many bytes fit (PIPE_BUF on Linux).
_PIECE = 4096


class WireError(Exception):
    """The peer said something that is not a message, or we were about to."""


def at_once() -> None:
    """Wait for nothing: let the read or write itself block."""


def send(fd: int, kind: str, fields: Dict[str, Any], *, ready: Callable[[], None] = at_once) -> None:
    """Write one message. `ready` is called before each write and may wait, or raise to give up."""
    body = json.dumps(dict(fields, kind=kind)).encode()
    if len(body) > _LIMIT:
        raise WireError("message of {} bytes".format(len(body)))
    rest = memoryview(_LENGTH.pack(len(body)) + body)
    while rest:
        ready()
        rest = rest[os.write(fd, rest[:_PIECE]) :]


def receive(fd: int, *, ready: Callable[[], None] = at_once) -> Optional[Dict[str, Any]]:
    """The next message, or None if the peer closed between messages.

    `ready` is called before each read and may wait, or raise to give up. Raises EOFError where
    the peer closed inside a message, WireError where what came is no message.
    """
    head = _read_exactly(fd, _LENGTH.size, ready)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > _LIMIT:
        raise WireError("message of {} bytes".format(length))
    body = _read_exactly(fd, length, ready)
    if body is None:
        raise EOFError("peer closed inside a message")
    return _parse(body)


def _parse(body: bytes) -> Dict[str, Any]:
    try:
        message = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise WireError("not JSON: {}".format(error)) from error
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise WireError("a message without a kind")
    return message


def _read_exactly(fd: int, count: int, ready: Callable[[], None]) -> Optional[bytes]:
    pieces = bytearray()
    while len(pieces) < count:
        ready()
        piece = os.read(fd, count - len(pieces))
        if not piece:
            if pieces:
                raise EOFError("peer closed inside a message")
            return None
        pieces += piece
    return bytes(pieces)
