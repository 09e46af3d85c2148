"""How true the colours of soft edges are, the true alpha given: composites over several backgrounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import pairs, photos, quality
from benchmarks.pairs import Field, Pair
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from watcher.domain import Frame, Job, Metadata, Source, Stamp
from watcher.pipeline import refine

TITLE = "Fringe"
# Larger composites tell nothing new and take long.
SIDE = 1200
# Of the short side: sharp, and out of focus.
BLURS = (0.0, 0.02)
PLAIN = ((0.0, 0.7, 0.2), (0.95, 0.95, 0.95))


def run(setting: Setting) -> list[Table]:
    given = quality.pairs_of(setting)
    return [
        table(given, pairs.by_the_paper, "Smooth colours", "What the paper's method makes of the original."),
        table(given, pairs.mirrored, "Colours with grain", "Mirrored from where alpha is full."),
    ]


def table(given: Sequence[Pair], colours: Callable[[Field, Field], Field], title: str, note: str) -> Table:
    """Errors of each pair's person before photos, sharp and blurred, and before plain colours."""
    errors: dict[str, list[list[float]]] = {}
    for pair in given:
        image, truth = _within(pairs.rgb(pair.image)), _within(pair.truth)
        front = colours(image, truth)
        for back in _backs(truth.shape):
            mixed = truth[..., None] * front + (1 - truth[..., None]) * back
            pixels = np.rint(np.clip(mixed, 0, 1) * 255).astype(np.uint8)
            errors.setdefault(pair.name, []).append(_errors(pixels, front, truth))
    means = {name: np.mean(found, 0) for name, found in errors.items()}
    means["mean"] = np.mean(list(means.values()), 0)
    rows: list[tuple[Cell, ...]] = [(name, *(float(x) for x in mean)) for name, mean in means.items()]
    return Table(
        f"{title}, the true alpha given",
        ("photo", "as they are", "the paper's, at full size", "every profile"),
        tuple(rows),
        (
            "Mean difference to the true foreground in the soft band, weighted by alpha, 8-bit levels.",
            f"The true foreground: {note[0].lower()}{note[1:]} Six backgrounds each.",
            "The paper's: the multi-level method of Germer et al. (2020) with its own constants.",
        ),
    )


def _errors(pixels: NDArray[np.uint8], front: Field, truth: Field) -> list[float]:
    image = np.asarray(pixels / np.float32(255), np.float32)
    cutout = refine.refine(_frame(pixels), truth, method="bilinear", decontaminate=True).cutout
    found = [
        image,
        pairs.by_the_paper(image, truth),
        np.asarray(cutout[..., :3] / np.float32(255), np.float32),
    ]
    band = (truth > quality.SOFT[0]) & (truth < quality.SOFT[1])
    weight = truth[band]
    return [float(255 * (np.abs(one - front).mean(-1)[band] * weight).sum() / weight.sum()) for one in found]


def _frame(pixels: NDArray[np.uint8]) -> Frame:
    job = Job(1, Source("hot", "a.png", Stamp(1, 1)), 1, 1)
    proxy = np.zeros((1, 1, 3), np.uint8)
    return Frame(job, Path("a.png"), pixels, None, None, Metadata(), proxy, "0" * 64, "PNG")


def _backs(shape: tuple[int, ...]) -> list[Field]:
    height, width = shape
    made = [np.broadcast_to(np.array(colour, np.float32), (height, width, 3)) for colour in PLAIN]
    for path in photos.SHIPPED[1:3]:
        back = cv2.resize(pairs.rgb(path), (width, height))
        for blur in BLURS:
            seen = cv2.GaussianBlur(back, (0, 0), blur * min(height, width)) if blur else back
            made.append(np.asarray(seen, np.float32))
    return made


def _within(field: Field) -> Field:
    scale = min(1.0, SIDE / min(field.shape[:2]))
    size = round(field.shape[1] * scale), round(field.shape[0] * scale)
    return np.ascontiguousarray(cv2.resize(field, size, interpolation=cv2.INTER_AREA), np.float32)
