"""What is asked of TensorRT. None is at hand: what ONNX Runtime's documentation names is what is held here."""

from __future__ import annotations

import importlib.util
import os
import sys

import graphs
import numpy as np
import onnxruntime
import pytest
from pydantic import ValidationError

from watcher.engine.card import Card, bounds_of, card_folders, load_card
from watcher.engine.client import ISLAND
from watcher.engine.launch import prepare
from watcher.worker import trt

SIZES = {"least": [32, 32], "usual": [512, 768], "most": [1280, 1280], "batch": 8}


@pytest.fixture(scope="module")
def engine():
    """engine_onnx.py as a worker loads it."""
    sys.path.insert(0, str(ISLAND))
    try:
        spec = importlib.util.spec_from_file_location("engine_onnx_here", ISLAND / "engine_onnx.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ISLAND))
    return module


def shipped(name):
    return load_card(name, card_folders(None))


class Node:
    """An input of a graph, as ONNX Runtime tells of it."""

    def __init__(self, name, *shape):
        self.name, self.shape = name, list(shape)


def test_engines_and_timings_are_kept_and_sizes_are_those_of_the_card():
    shapes = trt.shapes_of([Node("input", "batch", 3, "h", "w")], "input", "nchw", SIZES, {})
    assert trt.asked("1", True, "/cache/modnet/tensorrt-07", shapes) == (
        "TensorrtExecutionProvider",
        {
            "device_id": "1",
            "trt_fp16_enable": False,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": "/cache/modnet/tensorrt-07",
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": "/cache/modnet/tensorrt-07",
            "trt_profile_min_shapes": "input:1x3x32x32",
            "trt_profile_opt_shapes": "input:1x3x512x768",
            "trt_profile_max_shapes": "input:8x3x1280x1280",
        },
    )


def test_where_all_sizes_are_fixed_and_nothing_can_be_kept_little_is_asked():
    shapes = trt.shapes_of([Node("input", 1, 3, 320, 320)], "input", "nchw", SIZES, {})
    assert shapes == {}
    assert trt.asked("0", "fp16", None, shapes)[1] == {"device_id": "0", "trt_fp16_enable": True}


def test_every_open_input_has_its_shapes_in_the_layout_of_the_graph():
    film = [Node("src", "n", 3, "h", "w"), Node("r1i", "n", "c", "h", "w"), Node("ratio", 1)]
    found = trt.shapes_of(film, "src", "nchw", SIZES, {"r1i": [1, 1, 1, 1]})
    assert found["r1i"] == [[1, 1, 1, 1]] * 3
    assert set(found) == {"src", "r1i"}
    assert trt.asked("0", True, None, found)[1]["trt_profile_max_shapes"] == "r1i:1x1x1x1,src:8x3x1280x1280"
    assert trt.shapes_of([Node("i", "h", "w", 3)], "i", "hwc", SIZES, {})["i"][1] == [512, 768, 3]
    assert trt.shapes_of([Node("i", 1, "h", "w", 3)], "i", "nhwc", SIZES, {})["i"][2] == [1, 1280, 1280, 3]


def test_what_is_no_way_to_use_it_is_refused():
    assert [trt.wanted({"tensorrt": way}) for way in (False, True, "fp16")] == [False, True, "fp16"]
    assert trt.wanted({}) is False
    for wrong in ("fp32", "true", 1, None, []):
        with pytest.raises(RuntimeError, match="may be false, true or fp16"):
            trt.wanted({"tensorrt": wrong})


def test_other_weights_of_the_same_name_have_a_folder_of_their_own(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"one")
    first = trt.kept_in(str(model))
    assert first == trt.kept_in(str(model))
    assert os.stat(first).st_mode & 0o077 == 0
    model.write_bytes(b"two")
    second = trt.kept_in(str(model))
    assert first != second
    assert {os.path.dirname(first), os.path.dirname(second)} == {str(tmp_path)}


def test_weights_in_a_place_that_cannot_be_written_are_compiled_each_time(tmp_path, capsys):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"one")
    digest = os.path.basename(trt.kept_in(str(model)))
    (tmp_path / digest).rmdir()
    (tmp_path / digest).write_bytes(b"in the way")
    assert trt.kept_in(str(model)) is None
    assert "nothing is kept" in capsys.readouterr().err


def test_the_sizes_of_a_card_reach_up_to_wide_photos_at_its_larger_look():
    assert bounds_of(shipped("modnet")) == {"least": [32, 32], "usual": [512, 768], "most": [1280, 1280]}
    assert bounds_of(shipped("u2netp")) == {which: [320, 320] for which in ("least", "usual", "most")}
    assert bounds_of(shipped("bshm-onnx"))["most"] == [2000, 2000]
    assert prepare(shipped("modnet"), None).hello["options"]["sizes"] == {**SIZES, "batch": 1}


def test_a_photo_of_another_size_goes_past_tensorrt(tmp_path, engine):
    """Two graphs in place of two providers: which one answered shows."""
    size = ("batch", 3, "height", "width")
    compiled, usual = (
        onnxruntime.InferenceSession(
            graphs.one_map(tmp_path / f"{shown}.onnx", shape=size, shown=shown),
            providers=["CPUExecutionProvider"],
        )
        for shown in (1.0, 0.0)
    )
    opened = []
    bounds = [[1, 3, 32, 32], [1, 3, 64, 96], [2, 3, 96, 96]]
    session = engine.Session(
        compiled, {}, bounds=bounds, open_beyond=lambda: opened.append(usual) or opened[-1]
    )

    def answered(count, height, width):
        alphas = session.infer([np.full((height, width, 3), 200, np.uint8)] * count)
        return {float(np.ceil(alpha.max())) for alpha in alphas}

    assert answered(2, 96, 32) == answered(1, 64, 96) == {1.0}
    assert opened == []
    for beyond in ((1, 128, 64), (3, 64, 64), (1, 16, 64), (1, 128, 64)):
        assert answered(*beyond) == {0.0}
    assert len(opened) == 1


def test_a_card_with_tensorrt_waits_until_it_is_compiled():
    card = shipped("modnet").model_dump()
    with pytest.raises(ValidationError, match="boot_timeout_s must be at least 900 with TensorRT"):
        Card.model_validate({**card, "options": {"tensorrt": "fp16"}})
    Card.model_validate({**card, "options": {"tensorrt": "fp16"}, "boot_timeout_s": 1800})
    Card.model_validate({**card, "options": {"tensorrt": False}})
