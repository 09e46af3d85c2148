"""Memory in which pictures are passed from the process that decodes to the one that asked: anonymous files.

To have fresh pages cleared and mapped, and given back after, costs as much as decoding. So one file stays for all
small pictures, and a large one's is used again as soon as whoever asked says that the picture is gone.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from contextlib import suppress
from errno import ENOMEM
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.pages import KEPT_BYTES

# All pages in one go: a fault for each costs as much as the copy.
MAP_AT_ONCE = mmap.MAP_SHARED | mmap.MAP_POPULATE
# Behind the pixels of a photo, for its profile and metadata. Those who have more are copied once.
METADATA_BYTES = 1 << 20
# A picture in a room of more than so many times its size holds memory that others could use.
_ROOMY = 2
# So many rooms nobody uses may wait for the next photo.
_SPARE = 1

Part: TypeAlias = "tuple[int, bytes | np.ndarray[Any, Any]]"


class Memory(mmap.mmap):
    """A file as memory, that others can map as well: it keeps a descriptor of it."""

    descriptor: int

    @classmethod
    def of(cls, fd: int) -> Memory:
        """All of the file, a large one with all its pages. `fd` stays the caller's to close."""
        size = os.fstat(fd).st_size
        memory = cls(fd, size, flags=mmap.MAP_SHARED if size <= KEPT_BYTES else MAP_AT_ONCE)
        memory.descriptor = os.dup(fd)
        weakref.finalize(memory, os.close, memory.descriptor)
        return memory

    def place_of(self, array: NDArray[Any]) -> int | None:
        """Where in it `array` begins; None where that lies elsewhere, or in pieces."""
        if not array.flags.c_contiguous:
            return None
        at = array.ctypes.data - _address_of(self)
        return at if at >= 0 and at + array.nbytes <= len(self) else None


def memory_of(array: NDArray[Any]) -> Memory | None:
    """What `array` is a view of, where that is the memory of a picture."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, Memory) else None


def _address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Room:
    """A file for one picture at a time. Whoever made it keeps it mapped while another has the picture: to map it anew for
    the next one takes a sixth of what reading takes, and more.
    """

    def __init__(self, size: int, fd: int | None = None) -> None:
        """One of its own, or that which somebody gave us as `fd`. Raises MemoryError."""
        self.size = size
        self._fd = fd if fd is not None else _made()
        try:
            if fd is None:
                os.ftruncate(self._fd, size)
            self.memory = mapped(self._fd, size)
        except BaseException as error:
            os.close(self._fd)
            if isinstance(error, OSError) and error.errno == ENOMEM:
                raise MemoryError from error
            raise

    def fill(self, parts: list[Part]) -> None:
        """Put the parts where they belong, but for pixels that were decoded right there."""
        beginning = _address_of(self.memory)
        for at, value in parts:
            if isinstance(value, bytes):
                self.memory[at : at + len(value)] = value
            elif value.ctypes.data != beginning + at:
                np.ndarray(value.shape, value.dtype, self.memory, at)[...] = value

    def descriptor(self) -> int:
        """One more, for who gets the picture; the caller's to close."""
        return os.dup(self._fd)

    def close(self) -> None:
        # A view in the traceback of what went wrong keeps it until that goes.
        with suppress(BufferError):
            self.memory.close()
        os.close(self._fd)


def _made() -> int:
    return os.memfd_create("hotmatte-picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def mapped(fd: int, size: int) -> mmap.mmap:
    """The file as memory, a large one with all its pages."""
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED if size <= KEPT_BYTES else MAP_AT_ONCE)


class Kept(Room):
    """The room of all small pictures: both ends map it once, and who asked copies what is in it."""

    def __init__(self) -> None:
        super().__init__(KEPT_BYTES)
        self._given = False

    def first_descriptor(self) -> list[int]:
        if self._given:
            return []
        self._given = True
        return [self.descriptor()]


class Rooms:
    """The rooms of large pictures: those that were given away, by number, and who waits for the next picture."""

    def __init__(self) -> None:
        self._spare: list[Room] = []
        self._given: dict[int, Room] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._spare) + len(self._given)

    def fitting(self, size: int) -> Room:
        """A room for `size` bytes; it stays a spare one until it is given. Raises MemoryError."""
        room = next((room for room in self._spare if size <= room.size <= _ROOMY * size), None)
        if room is None:
            self._keep(0)
            room = Room(size)
            self._spare.append(room)
        return room

    def give(self, room: Room) -> tuple[int, int]:
        """Its number, and a descriptor for who gets it."""
        descriptor = room.descriptor()
        self._spare.remove(room)
        self._count += 1
        self._given[self._count] = room
        return self._count, descriptor

    def take_back(self, numbers: list[int]) -> None:
        """Nobody has the pictures any more that were in these; unknown numbers are those of forgotten ones."""
        self._spare += [self._given.pop(number) for number in numbers if number in self._given]
        self._keep(_SPARE)

    def forget(self) -> None:
        """Hold nothing: a room that somebody has is gone when that one lets go of it."""
        self._spare += self._given.values()
        self._given = {}
        self._keep(0)

    def _keep(self, count: int) -> None:
        while len(self._spare) > count:
            self._spare.pop(0).close()
