"""EXIF and XMP: which way is up, and the same metadata for pixels that are upright. Pure.

Patches single bytes instead of writing the block anew: maker notes hold absolute
offsets, and only stay readable where nothing moves.
"""

from __future__ import annotations

import io
import re
import struct

from PIL import Image

from watcher.pipeline import ifd

_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4
_ENTRY = 12
# ImageDescription, Make, Model, Software, DateTime, Artist, Copyright; the Exif and GPS directories.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_DIRECTORIES = (0x8769, 0x8825)
_MAKER_NOTE = 0x927C
_XMP_ORIENTATION = re.compile(rb"(?<!/)(tiff:Orientation(?:\s*=\s*[\"']|\s*>\s*))[2-8]")


def upright(block: bytes) -> tuple[int, bytes | None]:
    """Orientation 1..8 of an EXIF block, and that block for the upright image.

    The thumbnail is unlinked: it shows the old background, lying down. Damage gives
    (1, None); an orientation that does not exist counts as 1.
    """
    patched = bytearray(block.removeprefix(_PREFIX))
    try:
        orientation = _reset(patched)
    except (struct.error, ValueError):
        return 1, None
    return orientation, bytes(patched)


def _reset(block: bytearray) -> int:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None:
        raise ValueError("no TIFF header")
    (start,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, start)
    end = start + 2 + count * _ENTRY
    orientation = 1
    for entry in range(start + 2, end, _ENTRY):
        tag, kind, length = struct.unpack_from(order + "HHI", block, entry)
        if tag == _ORIENTATION and kind in (_SHORT, _LONG) and length == 1:
            layout = order + ("H" if kind == _SHORT else "I")
            (found,) = struct.unpack_from(layout, block, entry + 8)
            struct.pack_into(layout, block, entry + 8, 1)
            orientation = found if 1 <= found <= 8 else 1
    if end + 4 <= len(block):
        struct.pack_into(order + "I", block, end, 0)
    return orientation


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
        for tag in _DESCRIPTIVE:
            if tag in read:
                written[tag] = read[tag]
        for directory in _DIRECTORIES:
            if inner := read.get_ifd(directory):
                # Moved, a maker note is of no use: its offsets point nowhere.
                written[directory] = {tag: value for tag, value in inner.items() if tag != _MAKER_NOTE}
        return written.tobytes().removeprefix(_PREFIX) if len(written) else None
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return None  # odd values that Pillow reads but cannot write


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
                written.update({tag: read[tag] for tag in _DESCRIPTIVE if tag in read})
            elif len(read):
                written[place] = {tag: value for tag, value in read.items() if tag != _MAKER_NOTE}
        return written.tobytes().removeprefix(_PREFIX) if len(written) else None
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return None
