"""ICC profiles: which ones fit, and conversions from and to sRGB. Pure."""

from __future__ import annotations

import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Transforms are shared by threads: littlecms asks for NOCACHE then.
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE
# What littlecms throws at a profile it cannot use.
Unusable = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
_SPACE = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}


def space_of(profile: bytes) -> str | None:
    """The colour space of an ICC profile as a Pillow mode: RGB, L, CMYK, LAB; None if damaged."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return _SPACE.get(opened.profile.xcolor_space)
    except Unusable:
        return None


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """`image` as 8-bit sRGB. Raises one of `Unusable` if `profile` does not fit its mode."""
    converted = ImageCms.applyTransform(image, _transform(profile, image.mode))
    if converted is None:
        raise ValueError("no conversion")
    return converted


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """CIE Lab (D50) pixels as sRGB."""
    return to_srgb(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())


def proxy_to_srgb(proxy: NDArray[np.uint8], profile: bytes | None) -> NDArray[np.uint8]:
    """An 8-bit HxWx3 proxy out of `profile`'s space; None means it is sRGB already."""
    if profile is None:
        return proxy
    return np.array(to_srgb(Image.fromarray(proxy), profile))


def from_srgb(colour: str, profile: bytes | None) -> tuple[int, int, int]:
    """`#rrggbb` in sRGB as 8-bit levels in `profile`'s space, relative colorimetric."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    if profile is None:
        return red, green, blue
    try:
        pixel = Image.new("RGB", (1, 1), (red, green, blue))
        converted = np.asarray(ImageCms.applyTransform(pixel, _transform_back(profile)))
    except Unusable:  # a profile that only leads one way, as some cameras' do
        return red, green, blue
    return tuple(int(level) for level in converted[0, 0])  # type: ignore[return-value]


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        _FLAGS,
    )


@functools.lru_cache(maxsize=16)
def _transform_back(profile: bytes) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        "RGB",
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        _FLAGS,
    )


def grey_curve(profile: bytes) -> NDArray[np.float32]:
    """The sRGB level, 0..1, of each of 256 grey levels. Raises one of `Unusable`.

    Grey has one dimension, so a table serves every depth, which littlecms in Pillow does not.
    """
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    return np.asarray(to_srgb(ramp, profile), np.float32)[0, :, 1] / np.float32(255)


def between(levels: NDArray[np.uint8], own: bytes | None, wanted: bytes | None) -> NDArray[np.uint8]:
    """8-bit HxWx3 `levels` out of the space of profile `own` into that of `wanted`; None is sRGB.

    Where one of them only leads one way, as some cameras' do, the levels stay as they are.
    """
    try:
        if own is not None:
            levels = proxy_to_srgb(levels, own)
        if wanted is None:
            return levels
        return np.array(ImageCms.applyTransform(Image.fromarray(levels), _transform_back(wanted)))
    except Unusable:
        return levels
