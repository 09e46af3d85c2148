"""Published pictures, which keep their photo's depth and profile, as 8-bit sRGB for browsers and clients."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")


def to_srgb(image: Image.Image) -> Image.Image:
    """RGB, RGBA or L. A profile that makes no sense counts as sRGB, as everywhere."""
    plain = _eight_bits(image)
    profile = image.info.get("icc_profile")
    if not profile or plain.mode == "L":
        return plain
    alpha = plain.getchannel("A") if plain.mode == "RGBA" else None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(plain.convert("RGB"), source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        converted = None
    if converted is None:
        return plain
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I"):
        return image.convert("I").point(lambda level: level * (1 / 257)).convert("L")
    if image.mode in ("L", "RGB", "RGBA"):
        return image.copy()
    transparent = "A" in image.mode or "a" in image.mode or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")
