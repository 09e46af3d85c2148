"""`hotmatte evaluate` finds and reads whatever a profile can write without loss."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from watcher import cli
from watcher.outputs import Output
from watcher.pipeline.encode import encode
from watcher.pipeline.refine import Refined


@pytest.mark.parametrize(
    "output",
    [
        Output(kind="matte", suffix=".matte.tif", depth=16, pack="zstd"),
        Output(kind="matte", suffix=".matte.jxl"),
        Output(kind="cutout", suffix=".cutout.tif", alpha="premultiplied", pack="zstd"),
        Output(kind="cutout", suffix=".psd"),
        Output(kind="cutout", suffix=".cutout.webp"),
        Output(kind="cutout", suffix=".jxl"),
    ],
    ids=lambda output: output.suffix,
)
def test_every_lossless_format_that_is_written_is_found_and_read(tmp_path, frame_of, capsys, output):
    predicted, truth = tmp_path / "mattes", tmp_path / "truth"
    predicted.mkdir()
    truth.mkdir()
    disc = np.zeros((64, 64), np.uint8)
    cv2.circle(disc, (32, 32), 20, 255, -1)
    cv2.imwrite(str(truth / "a.png"), disc)
    photo = np.full((64, 64, 3), 90, np.uint8)
    refined = Refined(np.dstack([photo * (disc[..., None] > 0), disc]))
    (predicted / f"a{output.suffix}").write_bytes(encode(output, refined, frame_of(photo)))
    assert cli.main(["evaluate", str(predicted), str(truth), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["images"]["a"]["whole"]["sad"] == 0
    assert said["problems"] == []
