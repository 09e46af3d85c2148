"""What lies behind a person: a gradient, a picture, the photo itself out of focus, or nothing new.

A background is a *field*: hxwx3 levels 0..65535 in the photo's colour space, of any size, that
one kernel interpolates to full size as it composites. So nothing of full size is made twice.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.domain import Frame, Pixels
from watcher.errors import HostError, WatcherError
from watcher.pipeline import colour, pixels, sniff
from watcher.pipeline.compiled import compiled
from watcher.pipeline.fields import taps
from watcher.pipeline.pages import BLOCKS
from watcher.pipeline.scale import eight_bits, resized, unit

Field = NDArray[np.uint16]

_GRADIENT_ROWS = 256
# A blurred background is computed this small: what is finer the blur removes anyway.
_BLUR_SIDE = 1024
_EXTENDED_SIDE = 1024
# What is more opaque than this is no background to learn from.
_CLEAR = np.float32(0.05)


def gradient(first: str, last: str, profile: bytes | None) -> Field:
    """From colour `first` (#rrggbb, sRGB) at the top to `last`, straight in encoded levels."""
    top, bottom = (np.array(colour.from_srgb(one, profile), np.float64) for one in (first, last))
    ramp = np.linspace(top, bottom, _GRADIENT_ROWS)
    return np.asarray(np.rint(ramp), np.uint16).reshape(_GRADIENT_ROWS, 1, 3)


def picture(path: Path, frame: Frame) -> Field:
    """The picture at `path`, filling the photo's shape (its middle), in the photo's colour space.

    8 bits deep where the two spaces differ: littlecms in Pillow converts no more. Raises
    HostError: a background that is missing is nobody's photo's fault, and pauses the folder.
    """
    try:
        content = path.read_bytes()
        found = pixels.read(content, sniff.kind_of(content))
    except (OSError, WatcherError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise HostError(
            f"the background picture {path} cannot be read: {why}",
            remedy="Put a picture there, or name another one in the profile; work resumes by itself.",
        ) from error
    levels = _covering(found.pixels, frame.width, frame.height)
    if found.profile != frame.profile:
        levels = cast(Pixels, colour.between(eight_bits(levels), found.profile, frame.profile))
    if levels.dtype == np.uint16:
        return cast(Field, np.ascontiguousarray(levels))
    return np.multiply(levels, 257, dtype=np.uint16)


def _covering(levels: Pixels, width: int, height: int) -> Pixels:
    """The largest middle part of `levels` with the shape of width x height, and no larger than that."""
    scale = max(width / levels.shape[1], height / levels.shape[0])
    across = min(levels.shape[1], max(1, round(width / scale)))
    down = min(levels.shape[0], max(1, round(height / scale)))
    left, top = (levels.shape[1] - across) // 2, (levels.shape[0] - down) // 2
    part = cast(Pixels, np.ascontiguousarray(levels[top : top + down, left : left + across]))
    return resized(part, (width, height)) if across > width else part


def blurred(frame: Frame, alpha: Pixels, percent: float) -> Field:
    """The photo's own background out of focus, by `percent` of its longer side (as standard deviation).

    The person does not bleed into it: pixels count by how little of the person is in them, and
    where she stands the background around is carried inwards first.
    """
    size = _within(frame.width, frame.height, _BLUR_SIDE)
    share = cv2.dilate(unit(resized(alpha, size)), np.ones((3, 3), np.uint8))
    weight = np.where(share > _CLEAR, np.float32(0), 1 - share)
    filled = _filled(unit(resized(frame.pixels, size)), np.asarray(weight, np.float32))
    sigma = percent / 100 * max(size)
    soft = cv2.GaussianBlur(filled, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return _field(np.asarray(soft, np.float32))


def extended(cutout: Pixels) -> Pixels:
    """HxWx3: the foreground's colours, carried outwards over what alpha leaves out.

    Where alpha is above 0 these are the cutout's, bit for bit. Beyond, the nearest colours fade
    into a smooth field: what a compositor needs, who may blur or move the matte.
    """
    size = _within(cutout.shape[1], cutout.shape[0], _EXTENDED_SIDE)
    small = unit(resized(cutout, size))
    share = unit(resized(cast(Pixels, np.ascontiguousarray(cutout[..., 3] > 0).astype(np.uint8) * 255), size))
    # An area's mean holds zeros from outside; dividing by what is inside takes them out again.
    colours = small[..., :3] / np.maximum(share, np.float32(1e-3))[..., None]
    field = _field(_filled(np.minimum(colours, 1), np.asarray(share, np.float32)))
    return _painted(cutout, field, hard=True)


def under(cutout: Pixels, field: Field) -> Pixels:
    """HxWx3: aF + (1-a)B in encoded levels, B being `field` at full size."""
    return _painted(cutout, field, hard=False)


def _painted(cutout: Pixels, field: Field, *, hard: bool) -> Pixels:
    out: Pixels = BLOCKS.empty((*cutout.shape[:2], 3), cutout.dtype)
    blend(cutout, field, hard, out)
    return out


def _within(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _field(levels: NDArray[np.float32]) -> Field:
    return np.ascontiguousarray(np.rint(np.clip(levels, 0, 1) * 65535), np.uint16)


def _filled(colours: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """`colours` where `weight` (0..1) is 1, and carried smoothly from there to where it is 0.

    Pull-push: S. Gortler et al.: "The Lumigraph", SIGGRAPH 1996, section 3.4: means over ever
    larger squares on the way up, and on the way down each fills what a finer level lacks.
    """
    if max(weight.shape) == 1 or float(weight.min()) >= 1:
        known = weight > 0
        return colours if known.all() else np.full_like(colours, 0.5)
    size = max(1, math.ceil(weight.shape[1] / 2)), max(1, math.ceil(weight.shape[0] / 2))
    mass = cv2.resize(weight, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0])
    moment = cv2.resize(colours * weight[..., None], size, interpolation=cv2.INTER_AREA)
    means = moment.reshape(size[1], size[0], 3) / np.maximum(mass, np.float32(1e-6))[..., None]
    coarse = _filled(np.asarray(means, np.float32), np.minimum(mass * 4, np.float32(1)))
    back = cv2.resize(coarse, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
    back = back.reshape(*weight.shape, 3)
    return np.asarray(back + (colours - back) * weight[..., None], np.float32)


@compiled
def blend(cutout: Pixels, field: Field, hard: bool, out: Pixels) -> None:
    """`cutout` over `field`, which is interpolated; `hard`: the field only shows where alpha is 0.

    The field's levels get a fixed pattern of less than one step before rounding (interleaved
    gradient noise, J. Jimenez, SIGGRAPH 2014): a smooth background in 8 bits would show bands.
    """
    height, width = cutout.shape[:2]
    top = np.float32(255 if cutout.itemsize == 1 else 65535)
    scale = top / np.float32(65535)
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    x0, x1, tx = taps(width, field.shape[1])
    y0, y1, ty = taps(height, field.shape[0])
    row = np.empty((field.shape[1], 3), np.float32)
    for y in range(height):
        for i in range(field.shape[1]):
            for c in range(3):
                upper, lower = np.float32(field[y0[y], i, c]), np.float32(field[y1[y], i, c])
                row[i, c] = (upper + ty[y] * (lower - upper)) * scale
        for x in range(width):
            level = cutout[y, x, 3]
            if level == top or (hard and level > 0):
                for c in range(3):
                    out[y, x, c] = cutout[y, x, c]
                continue
            b = one - level / top
            place = np.float32(0.06711056) * (x & 1023) + np.float32(0.00583715) * (y & 1023)
            noise = np.float32(52.9829189) * (place - np.float32(int(place)))
            # A little less than a step: whole levels stay what they are.
            shift = (noise - np.float32(int(noise)) - half) * np.float32(0.98) + half
            i, j, u = x0[x], x1[x], tx[x]
            for c in range(3):
                behind = row[i, c] + u * (row[j, c] - row[i, c])
                mixed = (one - b) * cutout[y, x, c] + b * behind + shift
                out[y, x, c] = int(min(top, max(zero, mixed)))


def warm_up(cutout: Pixels) -> None:
    """Compile for the depth of `cutout`."""
    under(cutout, np.zeros((1, 1, 3), np.uint16))
