"""ICC profiles: which ones fit, and conversions from and to sRGB. Pure."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

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


def is_linear(profile: bytes) -> bool:
    """Whether half of an RGB profile's scale is half the light, not the fifth it is elsewhere."""
    try:
        middle = to_srgb(Image.new("RGB", (1, 1), (128, 128, 128)), profile).getpixel((0, 0))
    except Unusable:
        return False
    return isinstance(middle, tuple) and middle[1] > 180


def deep_to_srgb(levels: NDArray[np.uint16], profile: bytes, space: str) -> NDArray[np.uint16]:
    """HxWxC 16-bit levels of `profile` as 16-bit sRGB; `space`: gray, rgb, cmyk, lab. Raises one of `Unusable`.

    littlecms in Pillow knows 8 bits only.
    """
    return _deep(levels, profile, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), space)


def _deep(levels: NDArray[np.uint16], source: bytes, target: bytes, space: str) -> NDArray[np.uint16]:
    import imagecodecs

    flags = int(imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION)
    if space in ("gray", "rgb"):
        # Its shortcut through a table is far off in the shadows of linear light.
        flags |= imagecodecs.CMS.FLAGS.NOOPTIMIZE
    try:
        converted = imagecodecs.cms_transform(
            np.ascontiguousarray(levels),
            source,
            target,
            colorspace=space,
            outcolorspace="rgb",
            outdtype="uint16",
            intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
            flags=flags,
        )
    except RuntimeError as error:
        raise ValueError(f"no conversion: {error}") from error
    return cast(NDArray[np.uint16], converted)


def deep_lab_to_srgb(levels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """CIE Lab (D50) in ICC's 16-bit encoding as 16-bit sRGB."""
    return deep_to_srgb(levels, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "lab")


def proxy_to_srgb(proxy: NDArray[np.uint8], profile: bytes | None) -> NDArray[np.uint8]:
    """An 8-bit HxWx3 proxy out of `profile`'s space; None means it is sRGB already."""
    if profile is None:
        return proxy
    return np.array(to_srgb(Image.fromarray(proxy), profile))


@functools.lru_cache(maxsize=16)
def from_srgb(colour: str, profile: bytes | None) -> tuple[int, int, int]:
    """`#rrggbb` in sRGB as 16-bit levels in `profile`'s space, relative colorimetric.

    8 bits of a wide space are up to 8 levels of sRGB off.
    """
    levels = np.frombuffer(bytes.fromhex(colour.removeprefix("#")), np.uint8).astype(np.uint16) * 257
    if profile is not None:
        # A profile that only leads one way, as some cameras' do, changes nothing.
        with suppress(*Unusable):
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
            levels = _deep(levels.reshape(1, 1, 3), source, profile, "rgb").ravel()
    red, green, blue = (int(level) for level in levels)
    return red, green, blue


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


def grey_curve(profile: bytes) -> NDArray[np.uint16]:
    """The 16-bit sRGB level of each of 65536 grey levels. Raises one of `Unusable`."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    return np.ascontiguousarray(deep_to_srgb(ramp, profile, "gray").reshape(-1, 3)[:, 1])


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


# --- Profiles of our own ---------------------------------------------------------------------

# Adobe RGB (1998): the primaries adapted to D50, and the gamma 2 + 51/256.
ADOBE_GAMMA = 563 / 256
_ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
_D50 = (0.9642, 1.0, 0.8249)


@functools.cache
def adobe_rgb() -> bytes:
    """An ICC profile (ICC.1:2001-04, matrix and curves) of Adobe RGB (1998)."""
    return matrix_profile("Compatible with Adobe RGB (1998)", _ADOBE, power(ADOBE_GAMMA))


def power(gamma: float) -> bytes:
    """A curve for `matrix_profile`: light is the level to the power of `gamma`, below 256."""
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def sampled(levels: NDArray[np.uint16]) -> bytes:
    """A curve for `matrix_profile`: the light, 0..65535, of evenly spaced levels."""
    return b"curv" + bytes(4) + struct.pack(">I", len(levels)) + levels.astype(">u2").tobytes()


def matrix_profile(name: str, primaries: Sequence[Sequence[float]], curve: bytes) -> bytes:
    """`primaries`: XYZ of full red, green and blue, adapted to D50; `curve`: one for all three."""
    words = name.encode("ascii") + b"\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(words)) + words + bytes(78),
        b"cprt": b"text" + bytes(4) + b"No copyright, use freely\0",
        b"wtpt": _xyz(*_D50),
    }
    for letter, primary in zip("rgb", primaries, strict=True):
        tags[f"{letter}XYZ".encode()] = _xyz(*primary)
        tags[f"{letter}TRC".encode()] = curve
    table, content = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for tag, body in tags.items():
        at = content.find(body)  # the three curves are one
        table += tag + struct.pack(">II", start + (at if at >= 0 else len(content)), len(body))
        content += body + bytes(-len(body) % 4) if at < 0 else b""
    header = struct.pack(
        ">I4xI4s4s4s6H4s28x", start + len(content), 0x02400000, b"mntr", b"RGB ", b"XYZ ",
        2000, 1, 1, 0, 0, 0, b"acsp",
    )  # fmt: skip
    return (header + _xyz(*_D50)[8:]).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))
