"""Makes docs/quality.jpg: crops at 200 % of what is hard, for each profile; the failures too.

Run in a checkout after `make test`:  .venv/bin/python docs/quality_example.py
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import pairs
from benchmarks.quality import Bench, matte
from watcher.pipeline import foreground

PHOTOS = HERE.parent / "tests" / "data"
PAIRS = PHOTOS / "pairs"
PROFILES = ("plain", "fast", "best")
# `silhouette.jpg` as if she had moved this many pixels to the side while the shutter was open.
MOVED, MOTION = "moved.png", 31
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
    ("official_portrait_flags.jpg", 560, 560),  # dark cloth before a dark wall: a failure
    ("kodak_red_hat.png", 384, 330),  # a drape taken for a part of the hat: a failure
)
SIDE, ZOOM = 128, 2
BEHIND = (90, 160, 90)


def main():
    names = sorted({name for name, _, _ in LOOKS})
    with tempfile.TemporaryDirectory() as folder:
        moved = _moved(Path(folder) / MOVED)
        paths = {name: moved if name == MOVED else PHOTOS / name for name in names}
        bench = Bench(Path(folder) / "bench")
        made = {p: bench.results(list(paths.values()), p)[0] for p in PROFILES}
        rows = [_row(made, paths[name], *place) for name, *place in LOOKS]
    cv2.imwrite(str(HERE / "quality.jpg"), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])


def _moved(path):
    """Colours times alpha, and alpha, both blurred along the way, before what is behind her."""
    pair = next(pair for pair in pairs.read(PAIRS) if pair.name == "silhouette")
    colours = foreground.estimate(pairs.rgb(pair.image), pair.truth)
    alpha = pair.truth[..., None]
    front, alpha = (cv2.blur(part, (MOTION, 1)) for part in (colours[..., :3] * alpha, alpha))
    levels = np.rint(255 * np.clip(front + (1 - alpha[..., None]) * colours[..., 3:], 0, 1))
    cv2.imwrite(str(path), levels[..., ::-1].astype(np.uint8))
    return path


def _row(made, photo, left, top):
    stem, inside = photo.stem, (slice(top, top + SIDE), slice(left, left + SIDE))
    panels = [cv2.imread(str(photo))[inside]]
    for profile in PROFILES:
        levels = np.rint(255 * matte(made[profile] / f"{stem}.matte.png")[inside]).astype(np.uint8)
        panels.append(cv2.cvtColor(levels, cv2.COLOR_GRAY2BGR))
    cutout = cv2.imread(str(made["best"] / f"{stem}.cutout.png"), cv2.IMREAD_UNCHANGED)[inside]
    share = cutout[..., 3:] / 255
    panels.append(np.rint(cutout[..., :3] * share + np.array(BEHIND) * (1 - share)).astype(np.uint8))
    large = [cv2.resize(p, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST) for p in panels]
    return np.hstack([np.pad(p, ((3, 3), (3, 3), (0, 0)), constant_values=255) for p in large])


main()
