"""The pixels of each kind of output, at its depth and in the frame's colour space. Pure."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from watcher.domain import Frame, Pixels
from watcher.outputs import EIGHT_BITS, Output
from watcher.pipeline import colour
from watcher.pipeline.compiled import compiled
from watcher.pipeline.encode import backdrop
from watcher.pipeline.pages import BLOCKS
from watcher.pipeline.refine import Refined
from watcher.pipeline.scale import eight_bits

# Outside of these an alpha counts as known; refinement and rounding move it by about as much.
_SURE = 5
COVERAGE = ("matte", "trimap")


def bits_of(output: Output, frame: Frame) -> int:
    """How many bits a channel `output` has; a matte has 8 unless it says 16."""
    if output.format in EIGHT_BITS:
        return 8
    if output.kind in COVERAGE:
        return 16 if output.depth == 16 else 8
    own = frame.pixels.itemsize * 8 if output.depth == "auto" else output.depth
    return 8 if output.format == "jxl" and frame.profile is not None else own


def pixels_of(output: Output, refined: Refined, frame: Frame) -> Pixels:
    """HxW, HxWx3 or HxWx4 as the kind of `output` has it, at its depth.

    The cutout is brought to that depth first: what is dithered must be so in the levels it ends in.
    """
    bits = bits_of(output, frame)
    if output.kind == "matte":
        return refined.alpha_at(bits)
    if output.kind == "trimap":
        return trimap(refined.alpha, output.band)
    refined = refined.at(bits)
    if output.kind == "cutout":
        return refined.cutout
    if output.kind == "foreground":
        return backdrop.extended(refined.cutout)
    if output.picture is None and output.background.startswith("#") and " " not in output.background:
        return composite(refined.cutout, _solid(output, frame, bits))
    return backdrop.under(refined.cutout, _field(output, frame, refined))


def _field(output: Output, frame: Frame, refined: Refined) -> backdrop.Field:
    if output.picture is not None:
        return backdrop.picture(output.picture, frame)
    if output.background == "blur":
        return backdrop.blurred(frame, refined.alpha, output.blur)
    top, _, bottom = output.background.partition(" ")
    return backdrop.gradient(top, bottom or top, frame.profile)


def _solid(output: Output, frame: Frame, bits: int) -> tuple[int, ...]:
    levels = colour.from_srgb(output.background, frame.profile)
    return levels if bits == 16 else tuple((level + 128) // 257 for level in levels)


def backdrop_of(output: Output, frame: Frame, refined: Refined) -> Pixels:
    """HxWx3: the background of `output` by itself, at its depth, or a single row of it where it is one colour."""
    bits = bits_of(output, frame)
    dtype = np.uint8 if bits == 8 else np.uint16
    if output.picture is None and output.background.startswith("#") and " " not in output.background:
        return cast(Pixels, np.array(_solid(output, frame, bits), dtype).reshape(1, 1, 3))
    nobody = cast(Pixels, np.zeros(refined.cutout.shape, dtype))
    return backdrop.under(nobody, _field(output, frame, refined))


def trimap(alpha: Pixels, band: float) -> Pixels:
    """HxW uint8: 0 background, 255 foreground, 128 unknown: what is soft, and `band` % of the long side around."""
    levels = eight_bits(alpha)
    soft = cv2.inRange(levels, np.array(_SURE + 1), np.array(255 - _SURE - 1))
    reach = round(max(alpha.shape) * band / 100)
    if reach:
        # A hard edge is a border too: its pixels on both sides belong to the band.
        hard = cv2.morphologyEx(levels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        soft = cv2.bitwise_or(soft, cv2.inRange(hard, np.array(128), np.array(255)))
        soft = cv2.dilate(soft, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    known = cv2.threshold(levels, 127, 255, cv2.THRESH_BINARY)[1]
    known[soft > 0] = 128
    return cast(Pixels, known)


def composite(cutout: Pixels, background: tuple[int, ...]) -> Pixels:
    """HxWx3: aF + (1-a)B in encoded levels; `background` in levels of the cutout's depth and space."""
    top = np.iinfo(cutout.dtype).max
    solid: Pixels = BLOCKS.empty((*cutout.shape[:2], 3), cutout.dtype)
    over(cutout, cast(Pixels, np.array(background, cutout.dtype)), np.uint32(top), solid)
    return solid


@compiled
def over(cutout: Pixels, background: Pixels, top: np.uint32, out: Pixels) -> None:
    """Exact where alpha is 0 or full; rounded to nearest between. 65535^2 still fits 32 bits."""
    for y in range(cutout.shape[0]):
        for x in range(cutout.shape[1]):
            a = np.uint64(cutout[y, x, 3])
            rest = np.uint64(top) - a
            for c in range(3):
                mixed = a * np.uint64(cutout[y, x, c]) + rest * np.uint64(background[c])
                out[y, x, c] = (mixed + np.uint64(top // 2)) // np.uint64(top)


def warm_up() -> None:
    """Compile what the kinds need."""
    for dtype in (np.uint8, np.uint16):
        cutout = cast(Pixels, np.zeros((1, 1, 4), dtype))
        composite(cutout, (0, 0, 0))
        backdrop.warm_up(cutout)
