from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from watcher import cli


@pytest.fixture
def folders(tmp_path):
    predicted, truth = tmp_path / "mattes", tmp_path / "truth"
    predicted.mkdir()
    truth.mkdir()
    disc = np.zeros((64, 64), np.uint8)
    cv2.circle(disc, (32, 32), 20, 255, -1)
    cv2.imwrite(str(truth / "a.png"), disc)
    cv2.imwrite(str(truth / "b.png"), disc.astype(np.uint16) * 257)
    cv2.imwrite(str(predicted / "a.matte.png"), disc)
    cutout = np.dstack([disc, disc, disc, 255 - disc])
    cv2.imwrite(str(predicted / "b.cutout.png"), cutout)
    return predicted, truth


def test_folders_are_matched_by_name_and_compared(folders, capsys):
    assert cli.main(["evaluate", *map(str, folders), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["images"]["a"]["whole"]["sad"] == 0
    # The alpha channel counts, not the grey beneath: everything is wrong.
    assert said["images"]["b"]["whole"]["sad"] == pytest.approx(64 * 64 / 1000)
    assert said["mean"]["whole"]["sad"] == pytest.approx(64 * 64 / 2000)
    assert set(said["images"]["a"]) == {"whole", "band"}


def test_the_table_names_every_picture_and_the_mean(folders, capsys):
    assert cli.main(["evaluate", *map(str, folders)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "region", "SAD", "MAD", "e-3", "MSE", "e-3", "Grad", "Conn"]
    assert [line.split()[0] for line in lines[1:]] == ["a", "a", "b", "b", "MEAN", "MEAN"]


def test_a_trimap_says_what_is_unknown(folders, tmp_path, capsys):
    predicted, truth = folders
    trimap = np.zeros((64, 64), np.uint8)
    trimap[:8] = 128
    cv2.imwrite(str(tmp_path / "trimap.png"), trimap)
    words = [str(predicted / "b.cutout.png"), str(truth / "b.png"), "--trimap", str(tmp_path / "trimap.png")]
    assert cli.main(["evaluate", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"]["b"]["band"]["pixels"] == 8 * 64


def test_what_is_missing_or_broken_is_said_and_the_rest_compared(folders, capsys):
    predicted, truth = folders
    (predicted / "b.cutout.png").write_bytes(b"no picture")
    cv2.imwrite(str(truth / "c.png"), np.zeros((8, 8), np.uint8))
    assert cli.main(["evaluate", *map(str, folders)]) == 65
    said = capsys.readouterr()
    assert "a " in said.out
    assert "not a picture" in said.err
    assert "c: there is no c.matte.png" in said.err
