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

from benchmarks.quality import Bench, matte

PHOTOS = HERE.parent / "tests" / "data"
PROFILES = ("plain", "fast", "best")
# Photo, and left, top of the square to look at, in its own pixels.
LOOKS = (
    ("astronaut.png", 150, 10),  # hair
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
        bench = Bench(Path(folder))
        made = {p: bench.results([PHOTOS / name for name in names], p)[0] for p in PROFILES}
        rows = [_row(made, *look) for look in LOOKS]
    cv2.imwrite(str(HERE / "quality.jpg"), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])


def _row(made, name, left, top):
    stem, inside = Path(name).stem, (slice(top, top + SIDE), slice(left, left + SIDE))
    panels = [cv2.imread(str(PHOTOS / name))[inside]]
    for profile in PROFILES:
        levels = np.rint(255 * matte(made[profile] / f"{stem}.matte.png")[inside]).astype(np.uint8)
        panels.append(cv2.cvtColor(levels, cv2.COLOR_GRAY2BGR))
    cutout = cv2.imread(str(made["best"] / f"{stem}.cutout.png"), cv2.IMREAD_UNCHANGED)[inside]
    share = cutout[..., 3:] / 255
    panels.append(np.rint(cutout[..., :3] * share + np.array(BEHIND) * (1 - share)).astype(np.uint8))
    large = [cv2.resize(p, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST) for p in panels]
    return np.hstack([np.pad(p, ((3, 3), (3, 3), (0, 0)), constant_values=255) for p in large])


main()
