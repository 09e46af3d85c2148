"""What an upload is, judged by its first bytes: before anything is decoded, and before it is kept."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import IO, Any, cast

import pillow_heif
from PIL import Image, UnidentifiedImageError

from watcher.web.refusal import Refused

pillow_heif.register_heif_opener()
# Pixels are counted here, with words of our own.
Image.MAX_IMAGE_PIXELS = None

# The header of a real photo takes some hundred. One that goes on for megabytes is not worth their time.
MOST_READS = 20_000

# Pillow's name of a format to the ending that a hot folder takes.
ENDINGS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "TIFF": "tif",
    "WEBP": "webp",
    "BMP": "bmp",
    "GIF": "gif",
    "HEIF": "heic",
    "AVIF": "avif",
    "PSD": "psd",
}


@dataclass(frozen=True, slots=True)
class Look:
    """`ending` without its dot; width and height in pixels as stored."""

    ending: str
    width: int
    height: int


class _Header:
    """As much of a file as Pillow asks for before it decodes. Raises OSError for a header without end."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self._left = MOST_READS

    def read(self, size: int = -1) -> bytes:
        self._count()
        return self._content.read(size)

    def readline(self, size: int = -1) -> bytes:
        self._count()
        return self._content.readline(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise OSError("its header has no end")


def look_at(content: IO[bytes], *, max_mp: float) -> Look:
    """Raises Refused for what is no photo, or has more than `max_mp` megapixels."""
    content.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(cast(IO[bytes], _Header(content))) as image:
                ending, (width, height) = ENDINGS.get(image.format or ""), image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
        raise Refused(
            400,
            "failed_to_read_image",
            "The upload is not a photo that can be read",
            detail="Send a JPEG, PNG, TIFF, WebP, HEIC, AVIF, PSD, BMP or GIF.",
        ) from error
    if ending is None:
        raise Refused(400, "invalid_file_type", "This kind of image is not taken")
    if width * height > max_mp * 1e6:
        raise Refused(
            400,
            "resolution_too_high",
            f"The photo has {width * height / 1e6:.1f} megapixels; the limit is {max_mp:g}",
        )
    content.seek(0)
    return Look(ending, width, height)
