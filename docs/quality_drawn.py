"""What no photo of the tests has at its outline, drawn onto one with a true alpha: a veil, and glasses.

Layers before the photo: the truth is exact whatever they look like, alpha = a + (1-a) * the photo's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Layer:
    """`colours`: HxWx3, 0..1 RGB, already times alpha; `alpha`: HxW, 0..1."""

    colours: Field
    alpha: Field

    def over(self, picture: Field) -> Field:
        """`picture` (HxWx3 colours or HxW alpha) with the layer before it."""
        if picture.ndim == 2:
            return self.alpha + (1 - self.alpha) * picture
        return self.colours + (1 - self.alpha[..., None]) * picture


def photographed(layer: Layer, *, blur: float, grain: float) -> Layer:
    """The layer as the photo's lens and sensor would show it: sigma in pixels, and of noise in 0..1."""
    alpha, colours = (_blurred(part, blur) for part in (layer.alpha, layer.colours))
    noise = np.asarray(np.random.default_rng(1).normal(0, grain, colours.shape), np.float32)
    # A sensor's noise, once demosaiced, hangs together over two pixels.
    return Layer(colours + alpha[..., None] * 2 * _blurred(noise, 0.7), alpha)


def _blurred(part: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(part, (0, 0), sigma), part.dtype)


@dataclass(frozen=True, slots=True)
class Sheet:
    """Thin cloth that hangs down a picture.

    `inner`, `outer`: where its two edges are, as points (y, x) from the top to the bottom. `folds`: how many, how
    deep (1: cloth starts to lie over itself), and where they begin (in folds).
    """

    inner: Sequence[tuple[float, float]]
    outer: Sequence[tuple[float, float]]
    folds: Sequence[tuple[float, float, float]]


# Of light that meets the cloth squarely, what one layer takes away: tulle is mostly holes.
THREADS = 0.19
MESH = 2.9  # pixels from hole to hole
DOT, DOTS = 2.3, 46.0  # radius of an embroidered dot and the way between two, in pixels
HEM = 4.5  # pixels
WHITE = np.array([0.97, 0.925, 0.86])
FINER = 6  # samples of cloth a pixel


def veil(sheet: Sheet, height: int, width: int) -> Layer:
    """What each point of the cloth takes of the light is added up where it is seen: folds come of themselves.

    Optical depths add, so alpha = 1 - exp(-sum); where the cloth runs along the line of sight it is dense.
    """
    depth, light = np.zeros((2, height, width))
    # A quarter more than all the way from edge to edge: it is gathered everywhere.
    broad = 1.25 * np.ptp([x for _, x in (*sheet.inner, *sheet.outer)])
    u = (np.arange(round(FINER * broad)) + 0.5) / round(FINER * broad)
    cloth = broad * u
    rows = np.arange(height, dtype=np.float64)
    left, right = _curve(sheet.inner)(rows), _curve(sheet.outer)(rows)
    for y in range(height):
        across, slope = _folded(u, y / height, sheet.folds)
        threads = THREADS * (1 + 0.55 * _mesh(cloth, y)) + 1.1 * _dots(cloth, y)
        hem = 0.9 + 0.3 * np.sin(2.2 * cloth + 1.1 * y)
        threads = np.where(np.minimum(cloth, broad - cloth) < HEM, hem, threads) / FINER
        shade = 0.92 + 0.08 * np.tanh(1.5 * slope) + 0.05 * np.sin(4 * u + 2 * y / height)
        x = left[y] + (right[y] - left[y]) * across
        _add(depth[y], x, threads)
        _add(light[y], x, threads * shade)
    alpha = 1 - np.exp(-depth)
    share = np.clip(light / np.maximum(depth, 1e-6), 0, 1.05)
    return Layer(((alpha * share)[..., None] * WHITE).astype(np.float32), alpha.astype(np.float32))


def _folded(u: Field, down: float, folds: Sequence[tuple[float, float, float]]) -> tuple[Field, Field]:
    """Where each point of the cloth is seen (0: inner edge, 1: outer), and how fast that changes with it."""
    across = u.copy()
    for number, deep, start in folds:
        # No fold is as broad or as deep as the next, and each wanders and opens on its way down.
        uneven = u + 0.35 / number * np.sin(2 * np.pi * (0.37 * number * u + 1.7 * start))
        sway = start + 0.3 * np.sin(2.3 * down + 9 * start) + 0.2 * down * np.sin(5 * u + 9 * start)
        deepest = deep * (0.55 + 0.45 * np.sin(2 * np.pi * (0.23 * number * u + start) + 2.6 * down))
        across += deepest * np.sin(2 * np.pi * (number * uneven + sway)) / (2 * np.pi * number)
    return across, np.gradient(across, u)


def _curve(points: Sequence[tuple[float, float]]) -> Callable[[Field], Field]:
    """A smooth curve x(y) through points (y, x): their polynomial."""
    y, x = np.array(points, np.float64).T
    middle, reach = y.mean(), np.ptp(y)
    factors = np.polyfit((y - middle) / reach, x, len(points) - 1)
    return lambda at: np.asarray(np.polyval(factors, (at - middle) / reach))


def _mesh(across: Field, down: float) -> Field:
    """A honeycomb, -1/2..1: three waves at 120 degrees."""
    turn = 2 * np.pi / MESH
    waves = [np.cos(turn * (across * np.cos(a) + down * np.sin(a))) for a in np.radians((0, 60, 120))]
    return np.asarray(np.mean(waves, 0))


def _dots(across: Field, down: float) -> Field:
    """1 in embroidered dots, every other row of them shifted by half a step; 0 elsewhere."""
    row = round(down / (0.5 * DOTS))
    aside = (across + 0.5 * DOTS * (row % 2)) % DOTS - 0.5 * DOTS
    return np.asarray(np.clip(DOT + 0.5 - np.hypot(aside, down - 0.5 * DOTS * row), 0, 1))


def _add(line: Field, x: Field, what: Field) -> None:
    """Add `what` to the pixels around each `x`, shared out by nearness."""
    x = x - 0.5
    first = np.floor(x).astype(np.int64)
    for pixel, share in ((first, 1 - (x - first)), (first + 1, x - first)):
        inside = (pixel >= 0) & (pixel < len(line))
        line += np.bincount(pixel[inside], (share * what)[inside], len(line))


@dataclass(frozen=True, slots=True)
class Pose:
    """How somebody's glasses are seen: pixels of the photo (x, y; y down), and angles in degrees.

    `at`: the middle of the bridge. `back`: where the temples run. `turned`: how far from the exact profile.
    `tilted`: how far the far side is higher. `scale`: pixels per millimetre.
    """

    at: tuple[float, float]
    back: float
    turned: float
    tilted: float
    scale: float

    def seen(self, points: Field) -> Field:
        """Nx3 millimetres (towards us, up, back) as Nx2 pixels."""
        angle, turned, tilted = np.radians((self.back, self.turned, self.tilted))
        back = np.array([np.cos(angle), np.sin(angle)])
        up = np.array([-back[1], back[0]])
        axes = np.array([np.sin(turned) * back - np.sin(tilted) * up, up, np.cos(turned) * back])
        return np.asarray(np.array(self.at) + self.scale * points @ axes, np.float32)


# Millimetres of a common pair of sunglasses.
LENS, BETWEEN = (25.5, 19.5), 17.0  # half width and half height; from lens to lens
RIM, THICK = 3.4, 3.6
TEMPLE = 145.0
ACETATE, TINT = (0.055, 0.038, 0.030), (0.17, 0.095, 0.055)
FINE, PATCH = 6, 192  # drawn so many times as large, in a square of so many pixels


def glasses(pose: Pose, behind: Field, sky: Field) -> Layer:
    """The layer for a picture whose own alpha is `behind`: the far temple is behind its head.

    `sky`: the colour of the light that glass and edges catch.
    """
    far, front = _Canvas(behind.shape, pose), _Canvas(behind.shape, pose)
    far.fill(_temple(-1), ACETATE, 1)
    for side in (-1, 1):
        lens, rim = _lens(side, 0), _lens(side, RIM)
        front.fill(lens, TINT, 0.5)
        low = np.argsort(lens[:, 1])
        for part in np.linspace(0.25, 0.8, 16):  # what is before her, mirrored: brighter towards one end
            front.fill(lens[np.sort(low[: int(part * len(low))])], 0.5 * sky, 0.022)
        for depth in np.linspace(THICK, 0, 9):
            back = np.array([0, 0, depth])
            front.ring(rim + back, lens + back, ACETATE)
        front.line(rim[15:45], 0.45, 0.55 * sky, 0.5)  # the brow catches the light
        if side < 0:
            front.fill(_bridge(), ACETATE, 1)
    front.fill(_temple(1), ACETATE, 1)
    hidden, shown = far.layer(), front.layer()
    away = Layer(hidden.colours * (1 - behind[..., None]), hidden.alpha * (1 - behind))
    return Layer(shown.over(away.colours), shown.over(away.alpha))


def _lens(side: int, more: float) -> Field:
    """The outline of a lens (or, `more` millimetres outside of it, of its rim), Nx3: flat above, round below."""
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    x, y = (np.sign(f(turn)) * np.abs(f(turn)) ** 0.72 for f in (np.cos, np.sin))
    x, y = x * (LENS[0] + more), y * (LENS[1] + more)
    x *= 1 + 0.13 * y / LENS[1]
    y += np.where(y > 0, 0.07 * x, 0)  # the brow rises outwards
    x = side * (LENS[0] + BETWEEN / 2 + x)
    return np.stack([x, y, _wrap(x)], 1)


def _wrap(x: Field) -> Field:
    """How far the front lies back so far from its middle: it goes around the face."""
    return 12 * (x / 68) ** 2


def _bridge() -> Field:
    x = np.linspace(-BETWEEN / 2 - 1, BETWEEN / 2 + 1, 9)
    arch = 5 * (1 - (x / (BETWEEN / 2 + 1)) ** 2)
    upper = np.stack([x, 9 + 0.3 * arch, _wrap(x)], 1)
    return np.concatenate([upper, np.stack([x, 3 + arch, _wrap(x)], 1)[::-1]])


def _temple(side: int) -> Field:
    """From the upper outer corner of the front to the ear, and down behind it."""
    back = np.array([0.0, 30, 95, 118, TEMPLE])
    middle = np.array([13.0, 12.5, 11, 5, -12])
    half = np.array([4.2, 3.2, 2.6, 2.6, 3.0])
    x = side * np.array([62.0, 66, 69, 68, 66])
    first = _wrap(np.array([62.0]))
    upper, lower = (np.stack([x, middle + sign * half, first + back * 0.98], 1) for sign in (1, -1))
    return np.concatenate([upper, lower[::-1]])


class _Canvas:
    """A square of a picture, `FINE` times as large, in which shapes in millimetres are filled."""

    def __init__(self, size: tuple[int, ...], pose: Pose) -> None:
        self._size, self._pose = size, pose
        self._corner = np.array(pose.at, int) - PATCH // 2
        self._premixed = np.zeros((PATCH * FINE, PATCH * FINE, 4), np.float32)

    def fill(self, outline: Field, colour: object, alpha: float) -> None:
        self._over(lambda mask: cv2.fillPoly(mask, [self._there(outline)], 1), colour, alpha)

    def ring(self, outer: Field, inner: Field, colour: object) -> None:
        self._over(lambda mask: cv2.fillPoly(mask, [self._there(outer), self._there(inner)], 1), colour, 1)

    def line(self, points: Field, thick: float, colour: object, alpha: float) -> None:
        broad = max(1, round(thick * FINE))
        self._over(lambda mask: cv2.polylines(mask, [self._there(points)], False, 1, broad), colour, alpha)

    def layer(self) -> Layer:
        whole = np.zeros((*self._size, 4), np.float32)
        left, top = self._corner
        there = whole[max(0, top) : top + PATCH, max(0, left) : left + PATCH]
        small = cv2.resize(self._premixed, (PATCH, PATCH), interpolation=cv2.INTER_AREA)
        there[:] = small[max(0, -top) :, max(0, -left) :][: there.shape[0], : there.shape[1]]
        return Layer(whole[..., :3], whole[..., 3])

    def _there(self, points: Field) -> NDArray[np.int32]:
        return np.asarray(np.rint((self._pose.seen(points) - self._corner) * FINE), np.int32)

    def _over(self, draw: Callable[[NDArray[np.uint8]], object], colour: object, alpha: float) -> None:
        mask = np.zeros(self._premixed.shape[:2], np.uint8)
        draw(mask)
        share = (alpha * mask)[..., None].astype(np.float32)
        front = np.append(np.asarray(colour, np.float32), np.float32(1))
        self._premixed = share * front + (1 - share) * self._premixed
