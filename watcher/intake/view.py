"""Bounded looks into a file, and what can be said of one. Knows no format."""

from __future__ import annotations

import enum
from io import FileIO
from typing import BinaryIO

# One look reads at most this much; only the search for a JPEG's end takes several.
BLOCK = 64 * 1024
_AHEAD = 4096


class Verdict(enum.Enum):
    WHOLE = "whole"
    INCOMPLETE = "incomplete"  # the end is missing, or has not been written yet
    UNKNOWN = "unknown"  # no format we know, or damaged: decoding will tell


class EndMissing(Exception):
    """The structure points beyond the end of the file."""


class View:
    """A file that is read in small pieces. `size` is in bytes."""

    def __init__(self, file: BinaryIO | FileIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self._start, self._block = 0, b""

    def at(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes at `offset`. Raises EndMissing where the file has fewer."""
        self.require(offset + count)
        inside = offset - self._start
        if inside < 0 or inside + count > len(self._block):
            self._start, inside = offset, 0
            self._block = self._read(offset, max(count, _AHEAD))
            if len(self._block) < count:  # it has shrunk meanwhile
                raise EndMissing
        return self._block[inside : inside + count]

    def require(self, end: int) -> None:
        """Raises EndMissing unless the file reaches to `end`."""
        if end > self.size:
            raise EndMissing

    def number(self, offset: int, count: int, order: str = "big") -> int:
        """The unsigned integer of `count` bytes at `offset`; `order` is `big` or `little`."""
        return int.from_bytes(self.at(offset, count), "big" if order == "big" else "little")

    def rfind(self, pattern: bytes, start: int, *, within: int) -> int:
        """The last place of `pattern` behind `start` and in the last `within` bytes, or -1."""
        floor = max(start, self.size - within)
        end = self.size
        while end > floor:
            begin = max(floor, end - BLOCK)
            # A pattern may lie across two blocks.
            found = self._read(begin, end - begin + len(pattern) - 1).rfind(pattern)
            if found >= 0:
                return begin + found
            end = begin
        return -1

    def blank(self, offset: int, end: int) -> bool:
        """Whether the last KiB of `offset..end` is zeros: space reserved but not yet written.

        Compressed pixels never hold so many. Says no of less than one KiB.
        """
        return end - offset >= 1024 and not any(self.at(end - 1024, 1024))

    def _read(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(count) or b""
