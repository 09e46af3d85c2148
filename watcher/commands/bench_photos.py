"""What `hotmatte bench` measures with: one picture at the sizes that figures are published for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from watcher.domain import Frame, Job, Source, Stamp
from watcher.engine.card import Card, proxy_size
from watcher.errors import InputRejected
from watcher.pipeline.decode import DecodeLimits, decode
from watcher.pipeline.scale import eight_bits

# (width, height): those that BSHM's figures are published for.
SIZES = ((1920, 1080), (1200, 1600))
QUALITY = 92

_Picture = NDArray[np.uint8]


def prepared(folder: Path, photo: Path | None) -> tuple[Path, ...]:
    """A JPEG of each of SIZES in `folder`: `photo` cropped to that shape, or else a drawn portrait.

    Raises InputError or HostError where `photo` cannot be read.
    """
    own = None if photo is None else eight_bits(_whole(photo).pixels)
    paths = []
    for width, height in SIZES:
        picture = portrait(width, height) if own is None else cropped(own, width, height)
        path = folder / f"{width}x{height}.jpg"
        path.write_bytes(simplejpeg.encode_jpeg(picture, QUALITY, "RGB", "420"))
        paths.append(path)
    return tuple(paths)


def decoded(path: Path, card: Card) -> Frame:
    """The frame of `path`, with the proxy that `card` wants, as the daemon would read it."""
    return read_as(path, lambda width, height: proxy_size(width, height, card))


def _whole(path: Path) -> Frame:
    return read_as(path, lambda width, height: (width, height))


def read_as(path: Path, size: Callable[[int, int], tuple[int, int]]) -> Frame:
    """The frame of `path`, its proxy of the `size` that is made of its own (width, height)."""
    if not path.is_file():
        raise InputRejected("there is no such file", remedy="Name a photo that is there.")
    job = Job(1, Source("bench", path.name, Stamp.of(path.stat())), attempts=1, fence=1)
    return decode(job, path, proxy_size=size, limits=DecodeLimits(), reserve=lambda _: None)


def cropped(picture: _Picture, width: int, height: int) -> _Picture:
    """The largest middle part of `picture` (HxWx3) that has the shape, at the size."""
    scale = min(picture.shape[1] / width, picture.shape[0] / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = (picture.shape[1] - w) // 2, (picture.shape[0] - h) // 2
    part = np.ascontiguousarray(picture[y : y + h, x : x + w])
    way = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (width, height), interpolation=way), np.uint8)


def portrait(width: int, height: int) -> _Picture:
    """HxWx3: a head and shoulders before a shaded wall, soft at the edges, grained; always the same."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    wall = 90 + 70 * (x / width) + 40 * np.sin(3 * y / height)
    picture = np.stack([wall * share for share in (0.8, 0.95, 1.0)], axis=2)
    unit, centre = min(width, height), (width // 2, int(height * 0.45))
    shapes = (
        ((centre[0], height), (int(unit * 0.45), int(height * 0.3)), (44.0, 52.0, 84.0)),
        (centre, (int(unit * 0.21), int(unit * 0.27)), (58.0, 40.0, 30.0)),
        ((centre[0], centre[1] + unit // 25), (int(unit * 0.16), int(unit * 0.21)), (214.0, 170.0, 148.0)),
    )
    for middle, axes, colour in shapes:
        cv2.ellipse(picture, middle, axes, 0, 0, 360, colour, thickness=-1)
    soft = np.asarray(cv2.GaussianBlur(picture, (0, 0), unit / 300), np.float32)
    soft += np.random.default_rng(1).normal(0, 4, soft.shape)
    return np.asarray(np.clip(soft, 0, 255), np.uint8)
