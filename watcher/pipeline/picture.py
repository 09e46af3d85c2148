"""What a reader found in a file, and how grey, RGB, RGBA, CMYK and Lab levels become that. Opens no file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from watcher.domain import Metadata, Pixels
from watcher.pipeline import colour, ifd

_WIDE_GREY = ("I;16", "I;16L", "I;16B", "I")
_NO_CMYK_PROFILE = "CMYK without a usable colour profile: its colours are a guess"
BAD_PROFILE = "its colour profile is damaged or does not fit and was ignored; taken for sRGB"
_CENTIMETRES = 2.54
SEVERAL = "it holds several pictures; only the first was used"


@dataclass(slots=True)
class Picture:
    """What a decoder found. `pixels` HxWx3 and `opacity` HxW as in Frame, not yet upright.

    `orientation`: which way they lie (1..8, TIFF 6.0 tag 274), None: as the EXIF block says.
    """

    pixels: Pixels
    opacity: Pixels | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    orientation: int | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def metadata(self) -> Metadata:
        return Metadata(self.exif, self.xmp, self.dpi, self.iptc)


def of_image(image: Image.Image, profile: bytes | None) -> Picture:
    """A loaded Pillow image of any mode as a Picture."""
    match image.mode:
        case "CMYK":
            return of_cmyk(np.array(image), profile)
        case "LAB":
            return Picture(np.array(colour.lab_to_srgb(image)))
        case mode if mode in _WIDE_GREY:
            levels = np.array(image)
            if levels.max(initial=0) > 65535 or levels.min(initial=0) < 0:
                raise ValueError("32-bit grey levels")
            return coloured(levels.astype(np.uint16), profile)
        case "F":
            raise ValueError("floating point pixels")
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La")
        return coloured(np.array(_in_mode(image, "RGBA")), profile, grey=grey)
    if image.mode in ("L", "1"):
        return coloured(np.array(_in_mode(image, "L")), profile)
    return coloured(np.array(_in_mode(image, "RGB")), profile)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """`convert` copies even where there is nothing to convert."""
    return image if image.mode == mode else image.convert(mode)


def of_cmyk(inks: Pixels, profile: bytes | None) -> Picture:
    """HxWx4 ink, 0 none and full scale all of it, as sRGB of the same depth."""
    if profile is not None and colour.space_of(profile) == "CMYK":
        try:
            if inks.dtype == np.uint8:
                return Picture(np.array(colour.to_srgb(Image.fromarray(inks, "CMYK"), profile)))
            return Picture(colour.deep_to_srgb(cast(NDArray[np.uint16], inks), profile, "cmyk"))
        except colour.Unusable:
            pass
    if inks.dtype == np.uint8:
        return Picture(np.array(Image.fromarray(inks, "CMYK").convert("RGB")), warnings=[_NO_CMYK_PROFILE])
    rgb = np.empty((*inks.shape[:2], 3), np.uint16)
    for rows in strips(inks):
        shown = 65535 - inks[rows].astype(np.uint32)
        rgb[rows] = shown[..., :3] * shown[..., 3:] // 65535
    return Picture(rgb, warnings=[_NO_CMYK_PROFILE])


def strips(levels: Pixels) -> Iterator[slice]:
    """Rows of about four megapixels at a time, for arithmetic in wider numbers."""
    step = max(1, (1 << 22) // max(1, levels.shape[1]))
    for start in range(0, levels.shape[0], step):
        yield slice(start, start + step)


def coloured(levels: Pixels, profile: bytes | None, *, grey: bool = False) -> Picture:
    """Grey, RGB or RGBA levels with the profile they came with, if it is one for them."""
    levels = levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels
    opacity = None
    if levels.ndim == 3 and levels.shape[2] in (2, 4):
        opacity = cast(Pixels, np.ascontiguousarray(levels[..., -1]))
        levels = levels[..., 0] if levels.shape[2] == 2 else levels
    space = None if profile is None else colour.space_of(profile)
    picture = Picture(levels, opacity)
    if space == "L" and (grey or levels.ndim == 2):
        levels = levels if levels.ndim == 2 else levels[..., 1]
        levels, profile = _toned(levels, colour.grey_curve(profile or b"")), None
    elif profile is not None and space != "RGB":
        picture.warnings.append(BAD_PROFILE)
        profile = None
    colours = cv2.merge([levels] * 3) if levels.ndim == 2 else np.ascontiguousarray(levels[..., :3])
    picture.pixels = cast(Pixels, colours)
    # A colour profile on grey pixels holds as well: equal levels are neutral in it.
    picture.profile = profile
    return picture


def _toned(levels: Pixels, curve: NDArray[np.uint16]) -> Pixels:
    """`curve`: the 16-bit sRGB level of each 16-bit grey level."""
    if levels.dtype == np.uint8:
        curve = ((curve[::257].astype(np.uint32) + 128) // 257).astype(np.uint8)
    return cast(Pixels, curve[levels])


def full_scale(levels: Pixels, bits: int) -> Pixels:
    """Levels of `bits` bits, 1 to 16, as uint8 or uint16 of full range; 0 and white stay exact."""
    dtype, width = (np.uint8, 8) if bits <= 8 else (np.uint16, 16)
    if bits == width:
        return cast(Pixels, levels.astype(dtype, copy=False))
    # A table, for a multiplication at full size would need four times the memory.
    table = (np.arange(2**bits, dtype=np.uint64) * (2**width - 1) + (2**bits - 1) // 2) // (2**bits - 1)
    return cast(Pixels, table.astype(dtype)[levels])


def divide_by_opacity(picture: Picture) -> None:
    """Associated alpha, as some TIFFs have it, to the straight one we use everywhere."""
    if picture.opacity is None:
        return
    top = np.iinfo(picture.pixels.dtype).max
    for rows in strips(picture.pixels):
        scale = top / np.maximum(picture.opacity[rows], 1).astype(np.float32)
        straight = np.minimum(picture.pixels[rows] * scale[..., None] + 0.5, top)
        picture.pixels[rows] = straight.astype(picture.pixels.dtype)


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Pillow's reading, where it is a number a printer could use."""
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return printable_dpi(across, down)


def dpi_in(tags: ifd.Tags) -> tuple[float, float] | None:
    """From XResolution, YResolution and their unit, of a TIFF or an EXIF block."""
    unit = tags.get(296, (2,))[0]
    across, down = tags.get(282, (0, 1)), tags.get(283, (0, 1))
    if unit not in (2, 3) or len(across) != 2 or len(down) != 2 or not (across[1] and down[1]):
        return None
    factor = _CENTIMETRES if unit == 3 else 1.0
    return printable_dpi(across[0] / across[1] * factor, down[0] / down[1] * factor)


def printable_dpi(across: float, down: float) -> tuple[float, float] | None:
    """(across, down), unless a printer could not use it. A TIFF without a unit reads as 1."""
    return (across, down) if 1 < across <= 100_000 and 1 < down <= 100_000 else None
