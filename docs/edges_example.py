"""Makes docs/edges.png: what each step of `edges` does to a model's alpha, and what it changes.

Run in a checkout after `make test`:  .venv/bin/python docs/edges_example.py
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.engine import weights
from watcher.engine.card import Card, card_folders, load_card, proxy_size
from watcher.engine.launch import prepare
from watcher.engine.supervisor import Supervisor
from watcher.pipeline import edges

HERE = Path(__file__).parent
PHOTOS = HERE.parent / "tests" / "data"
# Photo, and the corner and side of the square to look at, in pixels of the proxy.
LOOKS = (("astronaut.png", 448, 440, 64), ("astronaut.png", 440, 140, 64))
ZOOM = 4


def main() -> None:
    card = load_card("modnet", card_folders(None))
    path = weights.ensure(card, weights.cache_folder(None))
    supervisor = Supervisor(prepare(card, path, device="cpu"))
    try:
        rows = [_row(supervisor, card, *look) for look in LOOKS]
    finally:
        supervisor.close()
    cv2.imwrite(str(HERE / "edges.png"), np.vstack(rows))


def _row(supervisor: Supervisor, card: Card, name: str, top: int, left: int, side: int) -> NDArray[np.uint8]:
    photo = cv2.imread(str(PHOTOS / name))
    assert photo is not None
    size = proxy_size(photo.shape[1], photo.shape[0], card)
    proxy = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    [alpha] = supervisor.infer([np.ascontiguousarray(proxy[..., ::-1])], timeout=60)
    panels = [proxy, _grey(alpha)]
    for step in edges.STEPS:
        cleaned = edges.clean(alpha, [step])
        panel = _grey(cleaned)
        panel[np.abs(cleaned - alpha) > 0.1] = (0, 0, 255)
        panels.append(panel)
    cut = [panel[top : top + side, left : left + side] for panel in panels]
    large = [cv2.resize(p, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST) for p in cut]
    return np.hstack([np.pad(p, ((4, 4), (4, 4), (0, 0)), constant_values=255) for p in large])


def _grey(alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.dstack([np.rint(alpha * 255).astype(np.uint8)] * 3)


main()
