"""Which kind of JPEG this is (ITU-T T.81, B.2.2): the kinds that no photographer means are refused."""

from __future__ import annotations

import struct

from watcher.errors import InputRejected

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_HIERARCHICAL = (0xC5, 0xC6, 0xCD, 0xCE)
_ALONE = (0x01, *range(0xD0, 0xD9))
_REMEDY = "Export it as ordinary 8-bit JPEG, or as 16-bit TIFF to keep its depth."


def refuse(content: bytes) -> None:
    """Raises InputRejected for 12 bits, lossless and hierarchical coding. Damage is left to the decoder."""
    frame = _frame(content)
    if frame is None:
        return
    marker, depth = frame
    if marker in _LOSSLESS or marker in _HIERARCHICAL:
        words = "lossless" if marker in _LOSSLESS else "hierarchical"
        raise InputRejected(f"it is a {words} JPEG, which is not read here", remedy=_REMEDY)
    if depth != 8:
        # Those who can decode it make grey of what is missing, and no error.
        raise InputRejected(f"it is a JPEG of {depth} bits a channel, which is not read here", remedy=_REMEDY)


def _frame(content: bytes) -> tuple[int, int] | None:
    """The marker of the frame header, and its bits a sample."""
    at = 2
    while at + 5 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in _FRAMES:
            return marker, content[at + 4]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", content, at + 2)
            at += 2 + length
    return None
