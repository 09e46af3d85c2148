"""Is the end there? For formats that say how long they are: BMP, WebP, TIFF and most RAWs, boxes, PSD.

Each check takes a view of a file that begins with the format's signature, and may
raise EndMissing, which means incomplete.
"""

from __future__ import annotations

import struct

from watcher.intake.view import BLOCK, EndMissing, Verdict, View

# Limits only so that nonsense ends; real files stay far below.
MOST_PARTS = 10_000
MOST_PAGES = 1_000
MOST_ENTRIES = 4_096
# Bytes of one table of offsets or row lengths.
LARGEST_TABLE = 8 * 1024 * 1024


def bmp(view: View) -> Verdict:
    """The size in the file header, and what rows of the size in the bitmap header need."""
    stated, pixels = view.number(2, 4, "little"), view.number(10, 4, "little")
    header = view.number(14, 4, "little")
    if header not in (12, 16, 40, 52, 56, 64, 108, 124):
        return Verdict.INCOMPLETE if header == 0 else Verdict.UNKNOWN
    if header == 12:
        width, height, _, depth = struct.unpack("<HHHH", view.at(18, 8))
        packed = False
    else:
        width, height, _, depth = struct.unpack("<iiHH", view.at(18, 12))
        packed = header > 16 and view.number(30, 4, "little") not in (0, 3, 6)
    view.require(stated)
    if packed and stated == 0:
        return Verdict.UNKNOWN
    if not packed:
        view.require(pixels + (abs(width) * depth + 31) // 32 * 4 * abs(height))
    return Verdict.WHOLE


def webp(view: View) -> Verdict:
    """RIFF: the length at 4 counts what follows it; then chunks, padded to even lengths."""
    end = 8 + view.number(4, 4, "little")
    if end <= 12:
        return Verdict.INCOMPLETE  # filled in when the writer is done
    view.require(end)
    offset = 12
    for _ in range(MOST_PARTS):
        if offset + 8 > end:
            return Verdict.WHOLE
        kind, length = view.at(offset, 4), view.number(offset + 4, 4, "little")
        if not any(kind) or view.blank(offset + 8, min(end, offset + 8 + length)):
            return Verdict.INCOMPLETE
        offset += 8 + length + length % 2
    return Verdict.UNKNOWN


# Bytes of one value of each TIFF type, TIFF 6.0 section 2 and BigTIFF (13: IFD; 16 to 18: 8 bytes).
_WIDTHS = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
# Where pixels lie and how many bytes: strips, tiles, old-style JPEG.
_PLACES = ((273, 279), (324, 325), (513, 514))
_SUB_DIRECTORIES = 330
# Panasonic's word for "see my own tag".
_ELSEWHERE = 0xFFFF_FFFF


def tiff(view: View) -> Verdict:
    """TIFF 6.0, BigTIFF and RAWs built like them: every page's table, values and pixels lie in the file."""
    order = "little" if view.at(0, 2) == b"II" else "big"
    big = view.number(2, 2, order) == 43
    wide = 8 if big else 4
    offset = view.number(8 if big else 4, wide, order)
    seen: set[int] = set()
    if offset == 0:
        return Verdict.INCOMPLETE  # filled in when the writer is done
    while offset and offset not in seen and len(seen) < MOST_PAGES:
        seen.add(offset)
        count = view.number(offset, 8 if big else 2, order)
        if not 0 < count <= MOST_ENTRIES:
            return Verdict.INCOMPLETE if count == 0 else Verdict.UNKNOWN
        start, step = offset + (8 if big else 2), 20 if big else 12
        for inner in _check_page(view, start, count, order=order, wide=wide):
            _check_inner(view, inner, order=order, wide=wide)
        offset = view.number(start + count * step, wide, order)
    return Verdict.WHOLE


def _check_inner(view: View, offset: int, *, order: str, wide: int) -> None:
    """A directory within a page: where a RAW keeps its sensor's pixels."""
    size = 8 if wide == 8 else 2
    count = view.number(offset, size, order)
    if count <= MOST_ENTRIES:
        _check_page(view, offset + size, count, order=order, wide=wide)


def _check_page(view: View, start: int, count: int, *, order: str, wide: int) -> list[int]:
    """Where directories within this page lie. Raises EndMissing where something lies beyond the end."""
    places: dict[int, list[int]] = {}
    step = 4 + 2 * wide
    for entry in range(start, start + count * step, step):
        tag, kind = view.number(entry, 2, order), view.number(entry + 2, 2, order)
        values = view.number(entry + 4, wide, order)
        width = _WIDTHS.get(kind, 1)
        at = entry + 4 + wide
        if values * width > wide:
            at = view.number(at, wide, order)
            view.require(at + values * width)
        if (
            tag == _SUB_DIRECTORIES or any(tag in pair for pair in _PLACES)
        ) and values * width <= LARGEST_TABLE:
            places[tag] = _integers(view.at(at, values * width), width, order)
    for offsets, lengths in _PLACES:
        for offset, length in zip(places.get(offsets, ()), places.get(lengths, ()), strict=False):
            if offset != _ELSEWHERE:
                view.require(offset + length)
    return places.get(_SUB_DIRECTORIES, [])[:MOST_PAGES]


def _integers(raw: bytes, width: int, order: str) -> list[int]:
    code = {2: "H", 4: "I", 8: "Q"}.get(width, "B")
    size = len(raw) // struct.calcsize(code)
    return list(struct.unpack(f"{'<' if order == 'little' else '>'}{size}{code}", raw))


def boxes(view: View) -> Verdict:
    """ISO/IEC 14496-12, 4.2: top-level boxes add up to the file, and pixels are among them.

    Raises EndMissing. A file cut between two boxes lacks its pixels: the box `mdat`, or
    `idat` within `meta`.
    """
    offset, kinds, pixels = 0, set(), False
    for _ in range(MOST_PARTS):
        if view.size - offset < 8:
            break
        length, kind = view.number(offset, 4), view.at(offset + 4, 4)
        if length == 0 and any(kind):  # to the end of the file, wherever that will be
            return Verdict.UNKNOWN
        if length == 1:
            length = view.number(offset + 8, 8)
        if not all(32 <= char < 127 for char in kind) or length < 8:
            # Anything may follow the pixels; zeros instead of them are reserved space.
            return Verdict.WHOLE if pixels else _unwritten(kind)
        view.require(offset + length)
        kinds.add(kind)
        if kind == b"mdat" and view.blank(offset + 8, offset + length):
            return Verdict.INCOMPLETE
        pixels = pixels or kind == b"mdat" or (kind == b"meta" and _holds_pixels(view, offset, length))
        offset += length
    return Verdict.WHOLE if pixels and kinds & {b"meta", b"moov"} else Verdict.INCOMPLETE


def jxl(view: View) -> Verdict:
    """ISO/IEC 18181-2: boxes, and among them the codestream, whole or its last part."""
    offset = 0
    ended = False
    for _ in range(MOST_PARTS):
        if view.size - offset < 8:
            break
        length, kind = view.number(offset, 4), view.at(offset + 4, 4)
        if length == 0 and any(kind):
            return Verdict.UNKNOWN
        start = offset + 8
        if length == 1:
            length, start = view.number(start, 8), start + 8
        if length < 8:
            return Verdict.WHOLE if ended else _unwritten(kind)
        view.require(offset + length)
        if kind in (b"jxlc", b"jxlp") and view.blank(start, offset + length):
            return Verdict.INCOMPLETE
        ended = ended or kind == b"jxlc" or (kind == b"jxlp" and view.number(start, 4) >= 1 << 31)
        offset += length
    return Verdict.WHOLE if ended else Verdict.INCOMPLETE


def jpeg2000(view: View) -> Verdict:
    """ITU-T T.800, A.4.4: the codestream ends with EOC, which cannot occur within it."""
    return Verdict.WHOLE if view.rfind(b"\xff\xd9", 12, within=BLOCK) >= 0 else Verdict.INCOMPLETE


def raf(view: View) -> Verdict:
    """Fujifilm: where the JPEG, the table and the sensor's pixels lie, and how long each is."""
    for place in (84, 92, 100):
        offset, length = view.number(place, 4), view.number(place + 4, 4)
        if offset == 0 and place != 92:
            return Verdict.INCOMPLETE
        view.require(offset + length)
        if place == 100 and view.blank(offset, offset + length):
            return Verdict.INCOMPLETE
    return Verdict.WHOLE


def _unwritten(kind: bytes) -> Verdict:
    return Verdict.UNKNOWN if any(kind) else Verdict.INCOMPLETE


def _holds_pixels(view: View, offset: int, length: int) -> bool:
    """Whether the `meta` box at `offset` has a box `idat`."""
    end, inner = offset + length, offset + 12  # a full box: version and flags come first
    for _ in range(MOST_PARTS):
        if inner + 8 > end:
            return False
        size, kind = view.number(inner, 4), view.at(inner + 4, 4)
        if kind == b"idat":
            return True
        if size < 8:
            return False
        inner += size
    return False


def psd(view: View) -> Verdict:
    """Adobe's file format specification: header, three sections with lengths, then the pixels."""
    version, channels, height, width, depth = struct.unpack(">H6xHIIH", view.at(4, 20))
    if version not in (1, 2):
        return Verdict.UNKNOWN
    offset = 26
    for wide in (4, 4, 4 if version == 1 else 8):
        offset += wide + view.number(offset, wide)
    compression = view.number(offset, 2)
    offset += 2
    if compression == 0:
        view.require(offset + channels * height * ((width * depth + 7) // 8))
    elif compression == 1:
        wide = 2 if version == 1 else 4
        table = channels * height * wide
        if table > LARGEST_TABLE:
            return Verdict.UNKNOWN
        rows = _integers(view.at(offset, table), wide, "big")
        view.require(offset + table + sum(rows))
        if not all(rows):
            return Verdict.INCOMPLETE  # reserved space: no row packs to nothing
    else:
        return Verdict.UNKNOWN
    if height == 0 or width == 0:
        raise EndMissing
    return Verdict.WHOLE
