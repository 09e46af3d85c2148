"""Pairs of photo and true alpha: folders of them, or composites made of what the tests ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import photos
from watcher.pipeline import foreground

Field = NDArray[np.float32]
ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class Pair:
    """`front`: the true colours of the foreground, where they are known (HxWx3, 0..1 RGB)."""

    name: str
    image: Path
    truth: Field
    front: Field | None = None


def read(folder: Path) -> list[Pair]:
    """`folder`/image/NAME.jpg with `folder`/alpha/NAME.png."""
    found = []
    for image in sorted(path for path in (folder / "image").iterdir() if path.suffix.lower() in ENDINGS):
        alpha = folder / "alpha" / f"{image.stem}.png"
        if alpha.is_file():
            found.append(Pair(image.stem, image, _field(cv2.imread(str(alpha), cv2.IMREAD_GRAYSCALE))))
    return found


def compose(pairs: Sequence[Pair], folder: Path) -> list[Pair]:
    """Each pair's person before another background; F, B and alpha are known exactly.

    F is what the photo shows where alpha is full, and a smooth continuation of it elsewhere: whatever
    it is, the composite is exact. The backgrounds are photos of the tests, blurred as a lens would.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backs = [rgb(path) for path in photos.SHIPPED]
    made = []
    for number, pair in enumerate(pairs):
        image, truth = rgb(pair.image), pair.truth
        front = _front(image, truth)
        height, width = truth.shape
        back = cv2.resize(backs[number % len(backs)][::-1], (width, height))
        back = cv2.GaussianBlur(back, (0, 0), 0.02 * min(height, width))
        mixed = truth[..., None] * front + (1 - truth[..., None]) * back
        path = folder / f"{pair.name}.png"
        cv2.imwrite(str(path), np.rint(np.clip(mixed, 0, 1)[..., ::-1] * 255).astype(np.uint8))
        made.append(Pair(pair.name, path, truth, front))
    return made


def _front(image: Field, truth: Field) -> Field:
    return np.ascontiguousarray(foreground.estimate(image, truth)[..., :3])


def rgb(path: Path) -> Field:
    return _field(cv2.imread(str(path), cv2.IMREAD_COLOR))[..., ::-1].copy()


def _field(levels: NDArray[np.uint8] | None) -> Field:
    if levels is None:
        raise FileNotFoundError("a picture cannot be read")
    return np.asarray(levels / np.float32(255), np.float32)
