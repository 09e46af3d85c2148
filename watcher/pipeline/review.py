"""Does a person need to look at this matte? Pure; counts pixels of the proxy's size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Review
from watcher.pipeline.amounts import measured

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
    found = measured(alpha)
    flags = []
    if found.coverage < NOTHING_BELOW:
        flags.append(NOTHING_FOUND)
    elif found.uncertain > UNCERTAIN_ABOVE:
        flags.append(MOSTLY_UNCERTAIN)
    if min(found.borders) >= BORDER_SHARE:
        flags.append(TOUCHES_EVERY_BORDER)
    if disagree and NOTHING_FOUND not in flags:
        flags.append(LOOKS_DISAGREE)
    return Review(round(found.coverage, 6), round(found.uncertain, 6), tuple(flags))


def is_noise(found: Review) -> bool:
    """Is there so little, and that so foggy, that an empty matte is the truth?

    A small figure far away is little, too, but an engine that sees one is sure of it.
    """
    return NOTHING_FOUND in found.flags and found.uncertain > UNCERTAIN_ABOVE
