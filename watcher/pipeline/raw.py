"""Camera RAW through LibRaw: 16 bits of Adobe RGB with the camera's own white balance. Opens no file."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from PIL import Image

from watcher.errors import InputRejected
from watcher.pipeline import colour, exif, ifd, picture
from watcher.pipeline.boxes import boxes
from watcher.pipeline.picture import Picture

if TYPE_CHECKING:
    from rawpy import RawPy

_CONVERT = "Convert it to DNG with Adobe's DNG Converter, or export it as 16-bit TIFF."
_RAF = b"FUJIFILMCCD-RAW "
_SIGNATURES = (_RAF, b"FOVb", b"\0MRM", *ifd.ODD)
_CRW, _CR3 = b"HEAPCCDR", b"crx "
# Photometric interpretations of a sensor; compressions of Nikon, Sony, Samsung, Pentax and Kodak.
_SENSOR = (32803, 34892)
_MAKERS_OWN = (32767, 32769, 32770, 34713, 65000, 65535)
_DNG_VERSION = 50706
_XMP = 700
_CANON = (b"CMT1", b"CMT2", b"CMT4")


def is_raw(content: bytes) -> bool:
    """Whether LibRaw is the one to ask. Most RAWs are TIFFs, and told apart by what they hold."""
    if content.startswith(_SIGNATURES) or content[6:14] == _CRW or content[4:12] == b"ftyp" + _CR3:
        return True
    if content[:4] not in ifd.SIGNATURES:
        return False
    if content[8:10] == b"CR" or content[8:12] in (b"IIII", b"MMMM"):  # Canon, Phase One
        return True
    try:
        chain, inner = ifd.pages(content)
    except (EOFError, ValueError):
        return False
    return any(_is_sensor(tags) for tags in chain + inner)


def _is_sensor(tags: ifd.Tags) -> bool:
    photometric, packed = tags.get(262, (0,)), tags.get(259, (1,))
    return (
        _DNG_VERSION in tags
        or (len(photometric) == 1 and photometric[0] in _SENSOR)
        or (len(packed) == 1 and packed[0] in _MAKERS_OWN)
    )


def size_of(content: bytes) -> tuple[int, int]:
    """(width, height) of the picture LibRaw would make; unpacks nothing."""
    with _opened(content) as raw:
        return raw.sizes.iwidth, raw.sizes.iheight


def read(content: bytes, kind: str) -> Picture:
    """Upright already. Brightness is the camera's exposure: LibRaw's own would flicker in a series."""
    import rawpy

    _require_whole(content)
    with _opened(content) as raw:
        levels = raw.postprocess(
            output_bps=16,
            use_camera_wb=True,
            no_auto_bright=True,
            output_color=rawpy.ColorSpace.Adobe,
            gamma=(colour.ADOBE_GAMMA, 0),
        )
    found = picture.coloured(levels, colour.adobe_rgb(), grey=False)
    found.exif, found.xmp = _metadata(content)
    found.orientation = 1
    return found


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[RawPy]:
    """Raises InputRejected, or one of openers.Undecodable, also for what fails within the block."""
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(content)) as raw:
            yield raw
    except (rawpy.LibRawFileUnsupportedError, rawpy.NotSupportedError) as error:
        raise InputRejected(
            f"it is a camera RAW of a kind that LibRaw {_version()} cannot read", remedy=_CONVERT
        ) from error
    except rawpy.LibRawIOError as error:
        raise EOFError("the end of the file is missing") from error
    except rawpy.LibRawError as error:
        raise ValueError(str(error)) from error


def _version() -> str:
    import rawpy

    return ".".join(str(part) for part in rawpy.libraw_version)


def _require_whole(content: bytes) -> None:
    """Raises EOFError where pixels are missing, which LibRaw would fill with black."""
    if content.startswith(_RAF):
        for place in (84, 92, 100):  # the JPEG, the table, the sensor: offset and length of each
            offset, length = struct.unpack_from(">II", content, place)
            if offset + length > len(content):
                raise EOFError("the end of the file is missing")
    elif content[4:8] == b"ftyp":
        if b"mdat" not in {kind for kind, _, _ in boxes(content)}:
            raise EOFError("the end of the file is missing")
    elif content[:4] in ifd.SIGNATURES:
        chain, inner = ifd.pages(content)
        ifd.require_whole(chain + inner, len(content))


def _metadata(content: bytes) -> tuple[bytes | None, bytes | None]:
    """EXIF and XMP, wherever this maker keeps them."""
    if content.startswith(_RAF):
        offset, length = struct.unpack_from(">II", content, 84)
        return _of_jpeg(content[offset : offset + length])
    if content[4:8] == b"ftyp":
        return exif.of_blocks(_canon_blocks(content)), None
    tags = ifd.pages(content)[0][0] if content[:4] in ifd.SIGNATURES else {}
    return exif.of_tags(exif.tags_of(content)), bytes(tags[_XMP]) if _XMP in tags else None


def _of_jpeg(content: bytes) -> tuple[bytes | None, bytes | None]:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            return image.info.get("exif"), image.info.get("xmp")
    except (OSError, SyntaxError, ValueError):
        return None, None


def _canon_blocks(content: bytes) -> list[bytes]:
    """The TIFF blocks of a CR3: what it is, how it was taken, where."""
    for kind, start, end in boxes(content):
        if kind == b"moov":
            for inner, begin, stop in boxes(content, start, end):
                if inner == b"uuid":
                    found = {name: content[a:b] for name, a, b in boxes(content, begin + 16, stop)}
                    if _CANON[0] in found:
                        return [found.get(name, b"") for name in _CANON]
    return []
