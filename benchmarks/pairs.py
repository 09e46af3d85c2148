"""Pairs of photo and true alpha: folders of them, composites of their people, and groups."""

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
# Of the pictures of groups: width, height, and how much of it people fill.
GROUP = (1800, 1200)
HEIGHTS = (0.8, 0.62, 0.9, 0.7)
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
            found.append(Pair(image.stem, image, levels(alpha, cv2.IMREAD_GRAYSCALE)))
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
        front = by_the_paper(image, truth)
        height, width = truth.shape
        back = cv2.resize(backs[number % len(backs)][::-1], (width, height))
        back = cv2.GaussianBlur(back, (0, 0), 0.02 * min(height, width))
        mixed = truth[..., None] * front + (1 - truth[..., None]) * back
        path = folder / f"{pair.name}.png"
        cv2.imwrite(str(path), np.rint(np.clip(mixed, 0, 1)[..., ::-1] * 255).astype(np.uint8))
        made.append(Pair(pair.name, path, truth, front))
    return made


def groups(pairs: Sequence[Pair], folder: Path) -> list[Pair]:
    """Two to four of the pairs' people side by side before a photo out of focus; as many pictures as pairs.

    The same each time. Who stands further right stands in front; half of them are mirrored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    people = [_cut_out(by_the_paper(rgb(pair.image), pair.truth), pair.truth) for pair in pairs]
    made = []
    for number in range(len(people)):
        count = 2 + number % 3
        width, height = GROUP
        back = cv2.resize(rgb(photos.SHIPPED[number % len(photos.SHIPPED)])[::-1], GROUP)
        picture = np.asarray(cv2.GaussianBlur(back, (0, 0), 0.02 * height), np.float32)
        front, truth = picture.copy(), np.zeros((height, width), np.float32)
        for place in range(count):
            one, alpha = people[(number + place * (1 + number % 2)) % len(people)]
            turn = -1 if (number + place) % 2 else 1
            tall = height * HEIGHTS[(number + place) % len(HEIGHTS)]
            scale = min(tall / alpha.shape[0], 1.5 * width / count / alpha.shape[1])
            size = round(alpha.shape[1] * scale), round(alpha.shape[0] * scale)
            one, alpha = (
                np.asarray(cv2.resize(each[:, ::turn], size, interpolation=cv2.INTER_AREA), np.float32)
                for each in (one, alpha)
            )
            left = round((place + 0.5) * width / count - size[0] / 2)
            _stand(picture, front, truth, one, alpha, left)
        path = folder / f"group_{number + 1}.png"
        cv2.imwrite(str(path), np.rint(np.clip(picture[..., ::-1], 0, 1) * 255).astype(np.uint8))
        made.append(Pair(path.stem, path, truth, front))
    return made


def _cut_out(front: Field, truth: Field) -> tuple[Field, Field]:
    """The box around somebody, colours and alpha."""
    rows, columns = (np.flatnonzero((truth > 0.05).any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return front[box], truth[box]


def _stand(picture: Field, front: Field, truth: Field, one: Field, alpha: Field, left: int) -> None:
    """Put somebody into `picture`, feet (or whatever comes last) on its lower border; truth and colours follow."""
    height, width = truth.shape
    start, end = max(0, left), min(width, left + alpha.shape[1])
    there = slice(height - alpha.shape[0], height), slice(start, end)
    alpha, one = alpha[:, start - left : end - left], one[:, start - left : end - left]
    share = alpha[..., None]
    both = alpha + (1 - alpha) * truth[there]
    # Of what is opaque together each has a part of the colour.
    mixed = share * one + (1 - share) * truth[there][..., None] * front[there]
    front[there] = np.where(both[..., None] > 0, mixed / np.maximum(both, 1e-6)[..., None], front[there])
    picture[there] = share * one + (1 - share) * picture[there]
    truth[there] = both


def by_the_paper(image: Field, truth: Field) -> Field:
    """The multi-level estimate of F at full size, with the constants of the paper (Germer et al. 2020)."""
    return np.ascontiguousarray(
        foreground.estimate(image, truth, gradient_weight=1.0, sweeps=2)[..., :3], np.float32
    )


def mirrored(image: Field, truth: Field) -> Field:
    """What `image` shows where alpha is full; elsewhere what lies as far inside of the nearest such pixel.

    Colours with the grain of a photo, and no estimate's.
    """
    sure = truth > 0.99
    _, nearest = cv2.distanceTransformWithLabels(
        (~sure).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    y, x = np.nonzero(sure)
    order = np.zeros(int(nearest.max()) + 1, np.int64)
    order[nearest[y, x]] = np.arange(len(y))
    top, left = y[order[nearest]], x[order[nearest]]
    rows, columns = np.indices(truth.shape)
    v = np.clip(2 * top - rows, 0, truth.shape[0] - 1)
    u = np.clip(2 * left - columns, 0, truth.shape[1] - 1)
    found: Field = image[np.where(sure[v, u], v, top), np.where(sure[v, u], u, left)]
    return found


def rgb(path: Path) -> Field:
    return levels(path, cv2.IMREAD_COLOR)[..., ::-1].copy()


def levels(path: Path, channels: int = cv2.IMREAD_UNCHANGED) -> Field:
    """What is stored, 0..1, colours as BGR. `channels`: OpenCV's word for those that are asked for."""
    found = cv2.imread(str(path), channels)
    if found is None:
        raise FileNotFoundError(path)
    return found / np.float32(255 if found.dtype == np.uint8 else 65535)
