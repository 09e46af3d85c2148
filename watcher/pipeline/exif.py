"""EXIF and XMP: which way is up, and the same metadata for pixels that are upright. Pure.

Patches single bytes instead of writing the block anew: maker notes hold absolute
offsets, and only stay readable where nothing moves.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image

from watcher.pipeline import ifd, picture

_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_ACROSS, _DOWN, _UNIT = 0x011A, 0x011B, 0x0128
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_ENTRY = 12
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_SPACE, _INTEROPERABILITY = 0xA001, 0xA005
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
# ImageWidth and ImageLength of the main directory, PixelXDimension and PixelYDimension of EXIF's.
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
# A real GPS directory has 32 entries at most, of a few bytes each; a made-up one could keep us busy.
_MOST_GPS = 4096
# Bytes of one value of each TIFF type 1..12.
_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)
# ImageDescription, Make, Model, Software, DateTime, Artist, Copyright; the Exif and GPS directories.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_RESOLUTION = (_ACROSS, _DOWN, _UNIT)
_INCHES, _CENTIMETRES = 2, 3
_DIRECTORIES = (_EXIF_IFD, _GPS_IFD)
_MAKER_NOTE = 0x927C
# What rounding makes of pixels a metre, as PNG has them.
_SAME_DPI = 0.02
_XMP_ORIENTATION = re.compile(rb"(?<!/)(tiff:Orientation(?:\s*=\s*[\"']|\s*>\s*))[2-8]")


def upright(block: bytes) -> tuple[int, bytes | None]:
    """Orientation 1..8 of an EXIF block, and that block for the upright image.

    The thumbnail is unlinked and blanked: it shows the old background, lying down. Damage
    gives (1, None); an orientation that does not exist counts as 1.
    """
    patched = bytearray(block.removeprefix(_PREFIX))
    try:
        orientation = _reset(patched)
    except (struct.error, ValueError):
        return 1, None
    return orientation, bytes(patched)


def _reset(block: bytearray) -> int:
    order, start = _header(block)
    (count,) = struct.unpack_from(order + "H", block, start)
    end = start + 2 + count * _ENTRY
    orientation = 1
    for entry, tag, kind, length in _entries(block, order, start):
        if tag == _ORIENTATION and kind in (_SHORT, _LONG) and length == 1:
            found = _value(block, order, entry)
            _set(block, order, entry, 1)
            orientation = found if 1 <= found <= 8 else 1
    if end + 4 <= len(block):
        (second,) = struct.unpack_from(order + "I", block, end)
        struct.pack_into(order + "I", block, end, 0)
        if second:
            _drop_thumbnail(block, order, second)
    return orientation


def _drop_thumbnail(block: bytearray, order: str, directory: int) -> None:
    """Blank the JPEG that `directory` points to; cut it off if it is the end of the block."""
    try:
        told = {
            tag: _value(block, order, entry)
            for entry, tag, kind, length in _entries(block, order, directory)
            if kind in (_SHORT, _LONG) and length == 1
        }
    except (struct.error, ValueError):
        return  # it is unlinked; that much is certain
    start, size = told.get(_THUMBNAIL, 0), told.get(_THUMBNAIL_BYTES, 0)
    if start <= 8 or size <= 0 or bytes(block[start : start + 2]) != b"\xff\xd8":
        return
    end = min(len(block), start + size)
    block[start:end] = bytes(end - start)
    if not any(block[end:]):
        del block[start:]


def _header(block: bytes | bytearray) -> tuple[str, int]:
    """Byte order for `struct`, and the offset of the main directory."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None:
        raise ValueError("no TIFF header")
    return order, struct.unpack_from(order + "I", block, 4)[0]


def _entries(block: bytes | bytearray, order: str, start: int) -> Iterator[tuple[int, int, int, int]]:
    """(offset, tag, type, count) of each entry of the directory at `start`."""
    (count,) = struct.unpack_from(order + "H", block, start)
    for entry in range(start + 2, start + 2 + count * _ENTRY, _ENTRY):
        yield entry, *struct.unpack_from(order + "HHI", block, entry)


def _value(block: bytes | bytearray, order: str, entry: int) -> int:
    (kind,) = struct.unpack_from(order + "H", block, entry + 2)
    return int(struct.unpack_from(order + ("H" if kind == _SHORT else "I"), block, entry + 8)[0])


def _set(block: bytearray, order: str, entry: int, value: int) -> None:
    """One number into an entry; as LONG where a SHORT would be too small."""
    if value > 65535:
        struct.pack_into(order + "H", block, entry + 2, _LONG)
    (kind,) = struct.unpack_from(order + "H", block, entry + 2)
    struct.pack_into(
        order + ("HH" if kind == _SHORT else "I"),
        block,
        entry + 8,
        *((value, 0) if kind == _SHORT else (value,)),
    )


def fitted(block: bytes, width: int, height: int) -> bytes:
    """`block` with its pixel dimensions, where it tells any, set to those of the upright image."""
    patched = bytearray(block)
    try:
        order, start = _header(patched)
        for directory in _main_and_exif(patched, order, start):
            for entry, tag, kind, length in _entries(patched, order, directory):
                if tag in (*_WIDTHS, *_HEIGHTS) and kind in (_SHORT, _LONG) and length == 1:
                    _set(patched, order, entry, width if tag in _WIDTHS else height)
    except (struct.error, ValueError):
        return block
    return bytes(patched)


def _main_and_exif(block: bytearray, order: str, start: int) -> list[int]:
    inner = [
        _value(block, order, entry) for entry, tag, _, _ in _entries(block, order, start) if tag == _EXIF_IFD
    ]
    return [start, *inner[:1]]


def says_adobe_rgb(block: bytes) -> bool:
    """Whether a camera says Adobe RGB: DCF 2.0's "R03", or the colour space 2 that some write, and not sRGB."""
    block = block.removeprefix(_PREFIX)
    try:
        order, start = _header(block)
        inner = _led_to(block, order, start, _EXIF_IFD)
        if inner is None:
            return False
        spaces = [
            _value(block, order, entry) for entry, tag, _, _ in _entries(block, order, inner) if tag == _SPACE
        ]
        if spaces and spaces[0] in (1, 2):
            return spaces[0] == 2
        odd = _led_to(block, order, inner, _INTEROPERABILITY)
        if odd is None:
            return False
        return any(
            tag == 1 and block[entry + 8 : entry + 11] == b"R03"
            for entry, tag, _, _ in _entries(block, order, odd)
        )
    except (struct.error, ValueError):
        return False


def _led_to(block: bytes, order: str, directory: int, wanted: int) -> int | None:
    """Where the directory begins that `directory` refers to by tag `wanted`."""
    return next(
        (
            _value(block, order, entry)
            for entry, tag, _, _ in _entries(block, order, directory)
            if tag == wanted
        ),
        None,
    )


def without_gps(block: bytes) -> bytes | None:
    """`block` without its GPS directory: the entry is taken out, and what it led to is blanked.

    None where that cannot be made sure of.
    """
    patched = bytearray(block)
    try:
        order, start = _header(patched)
        for entry, tag, _, _ in reversed(list(_entries(patched, order, start))):
            if tag == _GPS_IFD:
                _blank(patched, order, _value(patched, order, entry))
                _take_out(patched, order, start, entry)
    except (struct.error, ValueError):
        return None
    return bytes(patched)


def _blank(block: bytearray, order: str, directory: int) -> None:
    """Zeros in place of a directory and all its values."""
    entries = list(_entries(block, order, directory))
    for entry, _, kind, count in entries:
        size = count * (_SIZES[kind] if kind < len(_SIZES) else 1)
        if size > _MOST_GPS or len(entries) > _MOST_GPS:
            raise ValueError("no place takes so much to say")
        if size > 4:
            (place,) = struct.unpack_from(order + "I", block, entry + 8)
            if place >= 8:
                end = min(len(block), place + size)
                block[place:end] = bytes(max(0, end - place))
    end = min(len(block), directory + 2 + len(entries) * _ENTRY + 4)
    block[directory:end] = bytes(end - directory)


def _take_out(block: bytearray, order: str, start: int, entry: int) -> None:
    """The following entries move up by one; all values stay where they are."""
    (count,) = struct.unpack_from(order + "H", block, start)
    end = start + 2 + count * _ENTRY + 4
    block[entry : end - _ENTRY] = block[entry + _ENTRY : end]
    block[end - _ENTRY : end] = bytes(_ENTRY)
    struct.pack_into(order + "H", block, start, count - 1)


def resolution_of(block: bytes) -> tuple[float, float] | None:
    """(x, y) in pixels per inch, where the block tells one that a printer could use."""
    try:
        return picture.dpi_in(ifd.pages(block)[0][0])
    except (EOFError, ValueError):
        return None


def with_resolution(block: bytes, dpi: tuple[float, float]) -> bytes:
    """`block` with that resolution. Its main directory is written anew behind everything else, which stays in place."""
    told = resolution_of(block)
    if told is not None and max(abs(told[0] - dpi[0]), abs(told[1] - dpi[1])) < _SAME_DPI:
        return block
    patched = bytearray(block) + bytes(len(block) % 2)
    try:
        order, start = _header(block)
        found = {tag: block[entry : entry + _ENTRY] for entry, tag, _, _ in _entries(block, order, start)}
        (count,) = struct.unpack_from(order + "H", block, start)
        (following,) = struct.unpack_from(order + "I", block, start + 2 + count * _ENTRY)
    except (struct.error, ValueError):
        return block
    for tag, value in zip((_ACROSS, _DOWN), dpi, strict=True):
        found[tag] = struct.pack(order + "HHII", tag, _RATIONAL, 1, len(patched))
        patched += struct.pack(order + "II", round(value * 1000), 1000)
    found[_UNIT] = struct.pack(order + "HHIHH", _UNIT, _SHORT, 1, 2, 0)
    struct.pack_into(order + "I", patched, 4, len(patched))
    patched += struct.pack(order + "H", len(found)) + b"".join(found[tag] for tag in sorted(found))
    return bytes(patched + struct.pack(order + "I", following))


def of_resolution(dpi: tuple[float, float]) -> bytes:
    """A block that says nothing but the resolution, for formats with no other place for it."""
    values = [round(value * 1000) for value in dpi]
    entries = [(_ACROSS, _RATIONAL, 1, 50), (_DOWN, _RATIONAL, 1, 58), (_UNIT, _SHORT, 1, 2)]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return head + b"".join(struct.pack("<II", value, 1000) for value in values)


def upright_xmp(packet: bytes) -> bytes:
    """The packet with `tiff:Orientation`, if it holds one, reset to 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet)


def tags_of(content: bytes) -> Image.Exif | None:
    """The tags of the first directory of a TIFF or of what is one but for its signature."""
    read = Image.Exif()
    try:
        # A BigTIFF has offsets that no EXIF block can hold; Pillow reads it as an image only.
        if content[2:4] in (b"+\0", b"\0+"):
            with Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
                return image.getexif()
        if content[:4] in ifd.ODD:
            content = (b"II*\0" if ifd.ODD[content[:4]] == "<" else b"MM\0*") + content[4:]
        read.load_from_fp(io.BytesIO(content))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return None
    return read


def of_tags(read: Image.Exif | None) -> bytes | None:
    """What a TIFF says about the photo, without what it says about its own strips."""
    if read is None:
        return None
    written = Image.Exif()
    try:
        written.update(_described(read))
        for directory in _DIRECTORIES:
            if inner := read.get_ifd(directory):
                # Moved, a maker note is of no use: its offsets point nowhere.
                written[directory] = {tag: value for tag, value in inner.items() if tag != _MAKER_NOTE}
        return written.tobytes().removeprefix(_PREFIX) if len(written) else None
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return None  # odd values that Pillow reads but cannot write


def _described(read: Image.Exif) -> dict[int, Any]:
    """What is about the photo, and its resolution if that has a unit."""
    resolved = read.get(_UNIT) in (_INCHES, _CENTIMETRES)
    return {tag: read[tag] for tag in (*_DESCRIPTIVE, *(_RESOLUTION if resolved else ())) if tag in read}


def of_blocks(blocks: list[bytes]) -> bytes | None:
    """As `of_tags`, from separate TIFF blocks of what the first directory, Exif and GPS hold."""
    if not blocks:
        return None
    written = Image.Exif()
    try:
        for place, block in zip((None, *_DIRECTORIES), blocks, strict=False):
            read = Image.Exif()
            read.load(block)
            if place is None:
                written.update(_described(read))
            elif len(read):
                written[place] = {tag: value for tag, value in read.items() if tag != _MAKER_NOTE}
        return written.tobytes().removeprefix(_PREFIX) if len(written) else None
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return None
