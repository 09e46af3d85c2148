"""What a file is and how large, from its first bytes, before a pixel is decoded. Pure."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import cv2
from PIL import AvifImagePlugin, Image, ImageCms, TiffImagePlugin
from pillow_heif import register_heif_opener

from watcher.errors import InputNotReady, InputRejected
from watcher.pipeline import png

register_heif_opener(thumbnails=False)
# Our own limit comes first and is a setting; theirs would only warn.
Image.MAX_IMAGE_PIXELS = None
# Remarks about single tags of a stranger's file are no news for whoever runs the daemon.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
assert AvifImagePlugin.SUPPORTED, "this Pillow was built without AVIF"

# What decoders throw at a file they cannot make sense of.
Undecodable = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    cv2.error,
    ImageCms.PyCMSError,
)

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
    *((b"P%d" % digit, "PPM") for digit in range(1, 7)),
)
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"
# Which of Pillow's readers may see a file we took for this; never one that runs other programs.
READERS = {"JPEG": ("JPEG", "MPO")}
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2", b"miaf")


def kind_of(content: bytes) -> str:
    """The format by content, whatever the name says. Raises InputRejected, with what it is instead."""
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp" and (brand := _isobmff(content)):
        return brand
    if content[-len(_TGA_FOOTER) :] == _TGA_FOOTER:
        return "TGA"
    raise InputRejected(_what_it_is_instead(content))


def _isobmff(content: bytes) -> str | None:
    """HEIF and AVIF share a container; the brands tell them apart."""
    (length,) = struct.unpack_from(">I", content)
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, min(length, 256), 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "AVIF"
    return "HEIF" if any(brand in _HEIF_BRANDS for brand in brands) else None


def _what_it_is_instead(content: bytes) -> str:
    if not content:
        return "the file is empty"
    start = content[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "this is a web page or an XML document, not a photo"
    if all(32 <= byte < 127 or byte in b"\t\r\n\f" for byte in content[:512]):
        return "this is a text file, not a photo"
    if content[:4] == b"%PDF":
        return "this is a PDF, not a photo"
    if not any(content[:4096]):
        return "the file holds only zeros: its copy was probably interrupted"
    return "this is not an image of any kind that can be read here"


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
            case _:
                with opened(content, kind) as image:
                    width, height = image.size
    except Undecodable as error:
        raise damaged(kind, error) from error
    if width < 1 or height < 1:
        raise InputRejected(f"its header says {width} x {height} pixels")
    return width, height


def opened(content: bytes, kind: str) -> Image.Image:
    """Pillow's view of `content`, header only. Raises one of `Undecodable`."""
    return Image.open(io.BytesIO(content), formats=READERS.get(kind, (kind,)))


def damaged(kind: str, error: BaseException) -> InputRejected | InputNotReady:
    """What a decoder's complaint means for the one who dropped the file."""
    words = str(error)
    if isinstance(error, png.Truncated) or any(
        sign in words.lower()
        for sign in (
            "truncated",
            "premature end of jpeg",
            "end of file",
            "end of the file",
            "incomplete",
            "eof",
        )
    ):
        return InputNotReady(f"the {kind} file is cut off: its end is missing")
    if "cannot identify" in words:
        words = "its header makes no sense, or it is of a rare kind"
    return InputRejected(f"the {kind} file is damaged or of a kind that cannot be read here ({words})")


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
    tags = tiff_tags(content)
    return int(tags[256]), int(tags[257])


def tiff_tags(content: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The first page's tags. Raises one of `Undecodable`."""
    file = io.BytesIO(content)
    header = file.read(8)
    if header[2:3] == b"+" or header[3:4] == b"+":
        header += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    if 256 not in tags or 257 not in tags:
        raise EOFError("the end of the file is missing")
    return tags
