"""What a file is and how large, from its first bytes, before a pixel is decoded. Pure."""

from __future__ import annotations

import struct

from watcher.errors import InputRejected
from watcher.pipeline import foreign, ifd, jpeg, jxl, png, psd, raw
from watcher.pipeline.openers import Undecodable, damaged, opened

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (png.SIGNATURE, "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"8BPS", "PSD"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (jxl.CODESTREAM, "JXL"),
    (jxl.CONTAINER, "JXL"),
    *((b"P%d" % digit, "PPM") for digit in range(1, 7)),
)
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2", b"miaf")


def kind_of(content: bytes) -> str:
    """The format by content, whatever the name says. Raises InputRejected, with what it is instead."""
    if raw.is_raw(content):
        return "RAW"
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp" and (brand := _isobmff(content)):
        return brand
    if content[-len(_TGA_FOOTER) :] == _TGA_FOOTER:
        return "TGA"
    reason, remedy = foreign.named(content)
    raise InputRejected(reason, remedy=remedy)


def _isobmff(content: bytes) -> str | None:
    """HEIF and AVIF share a container; the brands tell them apart."""
    (length,) = struct.unpack_from(">I", content)
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, min(length, 256), 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "AVIF"
    return "HEIF" if any(brand in _HEIF_BRANDS for brand in brands) else None


def size_of(content: bytes, kind: str) -> tuple[int, int]:
    """(width, height) as the header has it; nothing is decoded and nothing large allocated.

    Raises InputRejected or InputNotReady.
    """
    try:
        match kind:
            case "PNG":
                width, height = struct.unpack_from(">II", content, 16)
            case "WEBP":
                # Pillow allocates the whole canvas as soon as it opens one.
                width, height = _webp_size(content)
            case "TIFF":
                width, height = _tiff_size(content)
            case "PSD":
                width, height = psd.size_of(content)
            case "JXL":
                width, height = jxl.size_of(content)
            case "JPEG":
                jpeg.refuse(content)
                with opened(content, kind) as image:
                    width, height = image.size
            case "RAW":
                width, height = raw.size_of(content)
            case _:
                with opened(content, kind) as image:
                    width, height = image.size
    except Undecodable as error:
        raise damaged(kind, error) from error
    if width < 1 or height < 1:
        raise InputRejected(f"its header says {width} x {height} pixels")
    return width, height


def _webp_size(content: bytes) -> tuple[int, int]:
    """See RFC 9649: the first chunk says it, in one of three ways."""
    (riff,) = struct.unpack_from("<I", content, 4)
    if riff + 8 > len(content):
        raise EOFError("the end of the file is missing")
    match content[12:16]:
        case b"VP8X":
            return _uint24(content, 24) + 1, _uint24(content, 27) + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", content, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", content, 26)
            return width & 0x3FFF, height & 0x3FFF
    raise ValueError("unknown first chunk")


def _uint24(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 3], "little")


def _tiff_size(content: bytes) -> tuple[int, int]:
    chain, _ = ifd.pages(content)
    tags = chain[ifd.first(chain)]
    if 256 not in tags or 257 not in tags:
        raise EOFError("the end of the file is missing")
    return tags[256][0], tags[257][0]
