"""JPEG XL. Two libraries, of the extra `codecs`, since neither does it all.

pylibjxl writes colour profiles, and turns 16 bits into 8; imagecodecs keeps 16 bits, and takes
no profile. Its bare codestream gets its container here.
"""

from __future__ import annotations

import struct

import numpy as np

from watcher.domain import Frame, Metadata, Pixels
from watcher.outputs import Output
from watcher.pipeline.scale import eight_bits

# libjxl's effort for our compression 0..3.
_EFFORT = (1, 3, 5, 7)
_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
_TYPE = b"ftypjxl \0\0\0\0jxl "


def narrowed(frame: Frame, output: Output) -> bool:
    """Whether 16 bits become 8 because there is a profile to keep: wrong colours are worse."""
    deep = frame.pixels.dtype == np.uint16 if output.depth == "auto" else output.depth == 16
    return deep and frame.profile is not None


def encode(image: Pixels, output: Output, profile: bytes | None, metadata: Metadata) -> bytes:
    """`image`: HxW, HxWx3 or HxWx4; alpha is straight."""
    distance = 0.0 if output.lossless else distance_of(output.quality)
    effort = _EFFORT[output.compression]
    if image.dtype == np.uint16 and profile is None:
        return _deep(image, distance, effort, metadata)
    import pylibjxl  # of an extra

    image = eight_bits(image)
    return pylibjxl.encode(
        image if image.ndim == 3 else image[..., None],
        effort=effort,
        distance=distance,
        lossless=output.lossless,
        exif=None if metadata.exif is None else b"\0\0\0\0" + metadata.exif,
        xmp=metadata.xmp,
        icc=profile,
    )


def distance_of(quality: int) -> float:
    """libjxl's distance for a JPEG-like quality, as its own cjxl has it: 90 is 1.0, 100 is 0.1."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def _deep(image: Pixels, distance: float, effort: int, metadata: Metadata) -> bytes:
    import imagecodecs  # of an extra

    plain = imagecodecs.jpegxl_encode(
        np.ascontiguousarray(image),
        distance=distance,
        lossless=distance == 0,
        effort=effort,
        usecontainer=False,
        numthreads=1,
    )
    boxes = [_SIGNATURE, _box(_TYPE[:4], _TYPE[4:])]
    if metadata.exif is not None:
        boxes.append(_box(b"Exif", b"\0\0\0\0" + metadata.exif))
    if metadata.xmp is not None:
        boxes.append(_box(b"xml ", metadata.xmp))
    # A length of 0: to the end of the file.
    return b"".join([*boxes, struct.pack(">I4s", 0, b"jxlc"), plain])


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body
