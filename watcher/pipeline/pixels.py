"""Bytes of a known format to upright pixels at their native depth. Opens no file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from watcher.domain import Metadata, Pixels
from watcher.errors import InputRejected
from watcher.pipeline import colour, exif, iptc, png, sniff

# Their remarks about a stranger's file would fill the log; the exception says enough.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Complaints of libjpeg that mean lost pixels; others are about oddities cameras are known for.
# A few bytes too many before a marker are such an oddity; a hundred are a scan that broke off.
_LOST_PIXELS = re.compile(r"premature end|bad huffman|instead of rst|\d{3,} extraneous", re.IGNORECASE)
_WIDE_GREY = ("I;16", "I;16L", "I;16B", "I")
_NO_CMYK_PROFILE = "CMYK without a usable colour profile: its colours are a guess"
_BAD_PROFILE = "its colour profile is damaged or does not fit and was ignored; taken for sRGB"


@dataclass(slots=True)
class Picture:
    """What a decoder found. `pixels` HxWx3 and `opacity` HxW as in Frame, not yet upright."""

    pixels: Pixels
    opacity: Pixels | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def metadata(self) -> Metadata:
        return Metadata(self.exif, self.xmp, self.dpi, self.iptc)


def read(content: bytes, kind: str) -> Picture:
    """Upright pixels and all that travels along. Raises InputRejected or InputNotReady."""
    try:
        picture = _PICTURES.get(kind, _by_pillow)(content, kind)
        picture.iptc = iptc.found_in(content, kind)
        _stand_up(picture)
    except sniff.Undecodable as error:
        raise sniff.damaged(kind, error) from error
    return picture


def _stand_up(picture: Picture) -> None:
    orientation = 1
    if picture.exif is not None:
        orientation, picture.exif = exif.upright(picture.exif)
        if picture.exif is None:
            picture.warnings.append("its EXIF block is damaged and was dropped")
    if picture.xmp is not None:
        picture.xmp = exif.upright_xmp(picture.xmp)
    picture.pixels = turned(picture.pixels, orientation)
    if picture.opacity is not None:
        picture.opacity = turned(picture.opacity, orientation)


def turned(image: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation 1..8 (TIFF 6.0, tag 274)."""
    match orientation:
        case 2:
            result = cv2.flip(image, 1)
        case 3:
            result = cv2.rotate(image, cv2.ROTATE_180)
        case 4:
            result = cv2.flip(image, 0)
        case 5:
            result = cv2.transpose(image)
        case 6:
            result = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            result = cv2.flip(cv2.transpose(image), -1)
        case 8:
            result = cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            result = image
    return cast(Pixels, np.ascontiguousarray(result))


# --- Formats -------------------------------------------------------------------------------


def _by_pillow(content: bytes, kind: str) -> Picture:
    with sniff.opened(content, kind) as image:
        several = getattr(image, "n_frames", 1) > 1 and image.format not in ("MPO", "PSD")
        # Before load(): Pillow turns TIFF pixels by itself and then forgets the tag.
        block = exif.of_tiff(image) if kind == "TIFF" else image.info.get("exif")
        image.load()
        picture = _of_image(image, image.info.get("icc_profile"))
        picture.exif = block or None
        picture.xmp = image.info.get("xmp")
        picture.dpi = _dpi(image)
    if several:
        picture.warnings.append("it holds several pictures; only the first was used")
    return picture


def _jpeg(content: bytes, kind: str) -> Picture:
    """TurboJPEG where it can: a quarter of Pillow's time. CMYK and oddities go through Pillow."""
    with sniff.opened(content, kind) as image:
        if image.mode not in ("RGB", "L"):
            return _by_pillow(content, kind)
        space = "RGB" if image.mode == "RGB" else "GRAY"
        try:
            # strict: without it a file cut in half comes back half grey, and no error.
            pixels = simplejpeg.decode_jpeg(content, space, strict=True)
        except ValueError as error:
            if _LOST_PIXELS.search(str(error)):
                raise
            picture = _by_pillow(content, kind)
            picture.warnings.append(f"the JPEG is not quite regular: {error}")
            return picture
        picture = _coloured(pixels, image.info.get("icc_profile"))
        picture.exif, picture.xmp = image.info.get("exif"), image.info.get("xmp")
        picture.dpi = _dpi(image)
    return picture


def _png(content: bytes, kind: str) -> Picture:
    """Only the chunks that make pixels reach a decoder: no bomb in a comment, no libpng remarks."""
    found = {name: content[start:end] for name, start, end in png.chunks(content) if name in _PNG_TOLD}
    bare = png.only(content, _PNG_PIXELS)
    profile = png.profile_in(found[b"iCCP"]) if b"iCCP" in found else None
    if content[24] == 16:
        picture = _coloured(_by_opencv(bare), profile, grey=content[25] in (0, 4))
    else:
        with sniff.opened(bare, kind) as image:
            image.load()
            picture = _of_image(image, profile)
    if b"iCCP" in found and profile is None:
        picture.warnings.append(_BAD_PROFILE)
    if b"acTL" in found:
        picture.warnings.append("it is an animation; only its still picture was used")
    picture.exif = found.get(b"eXIf")
    picture.xmp = png.xmp_in(found[b"iTXt"]) if b"iTXt" in found else None
    picture.dpi = _png_dpi(found.get(b"pHYs"))
    return picture


_PNG_TOLD = frozenset({b"iCCP", b"eXIf", b"iTXt", b"pHYs", b"acTL"})


def _png_dpi(body: bytes | None) -> tuple[float, float] | None:
    if body is None or len(body) != 9 or body[8] != 1:
        return None
    across, down = int.from_bytes(body[:4]) * 0.0254, int.from_bytes(body[4:8]) * 0.0254
    return (across, down) if across > 0 and down > 0 else None


def _tiff(content: bytes, kind: str) -> Picture:
    """Pillow reads 16-bit colour as 8: those go to OpenCV."""
    tags = sniff.tiff_tags(content)
    if 3 in tuple(tags.get(339, ())):
        raise InputRejected("it is a TIFF of floating point numbers", remedy="Export it as 16-bit TIFF.")
    bits = max(tags.get(258, (1,)))
    if bits > 16:
        raise InputRejected(f"it is a TIFF of {bits} bits a channel", remedy="Export it as 16-bit TIFF.")
    # Photometric 1 and 2 are grey and RGB; the rest is rare enough at 16 bits to go the 8-bit way.
    if bits < 16 or tags.get(262) not in (1, 2):
        return _by_pillow(content, kind)
    picture = _coloured(_by_opencv(content), tags.get(34675))
    if 1 in tuple(tags.get(338, ())):
        _divide_by_opacity(picture)
    with sniff.opened(content, kind) as image:
        picture.exif, picture.xmp, picture.dpi = exif.of_tiff(image), tags.get(700), _dpi(image)
        if getattr(image, "n_frames", 1) > 1:
            picture.warnings.append("it holds several pictures; only the first was used")
    return picture


def _by_opencv(content: bytes) -> Pixels:
    """HxW, HxWx3 RGB or HxWx4 RGBA at native depth: TIFF upright already, PNG as stored."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("its pixels cannot be decoded")
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels of type {image.dtype}")
    if image.ndim == 3 and image.shape[2] >= 3:
        code = cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return cast(Pixels, cv2.cvtColor(image, code))
    return cast(Pixels, image)


def _divide_by_opacity(picture: Picture) -> None:
    """Associated alpha, as some TIFFs have it, to the straight one we use everywhere."""
    if picture.opacity is None:
        return
    top = np.iinfo(picture.pixels.dtype).max
    scale = top / np.maximum(picture.opacity, 1).astype(np.float32)
    straight = np.minimum(picture.pixels * scale[..., None] + 0.5, top)
    picture.pixels = cast(Pixels, straight.astype(picture.pixels.dtype))


_PICTURES = {"JPEG": _jpeg, "PNG": _png, "TIFF": _tiff}


# --- Modes ---------------------------------------------------------------------------------


def _of_image(image: Image.Image, profile: bytes | None) -> Picture:
    """A loaded Pillow image of any mode as a Picture."""
    match image.mode:
        case "CMYK":
            return _from_cmyk(image, profile)
        case "LAB":
            return Picture(np.array(colour.lab_to_srgb(image)))
        case mode if mode in _WIDE_GREY:
            levels = np.array(image)
            if levels.max(initial=0) > 65535 or levels.min(initial=0) < 0:
                raise ValueError("32-bit grey levels")
            return _coloured(levels.astype(np.uint16), profile)
        case "F":
            raise ValueError("floating point pixels")
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La")
        return _coloured(np.array(image.convert("RGBA")), profile, grey=grey)
    if image.mode in ("L", "1"):
        return _coloured(np.array(image.convert("L")), profile)
    return _coloured(np.array(image.convert("RGB")), profile)


def _from_cmyk(image: Image.Image, profile: bytes | None) -> Picture:
    if profile is not None:
        try:
            return Picture(np.array(colour.to_srgb(image, profile)))
        except colour.Unusable:
            pass
    return Picture(np.array(image.convert("RGB")), warnings=[_NO_CMYK_PROFILE])


def _coloured(levels: Pixels, profile: bytes | None, *, grey: bool = False) -> Picture:
    """Grey, RGB or RGBA levels with the profile they came with, if it is one for them."""
    levels = levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels
    opacity = None
    if levels.ndim == 3 and levels.shape[2] == 4:
        opacity = cast(Pixels, np.ascontiguousarray(levels[..., 3]))
    space = None if profile is None else colour.space_of(profile)
    picture = Picture(levels, opacity)
    if space == "L" and (grey or levels.ndim == 2):
        levels = levels if levels.ndim == 2 else levels[..., 1]
        levels, profile = _toned(levels, colour.grey_curve(profile or b"")), None
    elif profile is not None and space != "RGB":
        picture.warnings.append(_BAD_PROFILE)
        profile = None
    colours = cv2.merge([levels] * 3) if levels.ndim == 2 else np.ascontiguousarray(levels[..., :3])
    picture.pixels = cast(Pixels, colours)
    # A colour profile on grey pixels holds as well: equal levels are neutral in it.
    picture.profile = profile
    return picture


def _toned(levels: Pixels, curve: NDArray[np.float32]) -> Pixels:
    """`curve`: 256 values 0..1, the sRGB level for each grey level."""
    top = np.iinfo(levels.dtype).max
    table = np.interp(np.linspace(0, 1, top + 1), np.linspace(0, 1, 256), curve)
    return cast(Pixels, (table * top + 0.5).astype(levels.dtype)[levels])


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    """Pillow's reading, where it is a number a printer could use."""
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    # A TIFF without a unit reads as 1.
    return (across, down) if 1 < across <= 100_000 and 1 < down <= 100_000 else None
