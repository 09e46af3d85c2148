"""Photos to measure with: portraits of any size made into as many different JPEGs as are needed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

# Those of the test suite: free to pass on.
TESTS = Path(__file__).parents[1] / "tests" / "data"
SHIPPED = tuple(
    TESTS / name
    for name in ("astronaut.png", "kodak_red_hat.png", "official_portrait_flags.jpg", "two_suits.jpg")
)
FULL_HD, LARGE = (1920, 1080), (6000, 4000)
QUALITY = 92
# Of the largest frame of the wanted shape, how much a crop keeps at least.
_SMALLEST_CROP = 0.75

RGB = NDArray[np.uint8]


def make(
    portraits: tuple[Path, ...], folder: Path, *, count: int, size: tuple[int, int] = FULL_HD
) -> list[Path]:
    """`count` JPEGs of `size` (width, height) in `folder`, no two alike; the same ones each time.

    They go round the portraits, each time cropped elsewhere, every other time mirrored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(1)
    made = []
    for number in range(count):
        pixels = _varied(_opened(portraits[number % len(portraits)]), size, chance)
        path = folder / f"photo-{number:04d}.jpg"
        path.write_bytes(simplejpeg.encode_jpeg(pixels, QUALITY, "RGB", "420"))
        made.append(path)
    return made


def _opened(path: Path) -> RGB:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def _varied(pixels: RGB, size: tuple[int, int], chance: np.random.Generator) -> RGB:
    height, width = pixels.shape[:2]
    scale = min(width / size[0], height / size[1]) * chance.uniform(_SMALLEST_CROP, 1.0)
    w, h = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
    x, y = chance.integers(0, width - w + 1), chance.integers(0, height - h + 1)
    crop = pixels[y : y + h, x : x + w]
    if chance.integers(2):
        crop = crop[:, ::-1]
    way = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(np.ascontiguousarray(crop), size, interpolation=way), np.uint8)
