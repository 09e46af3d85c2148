"""Colour spaces that files name in other words than an ICC profile, as one. Pure; decodes no pixels.

Code points (ITU-T H.273) in PNG, HEIF and AVIF, gamma and primaries in PNG, Adobe RGB in a camera's EXIF (DCF).
What comes out as None is sRGB, or counts as it.
"""

from __future__ import annotations

import functools
import struct

import numpy as np

from watcher.pipeline import colour, exif
from watcher.pipeline.boxes import boxes

# PQ and HLG (H.273, transfer characteristics): brighter than white, which we cannot show.
_HDR_CURVES = (16, 18)
HDR = "its colours are HDR (PQ or HLG); they were taken for sRGB and look flat"
# Chromaticities x, y of red, green, blue and white, by H.273's colour primaries.
_D65 = (0.3127, 0.3290)
_SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)
_PRIMARIES = {
    1: _SRGB,
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
}
# Transfer characteristics as exponents. All others are shown as sRGB: BT.709's own curve is a camera's, not a screen's.
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_NAMES = {9: "BT.2020", 11: "DCI P3", 12: "Display P3"}
# What a PNG calls gamma 1/2.2 is sRGB as a rule; so are primaries that differ in the third digit.
_SRGB_GAMMA, _NEAR_GAMMA, _NEAR_XY = 2.2, 0.02, 0.002
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def is_hdr(transfer: int) -> bool:
    return transfer in _HDR_CURVES


def of_code_points(primaries: int, transfer: int) -> bytes | None:
    """The ICC profile of H.273's code points."""
    if is_hdr(transfer) or primaries not in _PRIMARIES:
        return None
    return _profile(_NAMES.get(primaries, "RGB"), _PRIMARIES[primaries], _GAMMAS.get(transfer))


def of_png_gamma(gamma: bytes, chromaticities: bytes | None) -> bytes | None:
    """The ICC profile of a PNG's gAMA and cHRM chunks, which hold hundred-thousandths."""
    try:
        exponent = 100_000 / struct.unpack(">I", gamma)[0]
        told = _SRGB
        if chromaticities is not None:
            values = [value / 100_000 for value in struct.unpack(">8I", chromaticities)]
            told = (*values[2:], *values[:2])  # white comes first there
    except (struct.error, ArithmeticError):
        return None
    if not 0.2 < exponent < 5 or not all(0 <= value <= 1 for value in told):
        return None
    near = abs(exponent - _SRGB_GAMMA) < _NEAR_GAMMA
    return _profile("RGB", told, None if near and _is_srgb(told) else exponent)


def code_points_of(content: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer characteristics of a HEIF or AVIF; None where its pictures differ in them."""
    try:
        found = {
            struct.unpack_from(">HH", content, start + 4)
            for start in _properties(content, b"colr")
            if content[start : start + 4] == b"nclx"
        }
    except (EOFError, struct.error):
        return None
    return found.pop() if len(found) == 1 else None


def of_container(content: bytes) -> tuple[bytes | None, list[str]]:
    """The ICC profile of a HEIF or AVIF that has none but says its code points; and warnings."""
    points = code_points_of(content)
    if points is None:
        return None, []
    return of_code_points(*points), [HDR] if is_hdr(points[1]) else []


def _properties(content: bytes, wanted: bytes) -> list[int]:
    """Where the bodies of these item properties begin (ISO/IEC 23008-12, 9.3)."""
    start, end = 0, len(content)
    for name in (b"meta", b"iprp", b"ipco"):
        place = next(((a, b) for kind, a, b in boxes(content, start, end) if kind == name), None)
        if place is None:
            return []
        start, end = place
        start += 4 if name == b"meta" else 0  # a version and flags
    return [a for kind, a, _ in boxes(content, start, end) if kind == wanted]


def of_exif(block: bytes | None) -> bytes | None:
    """Adobe RGB, where a camera says so by DCF 2.0; it embeds no profile then, as a rule."""
    return colour.adobe_rgb() if block is not None and exif.says_adobe_rgb(block) else None


# --- A profile -----------------------------------------------------------------------------


def _is_srgb(told: tuple[float, ...]) -> bool:
    return all(abs(one - other) < _NEAR_XY for one, other in zip(told, _SRGB, strict=True))


@functools.lru_cache(maxsize=16)
def _profile(name: str, told: tuple[float, ...], gamma: float | None) -> bytes | None:
    """`told`: x, y of red, green, blue and white. `gamma` None: the curve of sRGB."""
    if gamma is None and _is_srgb(told):
        return None
    try:
        columns = _adapted(told)
    except (np.linalg.LinAlgError, ArithmeticError):
        return None
    if not np.isfinite(columns).all() or np.abs(columns).max() > 4:
        return None  # no light has such primaries
    curve = colour.sampled(_srgb_light()) if gamma is None else colour.power(gamma)
    return colour.matrix_profile(f"{name}, as the photo says", columns.T.tolist(), curve)


def _adapted(told: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """XYZ of the primaries, in columns, so that they make up white, and that adapted to D50 (Bradford)."""
    red, green, blue, white = (_light(*told[at : at + 2]) for at in range(0, 8, 2))
    primaries = np.column_stack([red, green, blue])
    primaries = primaries * np.linalg.solve(primaries, white)
    scale = np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white))
    return np.asarray(np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ primaries, np.float64)


def _light(x: float, y: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if y <= 0:
        raise ZeroDivisionError
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _srgb_light() -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """IEC 61966-2-1, at 1024 levels."""
    level = np.linspace(0, 1, 1024)
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return (light * 65535 + 0.5).astype(np.uint16)
