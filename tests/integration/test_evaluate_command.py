from __future__ import annotations

import json
import os

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


def test_trimaps_of_a_folder_are_matched_by_name(folders, tmp_path, capsys):
    trimaps = tmp_path / "trimaps"
    trimaps.mkdir()
    trimap = np.zeros((64, 64), np.uint8)
    trimap[:8] = 128
    cv2.imwrite(str(trimaps / "a.bmp"), trimap)
    assert cli.main(["evaluate", *map(str, folders), "--trimap", str(trimaps), "--json"]) == 65
    said = json.loads(capsys.readouterr().out)
    assert said["images"]["a"]["band"]["pixels"] == 8 * 64
    assert said["problems"] == [f"b: there is no trimap b in {trimaps}"]
    cv2.imwrite(str(trimaps / "b.png"), trimap[:32])
    assert cli.main(["evaluate", *map(str, folders), "--trimap", str(trimaps)]) == 65
    assert "b: the trimap b.png is 64 x 32, but the truth 64 x 64" in capsys.readouterr().err
    assert cli.main(["evaluate", *map(str, folders), "--trimap", str(trimaps / "a.bmp")]) == 65
    assert "one trimap for many pictures" in capsys.readouterr().err


def test_sub_folders_are_walked_and_what_is_no_picture_is_left_alone(folders, capsys):
    predicted, truth = folders
    for root, name in ((predicted, "c.matte.png"), (truth, "c.png")):
        (root / "sub").mkdir()
        cv2.imwrite(str(root / "sub" / name), np.zeros((8, 8), np.uint8))
    (truth / "manifest.csv").write_text("file,source")
    (truth / ".hidden.png").write_bytes(b"x")
    assert cli.main(["evaluate", *map(str, folders), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["images"]) == {"a", "b", "sub/c"}


def test_other_sizes_are_said_in_words(folders, capsys):
    predicted, _ = folders
    cv2.imwrite(str(predicted / "a.matte.png"), np.zeros((32, 64), np.uint8))
    assert cli.main(["evaluate", *map(str, folders)]) == 65
    assert "a: a.matte.png is 64 x 32, but the truth 64 x 64" in capsys.readouterr().err


def test_one_truth_finds_its_matte_in_a_folder(folders, capsys):
    predicted, truth = folders
    assert cli.main(["evaluate", str(predicted), str(truth / "a.png"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["images"]) == {"a"}
    assert cli.main(["evaluate", str(predicted), str(truth / "nothing")]) == 65
    assert "there is no such file or folder" in capsys.readouterr().err


def test_what_is_missing_or_broken_is_said_and_the_rest_compared(folders, capsys):
    predicted, truth = folders
    (predicted / "b.cutout.png").write_bytes(b"no picture")
    cv2.imwrite(str(truth / "c.png"), np.zeros((8, 8), np.uint8))
    assert cli.main(["evaluate", *map(str, folders)]) == 65
    said = capsys.readouterr()
    assert "a " in said.out
    assert "not a picture" in said.err
    assert "c: there is no c.matte.png" in said.err


def test_a_name_that_cannot_be_printed_is_escaped_and_takes_one_line(folders, capsys):
    predicted, truth = folders
    name = os.fsdecode(b"x\xff\ny")
    for place, suffix in ((predicted, ".matte.png"), (truth, ".png")):
        (place / f"{name}{suffix}").write_bytes((truth / "a.png").read_bytes())
    (truth / f"{name} alone.png").write_bytes((truth / "a.png").read_bytes())
    assert cli.main(["evaluate", *map(str, folders)]) == 65
    said = capsys.readouterr()
    assert len([line for line in said.out.splitlines() if line.startswith("x\\xff\\ny  ")]) == 2
    assert len(said.err.splitlines()) == 1
    assert "there is no x\\xff\\ny alone.matte.png" in said.err
    assert cli.main(["evaluate", *map(str, folders), "--json"]) == 65
    assert "x\\xff\\ny" in json.loads(capsys.readouterr().out)["images"]


def test_a_folder_of_mattes_that_is_not_there_is_said_once(folders, capsys):
    assert cli.main(["evaluate", "nowhere", str(folders[1])]) == 65
    assert capsys.readouterr().err == "hotmatte evaluate: nowhere: there is no such file or folder\n"
