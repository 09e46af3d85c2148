"""WebP and AVIF, by Pillow: 8 bits a channel, for the web."""

from __future__ import annotations

import io

from PIL import Image

from watcher.domain import Metadata, Pixels
from watcher.errors import InputRejected
from watcher.outputs import Output

WEBP_SIDE = 16383
_AVIF_SIDE = 65535
# Pillow's own scales, for our compression 0..3.
_METHOD = (0, 2, 4, 6)
_SPEED = (10, 8, 6, 3)
_FULL_COLOUR_QUALITY = 90


def encode_webp(image: Pixels, output: Output, profile: bytes | None, metadata: Metadata) -> bytes:
    """`image`: HxWx3 or HxWx4 uint8. Colours under alpha 0 are kept: they may be somebody's."""
    _fits(image, WEBP_SIDE, "WebP")
    return _saved(
        image,
        "WEBP",
        profile,
        metadata,
        lossless=output.lossless,
        # Without loss this is the effort instead.
        quality=output.compression * 25 if output.lossless else output.quality,
        method=_METHOD[output.compression],
        exact=True,
    )


def encode_avif(image: Pixels, output: Output, profile: bytes | None, metadata: Metadata) -> bytes:
    """`image`: HxWx3 or HxWx4 uint8; always lossy, since its colours become luma and chroma."""
    _fits(image, _AVIF_SIDE, "AVIF")
    return _saved(
        image,
        "AVIF",
        profile,
        metadata,
        quality=output.quality,
        speed=_SPEED[output.compression],
        subsampling="4:4:4" if output.quality >= _FULL_COLOUR_QUALITY else "4:2:0",
        # One thread: the daemon has its own, and the bytes must not depend on their number.
        max_threads=1,
    )


def _saved(image: Pixels, kind: str, profile: bytes | None, metadata: Metadata, **options: object) -> bytes:
    told = {"icc_profile": profile, "exif": metadata.exif, "xmp": metadata.xmp}
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, kind, **options, **{key: value for key, value in told.items() if value is not None}
    )
    return buffer.getvalue()


def _fits(image: Pixels, side: int, name: str) -> None:
    height, width = image.shape[:2]
    if max(height, width) > side:
        raise InputRejected(
            f"{name} has {side} pixels a side at most, and the photo is {width} x {height}",
            remedy="Ask for this output as PNG or TIFF, or export the photo smaller, then `hotmatte retry`.",
        )
