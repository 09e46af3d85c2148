"""PackBits (Apple, 1984; TIFF 6.0, section 9), row by row, as Photoshop's documents have it."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Pixels
from watcher.pipeline.compiled import compiled

Bytes = NDArray[np.uint8]
_STRIP_BYTES = 1 << 22


def packed_rows(plane: Pixels) -> tuple[NDArray[np.int64], bytes]:
    """The packed size of each row of `plane`, HxW uint8, and all packed rows."""
    height, width = plane.shape
    sizes = np.empty(height, np.int64)
    rows = max(1, _STRIP_BYTES // width)
    # At worst a byte more for each 128.
    room = np.empty(rows * (width + width // 128 + 1), np.uint8)
    parts = []
    for top in range(0, height, rows):
        strip = np.ascontiguousarray(plane[top : top + rows])
        used = pack(cast(Bytes, strip), sizes[top : top + rows], room)
        parts.append(room[:used].tobytes())
    return sizes, b"".join(parts)


@compiled
def pack(rows: Bytes, sizes: NDArray[np.int64], out: Bytes) -> int:
    """Pack each of `rows` into `out`, note its size, and return the sum."""
    at = 0
    width = rows.shape[1]
    for y in range(rows.shape[0]):
        begin = at
        x = 0
        while x < width:
            run = 1
            while run < 128 and x + run < width and rows[y, x + run] == rows[y, x]:
                run += 1
            if run >= 2:
                out[at] = 257 - run
                out[at + 1] = rows[y, x]
                at += 2
                x += run
                continue
            start = x
            # A run of two inside of literals gains nothing; three end them.
            while x < width and x - start < 128:
                if x + 2 < width and rows[y, x] == rows[y, x + 1] and rows[y, x] == rows[y, x + 2]:
                    break
                x += 1
            out[at] = x - start - 1
            at += 1
            for i in range(start, x):
                out[at] = rows[y, i]
                at += 1
        sizes[y] = at - begin
    return at


def warm_up() -> None:
    """Compile."""
    packed_rows(np.zeros((1, 1), np.uint8))
