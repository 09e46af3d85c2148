"""Clean-up of an engine's alpha, as a profile asks for it. Pure; see docs/edges.md for pictures.

All of it works on the proxy's alpha, before refinement: what is one pixel here is several
in the photo, and refinement then finds the photo's own edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.pipeline.specks import without_specks

Field = NDArray[np.float32]

# 3x3 "ellipse" is a cross: the pixel and its four neighbours.
_ELLIPSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
# A geodesic erosion moves one pixel a turn. What needs more turns is no thread or pinhole.
_MOST_TURNS = 64
# Below this an alpha is no part of anything; islands are told apart there.
_FAINT = 0.05
# An island with less than this share of the largest one's weight is a speck. A child beside an
# adult has a tenth, a face far behind in a crowd a hundredth.
_SPECK = 0.002
# What an engine itself half believes at most weighs less ...
_DOUBTFUL, _DOUBT_WEIGHS = 0.5, 0.2
# ... and what lies this near to somebody, in shares of the short side, is a strand of hair.
_NEAR = 0.02


def close(alpha: Field) -> Field:
    """Morphological close, 3x3 ellipse: fills pinholes and dark threads one pixel wide.

    The classic advice for BSHM. It also fills gaps between strands of hair, and rounds
    corners inwards.
    """
    return cast(Field, cv2.morphologyEx(alpha, cv2.MORPH_CLOSE, _ELLIPSE))


def reconstruct(alpha: Field) -> Field:
    """Close by reconstruction: fills pinholes, and leaves every contour where it was.

    L. Vincent: "Morphological Grayscale Reconstruction in Image Analysis", IEEE TIP 1993:
    a dilation, shrunk back step by step without ever going below `alpha`. What survives was
    closed off on all sides.
    """
    marker = cv2.dilate(alpha, _ELLIPSE)
    for _ in range(_MOST_TURNS):
        shrunk = np.maximum(cv2.erode(marker, _ELLIPSE), alpha)
        if np.array_equal(shrunk, marker):
            break
        marker = shrunk
    return cast(Field, np.asarray(marker, np.float32))


def islands(alpha: Field) -> Field:
    """Without specks: whatever hangs together, weighs less than 0.2 % of the largest and is near nobody."""
    return without_specks(
        alpha, faint=_FAINT, speck=_SPECK, doubtful=_DOUBTFUL, weighs=_DOUBT_WEIGHS, near=_NEAR
    )


STEPS: dict[str, Callable[[Field], Field]] = {"close": close, "reconstruct": reconstruct, "islands": islands}


def clean(alpha: Field, steps: Iterable[str]) -> Field:
    """`alpha` (hxw, 0..1) after each of `steps` in turn."""
    for step in steps:
        alpha = STEPS[step](alpha)
    return alpha
