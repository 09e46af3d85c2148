"""Pictures as batches of planes, the way networks want them, and back. For engines; Python 3.7 syntax."""

from typing import Any, List, Mapping, Sequence

import numpy as np

# Array types of NumPy have no parameters under Python 3.7.
Array = Any


class Normal:
    """Levels to numbers: x / 255 times `scale`, less `mean`, by `std` (three numbers each, from the card)."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        mean = np.array(options.get("mean", [0.0] * 3), np.float32)
        std = np.array(options.get("std", [1.0] * 3), np.float32)
        white = float(options.get("scale", 1.0))
        # One multiplication and one addition.
        self.scale = (white / (255.0 * std.astype(np.float64))).astype(np.float32)
        self.shift = (-white * mean / std).astype(np.float32)

    def planes(self, images: Sequence[Array]) -> Array:
        """Nx3xHxW float32 of N pictures HxWx3."""
        height, width = images[0].shape[:2]
        planes = np.empty((len(images), 3, height, width), np.float32)
        for image, into in zip(images, planes):
            for channel in range(3):
                np.multiply(image[..., channel], self.scale[channel], out=into[channel])
                into[channel] += self.shift[channel]
        return planes

    def pictures(self, images: Sequence[Array]) -> Array:
        """NxHxWx3 float32."""
        pictures = np.stack(images) * self.scale
        pictures += self.shift
        return pictures


def alike(images: Sequence[Array], *, single: bool) -> List[List[Array]]:
    """Neighbours of one shape together, in order; each alone where the graph takes only one."""
    groups = []  # type: List[List[Array]]
    for image in images:
        if groups and not single and groups[-1][0].shape == image.shape:
            groups[-1].append(image)
        else:
            groups.append([image])
    return groups


def sigmoid(values: Array) -> Array:
    """Logits to 0..1."""
    # exp of a large number overflows to infinity and gives 0, which is right.
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-values))
