"""TIFF directories as cameras nest them: what they hold and where. Pure; decodes no pixels.

Sources: TIFF 6.0 section 2, BigTIFF, and for the odd signatures of ORF and RW2 LibRaw's list.
"""

from __future__ import annotations

import struct

# Signatures of files that are TIFF but for these bytes.
ODD = {b"IIRO": "<", b"IIRS": "<", b"MMOR": ">", b"IIU\0": "<"}
SIGNATURES = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">", **ODD}
# Only so that nonsense ends; real files stay far below.
_MOST_DIRECTORIES = 64
_MOST_ENTRIES = 4096
_MOST_VALUES = 4_000_000
# Type to struct code: BYTE, ASCII, SHORT, LONG, SBYTE, UNDEFINED, SSHORT, SLONG, IFD, LONG8, SLONG8, IFD8.
_INTEGERS = {
    1: "B",
    2: "B",
    3: "H",
    4: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
_RATIONAL = 5
_SUB = 330
# NewSubfileType: a smaller copy of another page.
REDUCED = 1
_PLACES = ((273, 279), (324, 325))
# Panasonic's word for "see my own tag".
_ELSEWHERE = 0xFFFF_FFFF

Tags = dict[int, tuple[int, ...]]


def pages(content: bytes) -> tuple[list[Tags], list[Tags]]:
    """The directories of the main chain, and those they refer to as sub-directories.

    Values are integers; a rational is two of them. Raises EOFError where one lies beyond the
    end, ValueError where the structure makes no sense.
    """
    order = SIGNATURES.get(content[:4])
    if order is None:
        raise ValueError("no TIFF header")
    big = content[:4] in (b"II+\0", b"MM\0+")
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
        chain = _chain(content, at, order, big=big)
        inner = []
        for tags in chain:
            for start in tags.get(_SUB, ())[:_MOST_DIRECTORIES]:
                inner += _chain(content, start, order, big=big)
    except (struct.error, OverflowError) as error:  # beyond the end, or beyond any file
        raise EOFError("the end of the file is missing") from error
    if not chain:
        raise EOFError("the end of the file is missing")
    return chain, inner


def first(chain: list[Tags]) -> int:
    """The number of the page to use; a thumbnail may come before it."""
    return next((number for number, tags in enumerate(chain) if not tags.get(254, (0,))[0] & REDUCED), 0)


def require_whole(directories: list[Tags], size: int) -> None:
    """Raises EOFError unless all strips and tiles lie within `size` bytes and none is still to come."""
    for tags in directories:
        for offsets, lengths in _PLACES:
            for offset, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False):
                if offset != _ELSEWHERE and offset + length > size:
                    raise EOFError("the end of the file is missing")


def _chain(content: bytes, at: int, order: str, *, big: bool) -> list[Tags]:
    found: list[Tags] = []
    seen: set[int] = set()
    while at and at not in seen and len(found) < _MOST_DIRECTORIES:
        seen.add(at)
        tags, at = _directory(content, at, order, big=big)
        found.append(tags)
    return found


def _directory(content: bytes, at: int, order: str, *, big: bool) -> tuple[Tags, int]:
    """One directory, and where the next one lies."""
    count_code, entry_code, wide = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    (count,) = struct.unpack_from(order + count_code, content, at)
    if count > _MOST_ENTRIES:
        raise ValueError(f"a directory of {count} entries")
    step, room = (20, 8) if big else (12, 4)
    at += 8 if big else 2
    tags: Tags = {}
    for entry in range(at, at + count * step, step):
        tag, kind, length = struct.unpack_from(order + entry_code, content, entry)
        code = _INTEGERS.get(kind)
        if kind == _RATIONAL:
            code, length = "I", 2 * length
        if code is None or length > _MOST_VALUES:
            continue
        place = entry + step - room
        if length * struct.calcsize(code) > room:
            (place,) = struct.unpack_from(order + wide, content, place)
        tags[tag] = struct.unpack_from(f"{order}{length}{code}", content, place)
    (following,) = struct.unpack_from(order + wide, content, at + count * step)
    return tags, following
