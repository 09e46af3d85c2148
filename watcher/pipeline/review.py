"""Does a person need to look at this matte? Pure; counts pixels of the proxy's size."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.domain import Review

# Less than this share of the picture is a speck, not a person: 1 % is a figure a tenth as high
# as the picture.
NOTHING_BELOW = 0.003
# A border counts as touched when this share of it is covered; a sleeve covers less.
BORDER_SHARE = 0.5
# Mean a(1-a) over mean a. Good mattes of MODNet have 0.005 to 0.033, noise 0.074.
UNCERTAIN_ABOVE = 0.06

NOTHING_FOUND = "nothing_found"
TOUCHES_EVERY_BORDER = "touches_every_border"
MOSTLY_UNCERTAIN = "mostly_uncertain"
LOOKS_DISAGREE = "looks_disagree"


def review(alpha: NDArray[np.float32], *, disagree: bool = False) -> Review:
    """Coverage (mean alpha), uncertainty (0 for a hard matte, 0.25 and more for fog) and flags.

    `disagree`: the looks that led to `alpha` contradict each other.
    """
    coverage, uncertain = amounts(alpha)
    flags = []
    if coverage < NOTHING_BELOW:
        flags.append(NOTHING_FOUND)
    elif uncertain > UNCERTAIN_ABOVE:
        flags.append(MOSTLY_UNCERTAIN)
    borders = (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])
    if all(np.count_nonzero(border > 0.5) >= BORDER_SHARE * border.size for border in borders):
        flags.append(TOUCHES_EVERY_BORDER)
    if disagree and NOTHING_FOUND not in flags:
        flags.append(LOOKS_DISAGREE)
    return Review(round(coverage, 6), round(uncertain, 6), tuple(flags))


def is_noise(found: Review) -> bool:
    """Is there so little, and that so foggy, that an empty matte is the truth?

    A small figure far away is little, too, but an engine that sees one is sure of it.
    """
    return NOTHING_FOUND in found.flags and found.uncertain > UNCERTAIN_ABOVE


def uncertainty(alpha: NDArray[np.float32]) -> float:
    """Mean a(1-a) over mean a: 0 for a hard matte or none, 0.25 and more for fog."""
    return amounts(alpha)[1]


def amounts(alpha: NDArray[np.float32]) -> tuple[float, float]:
    """Mean alpha, and its uncertainty: from sums of a and of a^2 by OpenCV, which takes an eighth of NumPy's time."""
    total = float(cv2.sumElems(alpha)[0])
    if not total > 0:
        return total / alpha.size, 0.0
    return total / alpha.size, max(0.0, 1 - float(cv2.norm(alpha, cv2.NORM_L2SQR)) / total)
