"""Is the end there? For formats that mark their end: JPEG, PNG, GIF.

Each check takes a view of a file that begins with the format's signature, and may
raise EndMissing, which means incomplete.
"""

from __future__ import annotations

from watcher.intake.view import EndMissing, Verdict, View

# Phones append a film of some MB behind the picture.
FARTHEST_END = 32 * 1024 * 1024
NEAR_END = 64 * 1024
# More than any real file has; a limit only so that nonsense ends.
MOST_SEGMENTS = 10_000
MOST_CHUNKS = 200_000
_IEND = b"\0\0\0\0IEND\xae\x42\x60\x82"


def jpeg(view: View) -> Verdict:
    """ITU-T T.81, B.1: segments to the first scan; from there on FFD9 can only be the end."""
    scan = _first_scan(view)
    if scan is None:
        return Verdict.UNKNOWN
    found = view.rfind(b"\xff\xd9", scan, within=NEAR_END)
    if found < 0:
        found = view.rfind(b"\xff\xd9", scan, within=FARTHEST_END)
    return Verdict.INCOMPLETE if found < 0 else Verdict.WHOLE


def _first_scan(view: View) -> int | None:
    """Where the first scan's pixels begin. None: these are not segments."""
    offset = 2
    for _ in range(MOST_SEGMENTS):
        lead, marker = view.at(offset, 2)
        if lead != 0xFF:
            if not any(view.at(offset, min(64, view.size - offset))):
                raise EndMissing  # reserved space
            return None
        if marker == 0xFF:  # filler, B.1.1.2
            offset += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # no length follows
            offset += 2
            continue
        length = view.number(offset + 2, 2)
        if marker == 0xD9 or length < 2:
            return None
        offset += 2 + length
        if marker == 0xDA:
            view.require(offset)
            return offset
    return None


def png(view: View) -> Verdict:
    """PNG, 5.3: chunks of length, type, content, CRC; IEND is the last and always the same."""
    if view.rfind(_IEND, 8, within=NEAR_END) >= 0:
        return Verdict.WHOLE
    offset = 8
    for _ in range(MOST_CHUNKS):
        header = view.at(offset, 8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if not any(header):
            return Verdict.INCOMPLETE  # reserved space
        if not kind.isalpha():
            return Verdict.UNKNOWN
        offset += 12 + length
        view.require(offset)
        if kind == b"IEND":
            return Verdict.WHOLE
    return Verdict.UNKNOWN


def gif(view: View) -> Verdict:
    """GIF89a, appendix B: blocks up to the trailer 3B. Its value is no marker: it occurs in pixels."""
    offset = 13 + _colour_table(view.at(10, 1)[0])
    for _ in range(MOST_CHUNKS):
        kind = view.at(offset, 1)[0]
        if kind == 0x3B:
            return Verdict.WHOLE
        if kind == 0x21:
            offset = _after_sub_blocks(view, offset + 2)
        elif kind == 0x2C:
            table = _colour_table(view.at(offset + 9, 1)[0])
            offset = _after_sub_blocks(view, offset + 11 + table)
        else:
            return Verdict.INCOMPLETE if kind == 0 else Verdict.UNKNOWN
    return Verdict.UNKNOWN


def _colour_table(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(view: View, offset: int) -> int:
    while length := view.at(offset, 1)[0]:
        offset += 1 + length
    return offset + 1
