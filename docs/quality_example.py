"""Makes docs/quality.jpg: crops at 200 % of what is hard, for each profile; the failures too.

Prints how far each matte is off inside of a crop, where the true alpha is known.

Run in a checkout after `make test`:  .venv/bin/python docs/quality_example.py
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import quality_drawn as drawn

from benchmarks import pairs
from benchmarks.quality import Bench, matte
from watcher.pipeline import foreground

PHOTOS = HERE.parent / "tests" / "data"
PAIRS = PHOTOS / "pairs"
PROFILES = ("plain", "fast", "best")
# `silhouette.jpg` as if she had moved this many pixels to the side while the shutter was open.
MOVED, MOTION = "moved.png", 31
# `curls.jpg` with a veil over her hair, and `silhouette.jpg` with sunglasses pushed up into hers.
VEIL, GLASSES = "veil.png", "glasses.png"
SHEETS = (
    drawn.Sheet(
        inner=((0, 1400), (300, 1490), (700, 1540), (1080, 1500)),
        outer=((0, 1500), (300, 1700), (700, 1790), (1080, 1850)),
        folds=((3.2, 1.9, 0.1), (7.7, 1.6, 0.6), (17, 0.5, 0.3)),
    ),
    drawn.Sheet(
        inner=((0, 1190), (300, 960), (700, 700), (1080, 640)),
        outer=((0, 1120), (300, 800), (700, 480), (1080, 330)),
        folds=((3.1, 1.8, 0.3), (6.4, 1.5, 0.2), (15, 0.5, 0.8)),
    ),
)
POSE = drawn.Pose(at=(895, 280), back=118, turned=25, tilted=6, scale=0.9)
# Photo, and left, top of the square to look at, in its own pixels.
LOOKS = (
    ("astronaut.png", 150, 10),  # hair
    ("pairs/image/curls.jpg", 1600, 620),  # curls
    ("pairs/image/curls.jpg", 800, 330),  # the outermost curls
    ("pairs/image/silhouette.jpg", 860, 300),  # strands before the light
    ("pairs/image/silhouette.jpg", 860, 460),  # an elbow and a hand
    (MOVED, 560, 360),  # motion blur, simulated
    ("two_suits.jpg", 690, 0),  # white hair before gold
    ("kodak_red_hat.png", 330, 60),  # a single thread beside the hat
    ("official_portrait_flags.jpg", 330, 20),  # short hair before a dark red
    ("two_suits.jpg", 940, 330),  # a dark sleeve
    ("grace_hopper.jpg", 280, 130),  # glasses
    (GLASSES, 848, 230),  # the rim of glasses, drawn
    (VEIL, 860, 190),  # a veil close to the hair, drawn
    (VEIL, 1650, 500),  # a veil away from the hair, drawn: a failure
    ("photographer.png", 200, 130),  # fingers in gloves around a camera: a failure
    ("grace_hopper.jpg", 170, 0),  # a hat before a star
    ("official_portrait_flags.jpg", 560, 560),  # dark cloth before a dark wall: a failure
    ("kodak_red_hat.png", 384, 330),  # a drape taken for a part of the hat: a failure
)
SIDE, ZOOM = 128, 2
BEHIND = (90, 160, 90)
Field = NDArray[np.float32]
Square = tuple[slice, slice]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        known = {f"pairs/image/{pair.image.name}": pair for pair in pairs.read(PAIRS)}
        for make in (_moved, _veiled, _spectacled):
            pair = make(known, Path(folder))
            known[pair.image.name] = pair
        paths = {name: known[name].image if name in known else PHOTOS / name for name, _, _ in LOOKS}
        bench = Bench(Path(folder) / "bench")
        made = {p: bench.results(list(paths.values()), p)[0] for p in PROFILES}
        rows = []
        for name, left, top in LOOKS:
            inside = slice(top, top + SIDE), slice(left, left + SIDE)
            mattes = {p: matte(made[p] / f"{paths[name].stem}.matte.png")[inside] for p in PROFILES}
            rows.append(_row(paths[name], mattes, made["best"], inside))
            if name in known:
                _say(f"{name} at {left}, {top}", mattes, known[name].truth[inside])
    cv2.imwrite(str(HERE / "quality.jpg"), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])


def _moved(known: Mapping[str, pairs.Pair], folder: Path) -> pairs.Pair:
    """Colours times alpha, and alpha, both blurred along the way, before what is behind her."""
    pair = known["pairs/image/silhouette.jpg"]
    colours = foreground.estimate(pairs.rgb(pair.image), pair.truth)
    front, alpha = (
        np.asarray(cv2.blur(part, (MOTION, 1)), np.float32)
        for part in (colours[..., :3] * pair.truth[..., None], pair.truth)
    )
    return _written(folder / MOVED, front + (1 - alpha[..., None]) * colours[..., 3:], alpha)


def _veiled(known: Mapping[str, pairs.Pair], folder: Path) -> pairs.Pair:
    pair = known["pairs/image/curls.jpg"]
    veils = [drawn.veil(sheet, *pair.truth.shape) for sheet in SHEETS]
    return _behind(pair, [drawn.photographed(veil, blur=0.7, grain=0.004) for veil in veils], folder / VEIL)


def _spectacled(known: Mapping[str, pairs.Pair], folder: Path) -> pairs.Pair:
    pair = known["pairs/image/silhouette.jpg"]
    sky = pairs.rgb(pair.image)[240:280, 900:960].mean((0, 1))
    glasses = drawn.photographed(drawn.glasses(POSE, pair.truth, sky), blur=0.8, grain=0.003)
    return _behind(pair, [glasses], folder / GLASSES)


def _behind(pair: pairs.Pair, layers: Sequence[drawn.Layer], path: Path) -> pairs.Pair:
    """A pair as it is seen behind layers, the last of them nearest."""
    picture: drawn.Field = pairs.rgb(pair.image)
    truth: drawn.Field = pair.truth
    for layer in layers:
        picture, truth = layer.over(picture), layer.over(truth)
    return _written(path, picture, truth)


def _written(path: Path, picture: drawn.Field, truth: drawn.Field) -> pairs.Pair:
    levels = np.rint(255 * np.clip(picture, 0, 1))
    cv2.imwrite(str(path), levels[..., ::-1].astype(np.uint8))
    return pairs.Pair(path.stem, path, np.asarray(truth, np.float32))


def _row(photo: Path, mattes: Mapping[str, Field], best: Path, inside: Square) -> NDArray[np.uint8]:
    panels = [_seen(pairs.levels(photo, cv2.IMREAD_COLOR)[inside])]
    for alpha in mattes.values():
        panels.append(_seen(np.dstack([alpha] * 3)))
    cutout = pairs.levels(best / f"{photo.stem}.cutout.png")[inside]
    share = cutout[..., 3:]
    panels.append(_seen(cutout[..., :3] * share + np.array(BEHIND, np.float32) / 255 * (1 - share)))
    large = [cv2.resize(p, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST) for p in panels]
    return np.hstack([np.pad(p, ((3, 3), (3, 3), (0, 0)), constant_values=255) for p in large])


def _seen(levels: drawn.Field) -> NDArray[np.uint8]:
    return np.rint(255 * levels).astype(np.uint8)


def _say(name: str, mattes: Mapping[str, Field], truth: Field) -> None:
    """The sum of differences inside of a crop, in thousands of pixels, as SAD counts them."""
    sums = (f"{profile} {np.abs(alpha - truth).sum() / 1000:.2f}" for profile, alpha in mattes.items())
    sys.stdout.write(f"{name}: {', '.join(sums)}\n")


main()
