"""8-bit RGB to JPEG, with everything that travels in segments of its own."""

from __future__ import annotations

import struct

import simplejpeg

from watcher.domain import Metadata, Pixels
from watcher.errors import InputRejected
from watcher.pipeline import iptc

# A JPEG segment counts its bytes, and itself, in 16 bits.
_SEGMENT = 65533
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
# From here on half-resolution colour would be the larger loss.
_FULL_COLOUR_QUALITY = 90
_LONGEST_SIDE = 65535


def encode(image: Pixels, quality: int, profile: bytes | None, metadata: Metadata) -> bytes:
    """`image`: HxWx3 uint8. What is too long for its segment is left out: see `left_out`."""
    if max(image.shape) > _LONGEST_SIDE:
        raise InputRejected(
            f"a JPEG has {_LONGEST_SIDE} pixels a side at most", remedy="Ask for this output as PNG or TIFF."
        )
    sampling = "444" if quality >= _FULL_COLOUR_QUALITY else "420"
    plain = simplejpeg.encode_jpeg(image, quality, "RGB", sampling)
    # Its JFIF segment comes first and says nothing about resolution.
    start = 4 + struct.unpack_from(">H", plain, 4)[0]
    return b"".join([_jfif(plain[:start], metadata.dpi), *_segments(profile, metadata), plain[start:]])


def left_out(metadata: Metadata) -> list[str]:
    """Which of EXIF, XMP and IPTC do not fit into a segment."""
    return [name for name, body in _bodies(metadata) if len(body) > _SEGMENT]


def _bodies(metadata: Metadata) -> list[tuple[str, bytes]]:
    bodies = []
    if metadata.exif is not None:
        bodies.append(("EXIF", _EXIF + metadata.exif))
    if metadata.xmp is not None:
        bodies.append(("XMP", _XMP + metadata.xmp))
    if metadata.iptc is not None:
        bodies.append(("IPTC", iptc.PHOTOSHOP + iptc.resource(iptc.RESOURCE, metadata.iptc)))
    return bodies


def _jfif(head: bytes, dpi: tuple[float, float] | None) -> bytes:
    """SOI and JFIF segment, with the density in dots per inch."""
    if dpi is None or head[6:11] != b"JFIF\0":
        return head
    across, down = (max(1, min(65535, round(value))) for value in dpi)
    return head[:13] + struct.pack(">BHH", 1, across, down) + head[18:]


def _segments(profile: bytes | None, metadata: Metadata) -> list[bytes]:
    """EXIF and XMP as APP1, IPTC as APP13, ICC as APP2 in as many pieces as it takes."""
    segments = [
        _segment(0xED if name == "IPTC" else 0xE1, body)
        for name, body in _bodies(metadata)
        if len(body) <= _SEGMENT
    ]
    profile = profile or b""
    step = _SEGMENT - len(_ICC) - 2
    pieces = [profile[at : at + step] for at in range(0, len(profile), step)]
    if len(pieces) <= 255:
        for number, piece in enumerate(pieces, 1):
            segments.append(_segment(0xE2, _ICC + bytes([number, len(pieces)]) + piece))
    return segments


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
