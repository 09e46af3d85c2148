"""Deflate at four efforts, as all lossless outputs share them. Pure."""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from isal import isal_zlib


class Stream(Protocol):
    """What both libraries have in common; `content` is any buffer."""

    def compress(self, content: Any, /) -> bytes: ...

    def flush(self) -> bytes: ...


# ISA-L's own levels 2 and 3 are no smaller than 1 on photos: from there on it is zlib's turn.
_ZLIB_LEVEL = {2: 4, 3: 6}


def compressor(effort: int) -> Stream:
    """A zlib stream: effort 0 and 1 by ISA-L, 2 and 3 by zlib, six and fourteen times as slow."""
    if effort in _ZLIB_LEVEL:
        return zlib.compressobj(_ZLIB_LEVEL[effort])
    stream: Stream = isal_zlib.compressobj(effort)
    return stream
