"""How far a matte is from the truth: the measures of the matting literature. Pure.

SAD, MSE, Grad and Conn after C. Rhemann, C. Rother, J. Wang, M. Gelautz, P. Kohli, P. Rott:
"A Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009. SAD, Grad and Conn
are given in thousands, as papers print them; MSE and MAD are means. Lower is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Section 3.3 of the paper: derivatives of a Gaussian of this width, in pixels ...
_SIGMA = 1.4
# ... cut where they fall below this, as in the authors' code.
_CUT = 1e-2
# The paper's steps of alpha, and the distance below which a pixel counts as connected.
_STEP = 0.1
_TOLERANCE = 0.15
# Half the side of the square that the true soft region is widened by where no trimap is given.
BAND = 12


@dataclass(frozen=True, slots=True)
class Scores:
    """`sad`, `grad` and `conn` in thousands; `mse` and `mad` are means over `pixels`."""

    sad: float
    mad: float
    mse: float
    grad: float
    conn: float
    pixels: int


def scores(predicted: Field, truth: Field, region: Mask | None = None) -> Scores:
    """Compare two mattes (HxW, 0..1) within `region`, or everywhere.

    Gradients and connected parts are found in the whole pictures, whatever the region.
    Raises ValueError where the sizes differ or the region is empty.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"sizes differ: {_size(predicted)} against {_size(truth)}")
    inside = np.ones(truth.shape, bool) if region is None else region
    if not inside.any():
        raise ValueError("the region is empty")
    difference = (predicted.astype(np.float64) - truth)[inside]
    absolute = np.abs(difference).sum()
    gradient = (_magnitude(predicted) - _magnitude(truth))[inside]
    return Scores(
        sad=float(absolute / 1000),
        mad=float(absolute / difference.size),
        mse=float(np.mean(difference**2)),
        grad=float(np.sum(gradient**2) / 1000),
        conn=float(np.abs(_disconnection(predicted, truth)[inside]).sum() / 1000),
        pixels=int(difference.size),
    )


def unknown_band(truth: Field, *, width: int = BAND) -> Mask:
    """Where a trimap made from `truth` would say "unknown": its soft pixels and hard edges, widened.

    HxW; `width` in pixels to each side. Empty where the truth has no edge at all.
    """
    solid = (truth >= 1 - 1 / 512).astype(np.uint8)
    empty = (truth <= 1 / 512).astype(np.uint8)
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    return cast(Mask, (cv2.erode(solid, square) == 0) & (cv2.erode(empty, square) == 0))


def _size(field: Field) -> str:
    return f"{field.shape[1]} x {field.shape[0]}"


def _derivative() -> NDArray[np.float64]:
    """The filter along x, (2h+1)x(2h+1), of unit Euclidean norm; transposed it is that along y."""
    half = math.ceil(_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * _SIGMA * _CUT)))
    x = np.arange(-half, half + 1, dtype=np.float64)
    gauss = np.exp(-(x**2) / (2 * _SIGMA**2)) / (_SIGMA * math.sqrt(2 * math.pi))
    slope = -x * gauss / _SIGMA**2
    filter_ = np.outer(gauss, slope)
    return cast(NDArray[np.float64], filter_ / np.sqrt((filter_**2).sum()))


def _magnitude(alpha: Field) -> NDArray[np.float64]:
    """Length of the gradient of each pixel."""
    exact, along = alpha.astype(np.float64), _derivative()
    parts = [
        cv2.filter2D(exact, cv2.CV_64F, kernel, borderType=cv2.BORDER_REPLICATE)
        for kernel in (along, along.T)
    ]
    return cast(NDArray[np.float64], np.hypot(*parts))


def _disconnection(predicted: Field, truth: Field) -> NDArray[np.float64]:
    """The paper's difference of connectedness, equation (3) of section 3.3, for each pixel.

    The source region at a threshold is the largest 4-connected part that is above it in both
    mattes; a pixel's level is the last threshold at which it belonged to one.
    """
    steps = round(1 / _STEP)
    level = np.full(truth.shape, -1.0)
    for step in range(1, steps + 1):
        threshold = step * _STEP
        both = ((predicted >= threshold - 1e-6) & (truth >= threshold - 1e-6)).astype(np.uint8)
        inside = _largest_part(both)
        level[(level < 0) & ~inside] = (step - 1) * _STEP
    level[level < 0] = 1.0
    return _connectedness(predicted, level) - _connectedness(truth, level)


def _connectedness(alpha: Field, level: NDArray[np.float64]) -> NDArray[np.float64]:
    distance = alpha.astype(np.float64) - level
    return 1 - distance * (distance >= _TOLERANCE)


def _largest_part(mask: NDArray[np.uint8]) -> Mask:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count < 2:
        return np.zeros(mask.shape, bool)
    return cast(Mask, labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
