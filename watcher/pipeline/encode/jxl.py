"""JPEG XL. Two libraries, of the extra `codecs`, since neither does it all.

pylibjxl writes colour profiles, and turns 16 bits into 8; imagecodecs keeps 16 bits, takes no
profile, and takes them for linear light, which is put right here. EXIF and XMP are put around the codestream here.
"""

from __future__ import annotations

import struct

import numpy as np

from watcher.domain import Frame, Metadata, Pixels
from watcher.outputs import Output
from watcher.pipeline.encode import jxl_header
from watcher.pipeline.scale import eight_bits

# libjxl's effort for our compression 0..3.
_EFFORT = (1, 3, 5, 7)
_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
_TYPE = b"\0\0\0\x14ftypjxl \0\0\0\0jxl "


def narrowed(frame: Frame, output: Output) -> bool:
    """Whether 16 bits become 8 because there is a profile to keep: wrong colours are worse."""
    deep = frame.pixels.dtype == np.uint16 if output.depth == "auto" else output.depth == 16
    return deep and frame.profile is not None


def encode(image: Pixels, output: Output, profile: bytes | None, metadata: Metadata) -> bytes:
    """`image`: HxW, HxWx3 or HxWx4; alpha is straight."""
    distance = 0.0 if output.lossless else distance_of(output.quality)
    effort = _EFFORT[output.compression]
    if image.dtype == np.uint16 and profile is None:
        import imagecodecs  # of an extra

        content = imagecodecs.jpegxl_encode(
            # Without loss levels are kept as they are; with it, it is colours that are.
            np.ascontiguousarray(image if output.lossless else _linear(image)),
            distance=distance,
            lossless=output.lossless,
            effort=effort,
            usecontainer=False,
            numthreads=1,
        )
        content = jxl_header.as_srgb(bytes(content))
    else:
        import pylibjxl  # of an extra

        image = eight_bits(image)
        content = pylibjxl.encode(
            image if image.ndim == 3 else image[..., None],
            effort=effort,
            distance=distance,
            lossless=output.lossless,
            icc=profile,
        )
    return _with_boxes(bytes(content), metadata)


def _linear(image: Pixels) -> Pixels:
    """16-bit levels of sRGB (IEC 61966-2-1) as linear light; alpha, a second or fourth channel, as it is."""
    levels = np.arange(65536) / 65535
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    linear: Pixels = np.rint(light * 65535).astype(np.uint16)[image]
    if image.ndim == 3 and image.shape[2] in (2, 4):
        linear[..., -1] = image[..., -1]
    return linear


def distance_of(quality: int) -> float:
    """libjxl's distance for a JPEG-like quality, as its own cjxl has it: 90 is 1.0, 100 is 0.1."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def _with_boxes(content: bytes, metadata: Metadata) -> bytes:
    """`content` with EXIF and XMP in boxes of their own: uncompressed, so that every program finds them."""
    boxes = []
    if metadata.exif is not None:
        boxes.append(_box(b"Exif", bytes(4) + metadata.exif))  # the four say where in it to begin
    if metadata.xmp is not None:
        boxes.append(_box(b"xml ", metadata.xmp))
    if not boxes:
        return content
    head, codestream = _parted(content)
    return b"".join([*head, *boxes, *codestream])


def _parted(content: bytes) -> tuple[list[bytes], list[bytes]]:
    """What has to come first in a container, and the rest; a bare codestream gets its container."""
    if not content.startswith(_SIGNATURE):
        # A length of 0: to the end of the file.
        return [_SIGNATURE, _TYPE], [struct.pack(">I4s", 0, b"jxlc"), content]
    at = len(_SIGNATURE)
    while content[at + 4 : at + 8] in (b"ftyp", b"jxll"):
        at += int.from_bytes(content[at : at + 4])
    return [content[:at]], [content[at:]]


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body
