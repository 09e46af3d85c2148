"""A cutout to the bytes of one output: one module makes the pixels, one a format family the file.

Pure but for the picture that a composite may lie on. Same input, same bytes.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from watcher.domain import Frame, Metadata, Pixels
from watcher.outputs import Output
from watcher.pipeline import iptc, png, travel
from watcher.pipeline.encode import jpeg, jxl, kinds, packbits, psd, tiff, webp
from watcher.pipeline.refine import Refined
from watcher.pipeline.scale import eight_bits, sixteen_bits


def encode(output: Output, refined: Refined, frame: Frame) -> bytes:
    """The file that `output` asks for: as wide, deep and coloured as the source.

    A matte or a trimap is grey without a colour space, since it holds coverage, not light.
    Raises InputRejected where the format cannot hold the photo, HostError for a background
    picture that cannot be read.
    """
    if output.format in ("psd", "psb"):
        bits = kinds.bits_of(output, frame)
        layered = psd.Document(
            eight_bits(frame.pixels) if bits == 8 else sixteen_bits(frame.pixels),
            cast(Pixels, np.ascontiguousarray(refined.alpha_at(bits))),
            kinds.backdrop_of(output, frame, refined),
        )
        return psd.encode(
            layered,
            big=output.format == "psb",
            level=output.compression,
            profile=frame.profile,
            metadata=travel.metadata_for(frame, output.metadata, output.format),
        )
    image = kinds.pixels_of(output, refined, frame)
    if output.kind in kinds.COVERAGE:
        return _written(image, output, None, Metadata(dpi=frame.metadata.dpi), light=False)
    metadata = travel.metadata_for(frame, output.metadata, output.format)
    return _written(image, output, frame.profile, metadata, light=True)


def losses(output: Output, frame: Frame) -> list[str]:
    """What `output` cannot keep of this photo, in words for the sidecar."""
    if output.kind in kinds.COVERAGE:
        return []
    name = output.shown.removeprefix("NAME")
    lost = []
    if output.format == "jpeg":
        told = travel.metadata_for(frame, output.metadata, output.format)
        lost += [
            f"{name}: its {what} is too long for a JPEG and was left out" for what in jpeg.left_out(told)
        ]
    if output.format == "jxl" and jxl.narrowed(frame, output):
        lost.append(f"{name}: JPEG XL holds this photo's colour profile at 8 bits a channel only")
    return lost


def _written(
    image: Pixels, output: Output, profile: bytes | None, metadata: Metadata, *, light: bool
) -> bytes:
    """`image` in the format of `output`. `light`: it holds colours, in sRGB without a profile."""
    match output.format:
        case "png":
            return png.encode(
                image,
                level=output.compression,
                srgb=light and profile is None,
                profile=profile,
                metadata=metadata,
                texts=() if metadata.iptc is None else (iptc.png_text(metadata.iptc),),
            )
        case "tiff":
            return tiff.encode(
                image,
                pack=output.pack,
                level=output.compression,
                premultiplied=output.alpha == "premultiplied",
                profile=profile,
                metadata=metadata,
            )
        case "jpeg":
            return jpeg.encode(image, output.quality, profile, metadata)
        case "webp":
            return webp.encode_webp(image, output, profile, metadata)
        case "avif":
            return webp.encode_avif(image, output, profile, metadata)
    return jxl.encode(image, output, profile, metadata)


# Each compiles the kernels of one module.
WARM_UPS = (kinds.warm_up, packbits.warm_up, psd.warm_up, tiff.warm_up, png.warm_up)
