"""Bytes of a known format to upright pixels at their native depth. Opens no file."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from watcher.domain import Pixels
from watcher.pipeline import deep, exif, iptc, jxl, openers, png, psd, raw, spaces, tiff
from watcher.pipeline.picture import BAD_PROFILE, SEVERAL, Picture, coloured, dpi_of, of_image, printable_dpi

# Their remarks about a stranger's file would fill the log; the exception says enough.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Complaints of libjpeg that mean lost pixels; others are about oddities cameras are known for.
# A few bytes too many before a marker are such an oddity; a hundred are a scan that broke off.
_LOST_PIXELS = re.compile(r"premature end|bad huffman|instead of rst|\d{3,} extraneous", re.IGNORECASE)


def read(content: bytes, kind: str, room: mmap.mmap | None = None) -> Picture:
    """Upright pixels and all that travels along. Raises InputRejected or InputNotReady.

    `room`: where a decoder that can may lay the pixels, from the beginning; others have memory of their own.
    """
    try:
        if kind == "JPEG":
            picture = _jpeg(content, kind, room)
        else:
            picture = _PICTURES.get(kind, _by_pillow)(content, kind)
        picture.iptc = iptc.found_in(content, kind)
        _stand_up(picture)
    except openers.Undecodable as error:
        raise openers.damaged(kind, error) from error
    return picture


def _stand_up(picture: Picture) -> None:
    if picture.exif is not None:
        found, picture.exif = exif.upright(picture.exif)
        if picture.orientation is None:
            picture.orientation = found
        if picture.exif is None:
            picture.warnings.append("its EXIF block is damaged and was dropped")
        elif picture.dpi is None:
            # HEIC, AVIF, WebP and JPEG XL have no other place for it.
            picture.dpi = exif.resolution_of(picture.exif)
    if picture.xmp is not None:
        picture.xmp = exif.upright_xmp(picture.xmp)
    picture.pixels = turned(picture.pixels, picture.orientation or 1)
    if picture.opacity is not None:
        picture.opacity = turned(picture.opacity, picture.orientation or 1)


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
    with openers.opened(content, kind) as image:
        several = getattr(image, "n_frames", 1) > 1 and image.format not in ("MPO", "PSD")
        image.load()
        profile, warnings = _profile_of(image, content, kind)
        picture = of_image(image, profile)
        picture.warnings += warnings
        picture.exif = image.info.get("exif") or None
        picture.xmp = image.info.get("xmp")
        picture.dpi = dpi_of(image)
    if several:
        picture.warnings.append(SEVERAL)
    return picture


def _profile_of(image: Image.Image, content: bytes, kind: str) -> tuple[bytes | None, list[str]]:
    """The profile that came with an image, or one that says what its file says in other words; and warnings."""
    profile: bytes | None = image.info.get("icc_profile")
    if profile is not None or image.mode in ("CMYK", "LAB"):
        return profile, []
    if kind in ("HEIF", "AVIF"):
        return spaces.of_container(content)
    return spaces.of_exif(image.info.get("exif")), []


def _jpeg(content: bytes, kind: str, room: mmap.mmap | None) -> Picture:
    """TurboJPEG where it can: a quarter of Pillow's time. CMYK and oddities go through Pillow."""
    with openers.opened(content, kind) as image:
        if image.mode not in ("RGB", "L"):
            return _by_pillow(content, kind)
        space = "RGB" if image.mode == "RGB" else "GRAY"
        fits = room is not None and len(room) >= 3 * image.width * image.height
        try:
            # strict: without it a file cut in half comes back half grey, and no error.
            pixels = simplejpeg.decode_jpeg(content, space, strict=True, buffer=room if fits else None)
        except ValueError as error:
            if _LOST_PIXELS.search(str(error)):
                raise
            picture = _by_pillow(content, kind)
            picture.warnings.append(f"the JPEG is not quite regular: {error}")
            return picture
        picture = coloured(pixels, _profile_of(image, content, kind)[0])
        picture.exif, picture.xmp = image.info.get("exif"), image.info.get("xmp")
        picture.dpi = dpi_of(image)
    return picture


def _png(content: bytes, kind: str) -> Picture:
    """Only the chunks that make pixels reach a decoder: no bomb in a comment, no libpng remarks."""
    found = {name: content[start:end] for name, start, end in png.chunks(content) if name in _PNG_TOLD}
    bare = png.only(content, _PNG_PIXELS)
    profile, warnings = _png_profile(found)
    depth, colours = content[24], content[25]
    if depth >= 8 and colours != _PALETTE and b"tRNS" not in found:
        picture = coloured(_by_libpng(bare), profile, grey=colours in (0, 4))
    elif depth == 16:
        picture = coloured(_by_opencv(bare), profile, grey=colours in (0, 4))
    else:
        with openers.opened(bare, kind) as image:
            image.load()
            picture = of_image(image, profile)
    picture.warnings += warnings
    if b"acTL" in found:
        picture.warnings.append("it is an animation; only its still picture was used")
    picture.exif, picture.xmp = png.exif_and_xmp(content)
    picture.dpi = _png_dpi(found.get(b"pHYs"))
    return picture


_PNG_TOLD = frozenset({b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"acTL", b"tRNS"})
_PALETTE = 3


def _png_profile(found: dict[bytes, bytes]) -> tuple[bytes | None, list[str]]:
    """The profile of the first that is there, in the order of PNG's third edition (4.3); and warnings."""
    if len(points := found.get(b"cICP", b"")) == 4:
        return spaces.of_code_points(*points[:2]), [spaces.HDR] if spaces.is_hdr(points[1]) else []
    if b"iCCP" in found:
        profile = png.profile_in(found[b"iCCP"])
        return profile, [BAD_PROFILE] if profile is None else []
    if b"gAMA" in found and b"sRGB" not in found:
        return spaces.of_png_gamma(found[b"gAMA"], found.get(b"cHRM")), []
    return None, []


def _by_libpng(content: bytes) -> Pixels:
    """HxW, HxWx2, HxWx3 or HxWx4 levels of a PNG as stored, at either depth."""
    import imagecodecs

    return cast(Pixels, imagecodecs.png_decode(content))


def _png_dpi(body: bytes | None) -> tuple[float, float] | None:
    if body is None or len(body) != 9 or body[8] != 1:
        return None
    return printable_dpi(int.from_bytes(body[:4]) * 0.0254, int.from_bytes(body[4:8]) * 0.0254)


def _by_opencv(content: bytes) -> Pixels:
    """HxW, HxWx3 RGB or HxWx4 RGBA levels of a PNG as stored; a transparent colour becomes alpha."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("its pixels cannot be decoded")
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels of type {image.dtype}")
    if image.ndim == 3 and image.shape[2] >= 3:
        code = cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return cast(Pixels, cv2.cvtColor(image, code))
    return cast(Pixels, image)


def _deep(reader: Callable[[bytes], Picture | None]) -> Callable[[bytes, str], Picture]:
    """Pillow, unless `reader` finds more than 8 bits."""

    def read(content: bytes, kind: str) -> Picture:
        return reader(content) or _by_pillow(content, kind)

    return read


_PICTURES: dict[str, Callable[[bytes, str], Picture]] = {
    "PNG": _png,
    "TIFF": tiff.read,
    "PSD": psd.read,
    "JXL": jxl.read,
    "RAW": raw.read,
    "HEIF": _deep(deep.heif),
    "AVIF": _deep(deep.avif),
    "JPEG2000": _deep(deep.jpeg2000),
    "PPM": _deep(deep.ppm),
}
