"""A session for each shape on a GPU: with ONNX Runtime's real sessions, which compute on the CPU here."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from watcher.worker import opset
from watcher.worker.shaped_onnx import Shaped, parts, sides_of


def clipped(path, *, version=11, sides=("batch", 3, "height", "width"), domain=None):
    """A graph that clips to 0..0.5, as `version` of the operators has it."""
    nodes = [
        helper.make_node("Clip", ["input", "low", "high"], ["half"]),
        helper.make_node("ReduceMean", ["half"], ["output"], axes=[1], keepdims=1),
    ]
    low, high = (
        helper.make_tensor(name, TensorProto.FLOAT, [], [at]) for name, at in (("low", 0), ("high", 0.5))
    )
    shape = helper.make_tensor_value_info("input", TensorProto.FLOAT, list(sides))
    out = helper.make_tensor_value_info("output", TensorProto.FLOAT, [sides[0], 1, *sides[2:]])
    graph = helper.make_graph(nodes, "g", [shape], [out], [low, high])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=6)
    if domain is not None:
        model.opset_import[0].domain = domain
    path.write_bytes(model.SerializeToString())
    return path


class Studio:
    """Sessions of a graph as an engine on a GPU opens them; remembers for which sides."""

    def __init__(self, path, *, captures=True, room=99):
        self.path, self.captures, self.room = path, captures, room
        self.opened = []
        self.shortages = 0

    def open_fixed(self, sides, capture):
        if capture and not self.captures:
            raise RuntimeError("all compute graph nodes have not been partitioned to the CUDA EP")
        if self.room == 0:
            self.shortages += 1
            self.room = 1
            raise RuntimeError("CUDA failure 2: out of memory")
        self.room -= 1
        self.opened.append((sides, capture))
        options = onnxruntime.SessionOptions()
        for name, length in sides.items():
            options.add_free_dimension_override_by_name(name, length)
        return onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def shaped(self, **more):
        plain = onnxruntime.InferenceSession(str(self.path), providers=["CPUExecutionProvider"])
        return Shaped(
            plain,
            self.open_fixed,
            onnxruntime.OrtValue,
            lambda error: "out of memory" in str(error),
            ("cpu", 0),
            **more,
        )


def picture(height, width, count=1):
    return np.random.default_rng(height * width).uniform(-1, 1, (count, 3, height, width)).astype(np.float32)


def test_each_shape_is_prepared_once_however_they_take_turns(tmp_path):
    studio = Studio(clipped(tmp_path / "g.onnx"))
    shaped = studio.shaped()
    lying, upright = picture(4, 6), picture(6, 4)
    for pixels in (lying, upright, lying, upright, lying):
        (answer,) = shaped.run(["output"], {"input": pixels})
        assert np.allclose(answer, np.clip(pixels, 0, 0.5).mean(1, keepdims=True))
    assert studio.opened == [
        ({"batch": 1, "height": 4, "width": 6}, True),
        ({"batch": 1, "height": 6, "width": 4}, True),
    ]


def test_the_shape_that_was_not_used_for_longest_makes_room(tmp_path):
    studio = Studio(clipped(tmp_path / "g.onnx"))
    shaped = studio.shaped(most=2)
    for side in (4, 5, 4, 6, 4, 5):
        shaped.run(["output"], {"input": picture(side, side)})
    assert [sides["height"] for sides, _ in studio.opened] == [4, 5, 6, 5]


def test_where_memory_is_short_other_shapes_give_theirs(tmp_path):
    studio = Studio(clipped(tmp_path / "g.onnx"), room=2)
    shaped = studio.shaped()
    for side in (4, 5, 6):
        (answer,) = shaped.run(["output"], {"input": picture(side, side)})
        assert answer.shape == (1, 1, side, side)
    assert studio.shortages == 1
    # The one before is still there, the first is not.
    studio.room = 9
    shaped.run(["output"], {"input": picture(5, 5)})
    assert len(studio.opened) == 3
    shaped.run(["output"], {"input": picture(4, 4)})
    assert len(studio.opened) == 4


def test_a_shape_for_which_there_is_no_memory_at_all_says_so(tmp_path):
    studio = Studio(clipped(tmp_path / "g.onnx"), room=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        studio.shaped().run(["output"], {"input": picture(4, 4)})


def test_a_graph_that_cannot_be_captured_is_computed_all_the_same(tmp_path, capsys):
    studio = Studio(clipped(tmp_path / "g.onnx"), captures=False)
    shaped = studio.shaped()
    for side in (4, 5):
        shaped.run(["output"], {"input": picture(side, side)})
    assert [capture for _, capture in studio.opened] == [False, False]
    assert capsys.readouterr().err.count("no CUDA graph of this model") == 1


def test_an_output_of_unknown_shape_is_fetched(tmp_path):
    studio = Studio(clipped(tmp_path / "g.onnx", sides=("batch", 3, None, None)))
    (answer,) = studio.shaped().run(["output"], {"input": picture(4, 6)})
    assert answer.shape == (1, 1, 4, 6)


def test_a_batch_is_computed_whole_or_one_at_a_time():
    assert parts("abcde", 2) == [["a", "b"], ["c", "d"], ["e"]]
    assert parts("abc", 1) == [["a"], ["b"], ["c"]]
    assert parts("abc", 4) == [["a"], ["b"], ["c"]]
    assert parts("abc", 0) == [["a", "b", "c"]]


def test_sides_that_are_called_alike_but_differ_are_left_open():
    class Node:
        name, shape = "input", ["n", 3, "side", "side"]

    assert sides_of([Node], {"input": np.zeros((1, 3, 4, 6))}) == {"n": 1}
    assert sides_of([Node], {"input": np.zeros((1, 3, 4, 4))}) == {"n": 1, "side": 4}


@pytest.mark.parametrize("domain", [None, ""])
def test_clip_of_version_11_becomes_one_that_cuda_knows(tmp_path, domain):
    before = clipped(tmp_path / "g.onnx", domain=domain).read_bytes()
    raised = opset.raised(before)
    assert [one.version for one in onnx.load_from_string(raised).opset_import] == [12]
    pixels = picture(4, 6)
    answers = [
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"input": pixels})[
            0
        ]
        for graph in (before, raised)
    ]
    assert np.array_equal(*answers)


def test_graphs_of_other_versions_and_files_that_are_none_stay_as_they_are(tmp_path):
    for version in (10, 12, 13):
        assert opset.raised(clipped(tmp_path / "g.onnx", version=version).read_bytes()) is None
    assert opset.raised(b"Clip" + bytes(range(64))) is None
    assert opset.raised(clipped(tmp_path / "g.onnx").read_bytes().replace(b"Clip", b"Relu")) is None
    assert opset.raised(clipped(tmp_path / "g.onnx").read_bytes() + b"Dropout") is None
