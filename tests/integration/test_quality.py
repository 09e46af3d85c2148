"""Profile `best` keeps what docs/quality.md says, by the real model and a photo with its alpha."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml

from watcher import cli
from watcher.engine import weights
from watcher.engine.card import card_folders, load_card
from watcher.metrics import scores

PAIRS = Path(__file__).parents[1] / "data" / "pairs"
# One look at 512 and bilinear upsampling, `python -m benchmarks quality`: SAD, MSE, Grad.
PLAIN = np.array([13.6, 1.31e-3, 7.79])


def alpha(path):
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255


def test_hair_comes_nearer_to_the_truth_than_by_plain_upsampling(real_part, tmp_path):
    cache = weights.cache_folder(None)
    state = weights.state(load_card("modnet", card_folders(None)), cache)
    real_part("MODNet's weights", state is weights.State.OK, "run `hotmatte models pull modnet`")
    config = tmp_path / "config.yaml"
    folders = {"in": {"path": "hot", "output": "mattes"}}
    config.write_text(yaml.safe_dump({"folders": folders, "models": {"cache": str(cache)}}))
    words = ["--fresh", "--quiet", "--device", "cpu", "--config", str(config), "--profile", "best"]
    photo = str(PAIRS / "image" / "curls.jpg")
    assert cli.main(["matte", *words, "-d", str(tmp_path / "made"), photo]) == 0
    found = scores(alpha(tmp_path / "made" / "curls.matte.png"), alpha(PAIRS / "alpha" / "curls.png"))
    # With room for another CPU's rounding: half of each is what it gains.
    assert (np.array([found.sad, found.mse, found.grad]) < [0.7, 0.65, 0.6] * PLAIN).all(), found
