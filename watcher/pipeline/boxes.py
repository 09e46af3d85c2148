"""ISO base media boxes (ISO/IEC 14496-12, 4.2): HEIF, AVIF, CR3, JPEG XL. Pure; decodes no pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MOST = 10_000
_HEADER = struct.Struct(">I4s")


def boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the body of each box between `start` and `end`.

    Raises EOFError where one reaches beyond the end.
    """
    end = len(content) if end is None else end
    for _ in range(_MOST):
        if end - start < _HEADER.size:
            return
        length, kind = _HEADER.unpack_from(content, start)
        body = start + _HEADER.size
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, body)
            body += 8
        stop = end if length == 0 else start + length
        if stop > end:
            raise EOFError("the end of the file is missing")
        if stop < body:
            return  # anything may follow the last box
        yield kind, body, stop
        start = stop
