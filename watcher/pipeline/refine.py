"""An engine's alpha and a frame to a full-size cutout. Pure; no file, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.domain import Frame, Pixels
from watcher.pipeline import closed_form, foreground
from watcher.pipeline.compiled import compiled
from watcher.pipeline.fields import taps
from watcher.pipeline.pages import BLOCKS
from watcher.pipeline.scale import eight_bits, resized, sane, sixteen_bits, unit
from watcher.pipeline.shrink import shrunk

Field = NDArray[np.float32]

# Measured with MODNet's alpha on six pictures with truth, against bilinear: 7 % less absolute and
# 13 % less gradient error, in windows of 3x3. Of 5x5 it is 3 and 6 %, of 7x7 nothing; a wider band is worse throughout.
_EPSILON = np.float32(1e-5)
# Where an engine is sure, texture must not leak into its alpha.
_SURE = np.float32(0.02)
# What an engine calls 0.4 % is noise of its last layer, and a veil over the whole picture.
_FLOOR = np.float32(1 / 255)
# An alpha this many times finer than the grid has seen the photo's edges already.
_BEYOND = 1.5
# The short side at which colours are estimated, whatever the grid. Half of it has a seventh more error on a
# true alpha; twice as much 7 % less, but on an engine's alpha 2 % more, for four times the time.
_COLOURS = 512
# A panorama's grid is no longer than this.
_LONGEST = 4096
_LUMA = (np.float32(0.299), np.float32(0.587), np.float32(0.114))


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """`cutout`: HxWx4 RGB and straight alpha, in the frame's depth and colour space.

    Where alpha is full the colours are the source's own, bit for bit; where it is 0 they are 0.
    `deep`: HxW, the alpha of an 8-bit frame at 16 bits, if it was asked for.
    """

    cutout: Pixels
    deep: NDArray[np.uint16] | None = None

    @property
    def alpha(self) -> Pixels:
        return self.cutout[..., 3]

    def alpha_at(self, bits: int) -> Pixels:
        """HxW at 8 or 16 bits; where the cutout has so many, a view of it."""
        if self.cutout.itemsize * 8 == bits:
            return self.alpha
        if bits == 8:
            return eight_bits(self.alpha)
        return sixteen_bits(self.alpha) if self.deep is None else self.deep

    def at(self, bits: int) -> Refined:
        """The same at 8 or 16 bits. What rounds to no alpha has no colours either."""
        if self.cutout.itemsize * 8 == bits:
            return self
        if bits == 8:
            levels = eight_bits(self.cutout)
            # Zeros elsewhere; NumPy's masks take ten times as long.
            cutout = cast(Pixels, cv2.copyTo(levels, cv2.extractChannel(levels, 3)))
        else:
            cutout = sixteen_bits(self.cutout)
            cutout[..., 3] = self.alpha_at(16)
        return Refined(cutout)


def refine(
    frame: Frame,
    alpha: Field,
    *,
    method: Literal["closed_form", "guided", "bilinear"],
    decontaminate: bool,
    side: int = 1024,
    deep: bool = False,
) -> Refined:
    """The cutout of `frame`, given `alpha` (hxw, 0..1, the proxy's size).

    `closed_form` redraws the contour on a grid whose short side is `side` before the guided
    filter brings it to full size. A source's own alpha limits the result: the smaller of both
    counts, since their edges coincide and a product would thin them twice. `deep`: with alpha at
    16 bits, whatever the frame has.
    Peak: the cutout (4 or 8 bytes a pixel) on top of the frame, and about 150 bytes for each
    pixel of the proxy or the grid.
    """
    alpha = sane(np.ascontiguousarray(alpha, np.float32))
    closed = method == "closed_form" and min(alpha.shape) <= _BEYOND * side
    if closed and (grid := _grid(frame, alpha, side)) != (alpha.shape[1], alpha.shape[0]):
        alpha = sane(resized(alpha, grid))
    height, width = alpha.shape
    reduced = unit(_reduced(frame, width, height))
    if closed:
        alpha = closed_form.solve(reduced, alpha)
    if method != "bilinear":
        slope, offset = _guided(reduced, alpha)
    else:
        slope, offset = np.zeros_like(alpha), alpha
    cutout: Pixels = BLOCKS.empty((frame.height, frame.width, 4), frame.pixels.dtype)
    cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2RGBA, cutout)
    opaque = cast(Pixels, np.empty((0, 0), frame.pixels.dtype))
    finer = BLOCKS.empty(cutout.shape[:2] if deep and cutout.dtype == np.uint8 else (0, 0), np.uint16)
    paint(
        frame.pixels,
        slope,
        offset,
        _colours(reduced, alpha) if decontaminate else np.zeros((1, 1, 6), np.float32),
        opaque if frame.opacity is None else frame.opacity,
        decontaminate,
        cutout,
        finer,
    )
    return Refined(cutout, finer if finer.size else None)


def _grid(frame: Frame, alpha: Field, side: int) -> tuple[int, int]:
    """(width, height) of the grid: the photo's shape at `side`, or `alpha`'s own where that is as fine."""
    if min(alpha.shape) >= side:
        return alpha.shape[1], alpha.shape[0]
    scale = min(1.0, side / min(frame.width, frame.height), _LONGEST / max(frame.width, frame.height))
    return max(alpha.shape[1], round(frame.width * scale)), max(alpha.shape[0], round(frame.height * scale))


def _reduced(frame: Frame, width: int, height: int) -> Pixels:
    """The frame's own colours at the proxy's size; often the proxy already is that."""
    plain = frame.profile is None and frame.opacity is None and frame.pixels.dtype == np.uint8
    if plain and frame.proxy.shape[:2] == (height, width):
        return frame.proxy
    return shrunk(frame.pixels, (width, height))


def warm_up() -> None:
    """Compile what `refine` needs, but for what `closed_form` and `foreground` have."""
    for dtype in (np.uint8, np.uint16):
        pixels = np.zeros((2, 2, 3), dtype)
        field, colours = np.zeros((2, 2), np.float32), np.zeros((1, 1, 6), np.float32)
        empty, finer = np.zeros((0, 0), dtype), np.zeros((0, 0), np.uint16)
        paint(pixels, field, field, colours, empty, True, np.empty((2, 2, 4), dtype), finer)  # type: ignore[arg-type]
    field = sane(np.zeros((2, 2), np.float32))
    _guided(np.zeros((2, 2, 3), np.float32), field)


def _guided(image: Field, alpha: Field) -> tuple[Field, Field]:
    """Slope and offset of alpha over grey, around each proxy pixel: alpha = slope * grey + offset.

    K. He, J. Sun, X. Tang: "Guided Image Filtering", PAMI 2013, equations (5), (6) and (8); that
    these may be computed small and used large is K. He, J. Sun: "Fast Guided Filter", 2015.
    """
    return fitted(np.ascontiguousarray(image), np.ascontiguousarray(alpha))


@compiled
def fitted(image: Field, alpha: Field) -> tuple[Field, Field]:
    """`_guided` in one call, where alpha is soft: everywhere else the slope is 0 and the offset is alpha.

    Only there are windows of 3x3 worth their sums; contours are a tenth of a picture.
    """
    height, width = alpha.shape
    reach = np.empty((height, width), np.uint8)
    near_soft(alpha, reach)
    grey = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            grey[y, x] = _LUMA[0] * image[y, x, 0] + _LUMA[1] * image[y, x, 1] + _LUMA[2] * image[y, x, 2]
    steepness, level_at = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            if reach[y, x]:
                steepness[y, x], level_at[y, x] = line(grey, alpha, y, x)
    slope, offset = np.zeros((height, width), np.float32), alpha.copy()
    ninth = np.float32(1 / 9)
    for y in range(height):
        for x in range(width):
            if reach[y, x] < 2:
                continue
            steep = level = share = np.float32(0)
            for j in range(9):
                v, u = min(height - 1, max(0, y + j // 3 - 1)), min(width - 1, max(0, x + j % 3 - 1))
                steep += steepness[v, u]
                level += level_at[v, u]
                share += np.float32(reach[v, u] == 3)
            # 1 among soft pixels, 0 among sure ones, with a ramp between.
            share *= ninth
            slope[y, x] = share * steep * ninth
            offset[y, x] = share * level * ninth + alpha[y, x] * (np.float32(1) - share)
    return slope, offset


@compiled
def near_soft(alpha: Field, reach: NDArray[np.uint8]) -> None:
    """3 where alpha is soft, 2 beside that, 1 two pixels from it, else 0."""
    height, width = alpha.shape
    # With a margin of 2, in which nothing is.
    soft = np.zeros((height + 4, width), np.bool_)
    for y in range(height):
        row, of = soft[y + 2], alpha[y]
        for x in range(width):
            row[x] = (of[x] > _SURE) & (of[x] < np.float32(1) - _SURE)
    # Whether anything is soft in a column of three, of five. Slices, so that a loop needs not ask where it is.
    three, five = np.zeros(width + 4, np.bool_), np.zeros(width + 4, np.bool_)
    three_here, five_here = three[2 : width + 2], five[2 : width + 2]
    three_left, three_right = three[1:], three[3:]
    five_left, five_right, five_last = five[1:], five[3:], five[4:]
    for y in range(height):
        first, above, own, below, last = soft[y], soft[y + 1], soft[y + 2], soft[y + 3], soft[y + 4]
        for x in range(width):
            three_here[x] = above[x] | own[x] | below[x]
            five_here[x] = first[x] | three_here[x] | last[x]
        row = reach[y]
        for x in range(width):
            beside = three_left[x] | three_here[x] | three_right[x]
            near = five[x] | five_left[x] | five_here[x] | five_right[x] | five_last[x]
            row[x] = np.uint8(near) + np.uint8(beside) + np.uint8(own[x])


@compiled
def line(grey: Field, alpha: Field, y: int, x: int) -> tuple[np.float32, np.float32]:
    """Slope and offset of alpha over grey in the window around a pixel: equations (5) and (6)."""
    height, width = alpha.shape
    greys = alphas = squares = products = np.float32(0)
    for j in range(9):
        v, u = min(height - 1, max(0, y + j // 3 - 1)), min(width - 1, max(0, x + j % 3 - 1))
        g, a = grey[v, u], alpha[v, u]
        greys += g
        alphas += a
        squares += g * g
        products += g * a
    ninth = np.float32(1 / 9)
    g, a = greys * ninth, alphas * ninth
    variance = max(squares * ninth - g * g, np.float32(0))
    slope = (products * ninth - g * a) / (variance + _EPSILON)
    return slope, a - slope * g


def _colours(image: Field, alpha: Field) -> Field:
    """Foreground and background, smooth as they are, no finer than `_COLOURS`."""
    if min(alpha.shape) <= _COLOURS:
        return foreground.estimate(image, alpha)
    share = _COLOURS / min(alpha.shape)
    size = max(1, int(alpha.shape[1] * share)), max(1, int(alpha.shape[0] * share))
    return foreground.estimate(resized(image, size), resized(alpha, size))


@compiled
def sure_until(slopes: Field, offsets: Field, kinds: NDArray[np.int32], ends: NDArray[np.int64]) -> None:
    """For each column the last one to which both rows (2xW) are as surely clear, or as surely opaque; -1 in between.

    `kinds`: -1 where both are clear, 1 where both are opaque, else 0.
    """
    high, low, zero = np.float32(1) - _FLOOR, _FLOOR, np.float32(0)
    above, below, steep_above, steep_below = offsets[0], offsets[1], slopes[0], slopes[1]
    width = len(kinds)
    for i in range(width):
        flat = (steep_above[i] == zero) & (steep_below[i] == zero)
        opaque, clear = min(above[i], below[i]) >= high, max(above[i], below[i]) <= low
        kinds[i] = np.int32(flat & opaque) - np.int32(flat & clear)
    first = 0
    while first < width:
        kind, end = kinds[first], first + 1
        while end < width and kinds[end] == kind:
            end += 1
        ends[first:end] = -1 if kind == 0 else end - 1
        first = end


@compiled
def between(rows: Field, share: np.float32, out: Field) -> None:
    """What lies between two rows (2xW), `share` of the way down."""
    above, below = rows[0], rows[1]
    for i in range(len(out)):
        out[i] = above[i] + share * (below[i] - above[i])


@compiled
def paint(
    pixels: Pixels,
    slope: Field,
    offset: Field,
    colours: Field,
    opacity: Pixels,
    decontaminate: bool,
    out: Pixels,
    deep: NDArray[np.uint16],
) -> None:
    """Everything at full size in one pass: alpha, foreground, rounding. `out`, HxWx4, comes as the photo, opaque.

    `deep`, HxW, gets the alpha of an 8-bit photo at 16 bits, which round to those of `out`; none and full
    stay that, for colours depend on it. Empty: nobody asks.

    `colours` HxWx6 is the smooth estimate of F and B. What they lack, I - aF - (1-a)B, is shared as
    least squares asks: a / (a^2 + (1-a)^2) of it goes to F. A share of a, as in M. Forte's "Approximate
    Fast Foreground Colour Estimation", ICIP 2021, has a third more error on a true alpha, and no less
    on an engine's.
    """
    height, width = pixels.shape[:2]
    top = np.float32(255 if pixels.itemsize == 1 else 65535)
    one, half, zero = np.float32(1), np.float32(0.5), np.float32(0)
    shrink = one / (one - 2 * _FLOOR)
    x0, x1, tx = taps(width, slope.shape[1])
    y0, y1, ty = taps(height, slope.shape[0])
    cx0, cx1, ctx = taps(width, colours.shape[1])
    cy0, cy1, cty = taps(height, colours.shape[0])
    row_slope = np.empty(slope.shape[1], np.float32)
    row_offset = np.empty(slope.shape[1], np.float32)
    # Rows between the same two of the grid are sure in the same places.
    slopes, offsets = np.empty((2, slope.shape[1]), np.float32), np.empty((2, slope.shape[1]), np.float32)
    kinds, ends = np.empty(slope.shape[1], np.int32), np.empty(slope.shape[1], np.int64)
    beyond = np.empty(slope.shape[1] + 1, np.int64)
    place = 0
    for i in range(beyond.size):
        while place < width and x1[place] < i:
            place += 1
        beyond[i] = place
    for y in range(height):
        if y == 0 or y0[y] != y0[y - 1] or y1[y] != y1[y - 1]:
            slopes[0], slopes[1] = slope[y0[y]], slope[y1[y]]
            offsets[0], offsets[1] = offset[y0[y]], offset[y1[y]]
            sure_until(slopes, offsets, kinds, ends)
        # In between, what is clear and what is opaque beside it are mixed.
        if opacity.size or ends[0] < len(ends) - 1:
            between(slopes, ty[y], row_slope)
            between(offsets, ty[y], row_offset)
        x = -1
        while x + 1 < width:
            x += 1
            i, j, t = x0[x], x1[x], tx[x]
            if ends[i] >= j and not opacity.size:
                stop = beyond[ends[i] + 1]
                if kinds[i] < 0:
                    out[y, x:stop] = 0  # as a loop it takes twice as long here
                if deep.size:
                    deep[y, x:stop] = 0 if kinds[i] < 0 else 65535
                x = stop - 1
                continue
            red, green, blue = pixels[y, x, 0], pixels[y, x, 1], pixels[y, x, 2]
            a = row_offset[i] + t * (row_offset[j] - row_offset[i])
            if row_slope[i] != zero or row_slope[j] != zero:
                grey = (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue) / top
                a += (row_slope[i] + t * (row_slope[j] - row_slope[i])) * grey
            a = min(one, max(zero, (a - _FLOOR) * shrink))
            level = int(a * top + half)
            own = int(top)
            if opacity.size:
                own = int(opacity[y, x])
                level = min(level, own)
            if deep.size:
                finer = min(int(a * np.float32(65535) + half), level * 257 + 128, own * 257)
                deep[y, x] = 0 if level == 0 else 65535 if level == top else max(finer, level * 257 - 128)
            out[y, x, 3] = level
            if level == 0:
                out[y, x, 0] = out[y, x, 1] = out[y, x, 2] = 0
            elif level == top or own < top or not decontaminate:
                # Colours under the source's own soft alpha are clean already.
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = red, green, blue
            else:
                b = one - a
                share = a / (a * a + b * b)
                p, q, t = cx0[x], cx1[x], ctx[x]
                r, s, v = cy0[y], cy1[y], cty[y]
                w00, w01, w10, w11 = (one - v) * (one - t), (one - v) * t, v * (one - t), v * t
                for c in range(3):
                    front = (
                        w00 * colours[r, p, c]
                        + w01 * colours[r, q, c]
                        + w10 * colours[s, p, c]
                        + w11 * colours[s, q, c]
                    )
                    back = (
                        w00 * colours[r, p, c + 3]
                        + w01 * colours[r, q, c + 3]
                        + w10 * colours[s, p, c + 3]
                        + w11 * colours[s, q, c + 3]
                    )
                    rest = pixels[y, x, c] / top - (a * front + b * back)
                    out[y, x, c] = int(min(one, max(zero, front + share * rest)) * top + half)
