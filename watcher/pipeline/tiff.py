"""TIFF and BigTIFF to pixels: every compression, layout and depth that photographers meet. Opens no file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Pixels
from watcher.errors import InputRejected
from watcher.pipeline import colour, exif, ifd, openers, picture
from watcher.pipeline.picture import Picture

if TYPE_CHECKING:
    from tifffile import TiffPage

_BETTER = "Export it as 16-bit TIFF."
_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB, _ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_ASSOCIATED, _UNASSOCIATED = 1, 2
_OLD_JPEG, _JPEG = 6, 7
_XMP, _ICC = 700, 34675


def read(content: bytes, kind: str) -> Picture:
    """The first page that is not a thumbnail."""
    chain, inner = ifd.pages(content)
    ifd.require_whole(chain + inner, len(content))
    number = ifd.first(chain)
    tags = chain[number]
    _refuse(tags)
    found = _decoded(content, kind, tags, number)
    if found.orientation is None:
        found.orientation = tags.get(274, (1,))[0]
    found.exif = exif.of_tags(exif.tags_of(content))
    found.xmp = bytes(tags[_XMP]) if _XMP in tags else None
    found.dpi = picture.dpi_in(tags)
    if sum(not page.get(254, (0,))[0] & ifd.REDUCED for page in chain) > 1:
        found.warnings.append(picture.SEVERAL)
    return found


def _refuse(tags: ifd.Tags) -> None:
    """Raises InputRejected for numbers that are no levels of a photo."""
    bits = max(tags.get(258, (1,)))
    if 3 in tags.get(339, ()):
        raise InputRejected(
            f"it is a TIFF of {bits}-bit floating point numbers, which say nothing about how bright white is",
            remedy=_BETTER,
        )
    if 2 in tags.get(339, ()):
        raise InputRejected("it is a TIFF of signed numbers, not a photo", remedy=_BETTER)
    if bits > 16:
        raise InputRejected(f"it is a TIFF of {bits} bits a channel", remedy=_BETTER)


def _decoded(content: bytes, kind: str, tags: ifd.Tags, number: int) -> Picture:
    photometric = tags.get(262, (-1,))[0]
    packed = tags.get(259, (1,))[0]
    profile = bytes(tags[_ICC]) if _ICC in tags else None
    plain = photometric in (_WHITE_IS_ZERO, _GREY, _RGB, _CMYK, _LAB, _ICC_LAB)
    if packed == _OLD_JPEG or not (plain or (photometric == _YCBCR and packed == _JPEG)):
        return _by_pillow(content, kind, number, profile)
    levels, bits = _levels(content, number)
    match photometric:
        case 0 | 1:
            levels = picture.full_scale(levels, bits)
            if photometric == _WHITE_IS_ZERO:
                levels[..., 0] = np.iinfo(levels.dtype).max - levels[..., 0]
            return _with_alpha(levels, 1, tags, profile)
        case 5:
            if levels.shape[2] < 4:
                raise ValueError(f"{levels.shape[2]} inks")
            inks = cast(Pixels, np.ascontiguousarray(levels[..., :4]))
            return picture.of_cmyk(picture.full_scale(inks, bits), profile)
        case 8 | 9:
            return Picture(colour.deep_lab_to_srgb(_unsigned_lab(levels[..., :3], photometric)))
    return _with_alpha(picture.full_scale(levels, bits), 3, tags, profile)


def _levels(content: bytes, number: int) -> tuple[Pixels, int]:
    """HxWxC levels as they are stored, and their bits."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = cast("TiffPage", file.pages[number])
            levels: NDArray[Any] = page.asarray(maxworkers=1)
            bits = int(page.bitspersample)
            if page.planarconfig == 2 and levels.ndim == 3:
                levels = np.moveaxis(levels, 0, 2)
            if levels.shape[:2] != (page.imagelength, page.imagewidth):
                raise ValueError(f"pixels in the shape {levels.shape}")
    except tifffile.TiffFileError as error:
        raise ValueError(str(error)) from error
    levels = levels[..., None] if levels.ndim == 2 else levels
    if levels.dtype == np.bool_:
        levels = levels.astype(np.uint8)
    if levels.dtype.kind != "u":
        raise ValueError(f"pixels of type {levels.dtype}")
    return cast(Pixels, np.ascontiguousarray(levels, levels.dtype.newbyteorder("="))), bits


def _with_alpha(levels: Pixels, colours: int, tags: ifd.Tags, profile: bytes | None) -> Picture:
    """Channels behind the colours are alpha only where the file says so; else they are selections."""
    if levels.shape[2] < colours:
        raise ValueError(f"{levels.shape[2]} channels")
    extra = tags.get(338, ())[:1]
    alpha = levels.shape[2] > colours and extra in ((_ASSOCIATED,), (_UNASSOCIATED,))
    used = np.ascontiguousarray(levels[..., : colours + alpha])
    found = picture.coloured(cast(Pixels, used), profile, grey=colours == 1)
    if extra == (_ASSOCIATED,):
        picture.divide_by_opacity(found)
    return found


def _unsigned_lab(levels: Pixels, photometric: int) -> NDArray[np.uint16]:
    """CIE Lab as ICC's 16-bit encoding: L 0..65535, a and b with zero at 32896 and 257 a unit."""
    wide = levels.astype(np.int32)
    if levels.dtype == np.uint8:
        if photometric == _LAB:  # TIFF's a and b are signed
            wide[..., 1:] = (wide[..., 1:] + 128) % 256
        return cast(NDArray[np.uint16], (wide * 257).astype(np.uint16))
    if photometric == _ICC_LAB:  # ICC's older encoding: L up to 0xFF00, zero at 0x8000
        return cast(NDArray[np.uint16], np.minimum(wide * 65535 // 65280, 65535).astype(np.uint16))
    signed = (wide[..., 1:] + 32768) % 65536 - 32768
    wide[..., 1:] = np.clip(32896 + signed * 257 // 256, 0, 65535)
    return cast(NDArray[np.uint16], wide.astype(np.uint16))


def _by_pillow(content: bytes, kind: str, number: int, profile: bytes | None) -> Picture:
    """Palettes, faxes, subsampled YCbCr: rare, and 8 bits at most."""
    with openers.opened(content, kind) as image:
        image.seek(number)
        image.load()
        found = picture.of_image(image, profile)
        # Pillow has turned them already.
        found.orientation = 1
    return found
