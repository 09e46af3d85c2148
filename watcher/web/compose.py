"""From a published cutout to what a client asked for: size, region, crop, place, background, bytes. Pure."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass

from PIL import Image, ImageOps

from watcher.web.colours import to_srgb
from watcher.web.refusal import Refused
from watcher.web.wanted import Format, Wanted

Box = tuple[int, int, int, int]

# Less alpha than this (of 255) is haze, not the subject's outline.
OUTLINE = 13
MEDIA = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "zip": "application/zip"}
JPEG_QUALITY = 92
WHITE = (255, 255, 255, 255)


@dataclass(frozen=True, slots=True)
class Composed:
    """`foreground`: left, top, right, bottom of the subject in the picture."""

    content: bytes
    format: str
    width: int
    height: int
    foreground: Box

    @property
    def media_type(self) -> str:
        return MEDIA[self.format]


def compose(cutout: Image.Image, want: Wanted, *, behind: Image.Image | None = None) -> Composed:
    """`cutout` with straight alpha; `behind`: a background picture. Raises Refused."""
    subject = _sized(to_srgb(cutout).convert("RGBA"), want.megapixels)
    if want.roi is not None:
        subject = _within(subject, _region(want, subject.size))
    box = _outline(subject)
    canvas, box = _cropped(subject, box, want) if want.crop else (subject, box)
    if want.scale is not None or want.position is not None:
        canvas, box = _placed(canvas, box, want)
    picture = _over(canvas, want, behind)
    kind = _format(picture, want)
    content = _zipped(picture) if kind == "zip" else _encoded(picture, kind, alpha_only=want.alpha_only)
    return Composed(content, kind, picture.width, picture.height, box)


def _sized(image: Image.Image, megapixels: float | None) -> Image.Image:
    if megapixels is None or image.width * image.height <= megapixels * 1e6:
        return image
    factor = math.sqrt(megapixels * 1e6 / (image.width * image.height))
    return _resized(image, max(1, int(image.width * factor)), max(1, int(image.height * factor)))


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """With its colours weighed by alpha, or the edges would grow a fringe of what was behind them."""
    return image.convert("RGBa").resize((width, height), Image.Resampling.BICUBIC).convert("RGBA")


def _region(want: Wanted, size: tuple[int, int]) -> Box:
    assert want.roi is not None
    wholes = (size[0], size[1], size[0], size[1])
    left, top, right, bottom = (
        min(whole, max(0, round(length.of(whole)))) for length, whole in zip(want.roi, wholes, strict=True)
    )
    if left >= right or top >= bottom:
        raise Refused(400, "roi_region_empty", "The region of interest holds no pixels")
    return (left, top, right, bottom)


def _within(image: Image.Image, region: Box) -> Image.Image:
    """Nothing outside `region` is foreground."""
    clear = Image.new("RGBA", image.size, (0, 0, 0, 0))
    clear.paste(image.crop(region), region[:2])
    return clear


def _outline(image: Image.Image) -> Box:
    box = image.getchannel("A").point(lambda level: 255 * (level >= OUTLINE)).getbbox()
    if box is None:
        raise Refused(
            400,
            "unknown_foreground",
            "Could not identify foreground in image",
            detail="Nothing in the photo, or in its region of interest, was taken for a person.",
        )
    return box


def _cropped(image: Image.Image, box: Box, want: Wanted) -> tuple[Image.Image, Box]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    above = rightwards = below = leftwards = 0
    if want.margins is not None:
        wholes = (height, width, height, width)
        above, rightwards, below, leftwards = (
            round(length.of(whole)) for length, whole in zip(want.margins, wholes, strict=True)
        )
    # Beyond the photo's own border crop() leaves it transparent.
    canvas = image.crop((left - leftwards, top - above, right + rightwards, bottom + below))
    return canvas, (leftwards, above, leftwards + width, above + height)


def _placed(canvas: Image.Image, box: Box, want: Wanted) -> tuple[Image.Image, Box]:
    subject = canvas.crop(box)
    if want.scale is not None:
        factor = want.scale * min(canvas.width / subject.width, canvas.height / subject.height)
        subject = _resized(
            subject, max(1, round(subject.width * factor)), max(1, round(subject.height * factor))
        )
    across, down = want.position or (0.5, 0.5)
    left = round((canvas.width - subject.width) * across)
    top = round((canvas.height - subject.height) * down)
    placed = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
    placed.paste(subject, (left, top))
    return placed, (left, top, left + subject.width, top + subject.height)


def _over(image: Image.Image, want: Wanted, behind: Image.Image | None) -> Image.Image:
    if want.alpha_only:
        return image.getchannel("A")
    under = Image.new("RGBA", image.size, want.background) if want.background else None
    if behind is not None:
        fitted = ImageOps.fit(to_srgb(ImageOps.exif_transpose(behind)).convert("RGBA"), image.size)
        under = fitted if under is None else Image.alpha_composite(under, fitted)
    return image if under is None else Image.alpha_composite(under, image)


def _format(picture: Image.Image, want: Wanted) -> Format:
    if want.format != "auto":
        return want.format
    opaque = picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255)
    return "jpg" if opaque else "png"


def _encoded(picture: Image.Image, kind: str, *, alpha_only: bool) -> bytes:
    out = io.BytesIO()
    match kind:
        case "jpg":
            flat = picture if alpha_only else _flat(picture)
            flat.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        case "webp":
            picture.save(out, "WEBP", quality=90, method=3)
        case _:
            picture.save(out, "PNG", compress_level=3)
    return out.getvalue()


def _flat(picture: Image.Image) -> Image.Image:
    """JPEG knows no transparency: white is behind, as remove.bg has it."""
    return Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture.convert("RGBA")).convert(
        "RGB"
    )


def _zipped(picture: Image.Image) -> bytes:
    """`color.jpg`, the colours without regard to alpha, and `alpha.png`: smaller than one PNG."""
    whole = picture.convert("RGBA")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("color.jpg", _encoded(whole.convert("RGB"), "jpg", alpha_only=True))
        archive.writestr("alpha.png", _encoded(whole.getchannel("A"), "png", alpha_only=True))
    return out.getvalue()
