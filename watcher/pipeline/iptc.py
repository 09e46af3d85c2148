"""IPTC-IIM records: where files keep them, in and out. Pure; damage gives None, never an error."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from watcher.pipeline import png

PHOTOSHOP = b"Photoshop 3.0\0"
RESOURCE = 0x0404
_RAW_KEYWORD = b"Raw profile type iptc"
_MARK = 0x1C
_UTF8 = b"\x1b%G"


def found_in(content: bytes, kind: str) -> bytes | None:
    """The IPTC record of a file, if it holds one; `kind` as sniff has it."""
    try:
        match kind:
            case "JPEG":
                return _of_jpeg(content)
            case "PSD":
                return _of_psd(content)
            case "PNG":
                return _of_png(content)
            case "TIFF":
                return _of_tiff(content)
    except (struct.error, ValueError, LookupError, zlib.error):
        pass
    return None


def _checked(record: bytes) -> bytes | None:
    return record if record[:1] == bytes([_MARK]) else None


def _of_jpeg(content: bytes) -> bytes | None:
    """All APP13 segments of Photoshop's together: a long one is split."""
    blocks = b"".join(
        body[len(PHOTOSHOP) :] for body in _segments(content, 0xED) if body.startswith(PHOTOSHOP)
    )
    return resource_in(blocks, RESOURCE)


def _segments(content: bytes, wanted: int) -> Iterator[bytes]:
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        (length,) = struct.unpack_from(">H", content, at + 2)
        if marker == wanted:
            yield content[at + 4 : at + 2 + length]
        at += 2 + length


def _of_psd(content: bytes) -> bytes | None:
    (mode_bytes,) = struct.unpack_from(">I", content, 26)
    at = 30 + mode_bytes
    (length,) = struct.unpack_from(">I", content, at)
    return resource_in(content[at + 4 : at + 4 + length], RESOURCE)


def resource_in(blocks: bytes, wanted: int) -> bytes | None:
    """The body of Photoshop's image resource `wanted`."""
    at = 0
    while at + 12 <= len(blocks) and blocks[at : at + 4] == b"8BIM":
        (number,) = struct.unpack_from(">H", blocks, at + 4)
        name = 1 + blocks[at + 6]
        place = at + 6 + name + name % 2
        (length,) = struct.unpack_from(">I", blocks, place)
        if number == wanted:
            return _checked(blocks[place + 4 : place + 4 + length])
        at = place + 4 + length + length % 2
    return None


def resource(number: int, body: bytes) -> bytes:
    """One of Photoshop's image resources, without a name."""
    return struct.pack(">4sHHI", b"8BIM", number, 0, len(body)) + body + b"\0" * (len(body) % 2)


def _of_tiff(content: bytes) -> bytes | None:
    """Tag 33723, whatever type its writer gave it, else Photoshop's resources in 34377."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        return None
    (start,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, start)
    found: dict[int, bytes] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length, place = struct.unpack_from(order + "HHII", content, entry)
        size = length * (4 if kind == 4 else 1)
        if tag in (33723, 34377) and size > 4:
            found[tag] = content[place : place + size]
    record = _checked(found.get(33723, b""))
    return record if record is not None else resource_in(found.get(34377, b""), RESOURCE)


def _of_png(content: bytes) -> bytes | None:
    """As ImageMagick and ExifTool write it: hex in a compressed text chunk."""
    for name, record in png.raw_profiles(content):
        if name == b"iptc":
            return resource_in(record, RESOURCE) if record.startswith(b"8BIM") else _checked(record)
    return None


def png_text(record: bytes) -> bytes:
    """The body of a zTXt chunk that says it."""
    digits = record.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = f"\niptc\n{len(record):8d}\n{lines}\n"
    return _RAW_KEYWORD + b"\0\0" + zlib.compress(text.encode("ascii"), 6)


def fields_in(record: bytes) -> list[tuple[int, str]]:
    """(dataset, text) of the application record, number 2. Not UTF-8 unless it says so: Latin-1."""
    found = []
    coding = "latin-1"
    at = 0
    while at + 5 <= len(record) and record[at] == _MARK:
        part, dataset = record[at + 1], record[at + 2]
        (length,) = struct.unpack_from(">H", record, at + 3)
        if length & 0x8000:  # an extended one, as no text is
            break
        body = record[at + 5 : at + 5 + length]
        if (part, dataset) == (1, 90) and body == _UTF8:
            coding = "utf-8"
        elif part == 2 and dataset:
            found.append((dataset, body))
        at += 5 + length
    texts = ((dataset, body.decode(coding, "replace")) for dataset, body in found)
    return [
        (dataset, "".join(char for char in text if char.isprintable() or char in "\n\t"))
        for dataset, text in texts
    ]
