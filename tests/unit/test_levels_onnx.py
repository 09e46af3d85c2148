"""Graphs that make numbers of a picture's bytes themselves: the same numbers, computed by ONNX Runtime on the CPU here."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import arithmetic, film, halves, one_map
from onnx import TensorProto, helper

from watcher.engine import weights
from watcher.engine.card import card_folders, load_card
from watcher.errors import EngineUnavailable
from watcher.worker.levels_onnx import NAME, fed_levels
from watcher.worker.planes import Normal

# Of no two channels alike.
OPTIONS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def shown(height, width, count=1):
    return np.random.default_rng(height * width).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def opened(graph):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])


def fed(graph, name="input", layout="nchw", options=OPTIONS):
    normal = Normal(options)
    return fed_levels(graph, name, layout, normal.scale, normal.shift)


def both(path, pictures, *, name="input", layout="nchw", options=OPTIONS, **more):
    """What the graph says of pictures as it is fed numbers, and as it is fed bytes."""
    made, graph = fed(path.read_bytes(), name, layout, options), path.read_bytes()
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)
    session = opened(graph)
    (node,) = [node for node in session.get_inputs() if node.name == name]
    normal = Normal(options)
    numbers = normal.planes(list(pictures)) if layout == "nchw" else normal.pictures(list(pictures))
    numbers = numbers.astype(np.float16 if node.type == "tensor(float16)" else np.float32)
    if layout == "hwc":
        numbers, pictures = numbers[0], pictures[0]
    return (
        session.run(None, {name: numbers, **more})[0],
        opened(made).run(None, {NAME: pictures, **more})[0],
    )


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("options", [OPTIONS, {}, {"mean": [0.5] * 3, "std": [1.0] * 3, "scale": 255}])
def test_the_numbers_are_the_same_to_the_last_bit(tmp_path, options, count):
    path = arithmetic(tmp_path / "g.onnx", ("Mul", 3.0), ("Add", -1.0))
    assert np.array_equal(*both(path, shown(40, 56, count), options=options))


@pytest.mark.parametrize(("layout", "shape"), [("nhwc", ("n", "h", "w", 3)), ("hwc", ("h", "w", 3))])
def test_graphs_of_other_layouts_too(tmp_path, layout, shape):
    path = one_map(tmp_path / "g.onnx", shape=shape)
    assert np.array_equal(*both(path, shown(24, 40), layout=layout))


def halved(path, **more):
    """A graph as `one_map` makes them, whose picture is in half precision."""
    model = onnx.load(one_map(path, shape=("batch", 3, "height", "width"), **more))
    for node in model.graph.node:
        node.input[:] = ["wide" if name == "input" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Cast", ["input"], ["wide"], to=TensorProto.FLOAT))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    path.write_bytes(model.SerializeToString())
    return path


def test_a_graph_in_half_precision_is_given_the_numbers_rounded_as_before(tmp_path):
    before, after = both(halved(tmp_path / "g.onnx", half=True), shown(24, 40, 2))
    assert before.dtype == after.dtype == np.float16
    assert np.array_equal(before, after)


def test_what_else_a_graph_is_fed_stays_as_it_is(tmp_path):
    path = film(tmp_path / "g.onnx")
    card = load_card("rvm", card_folders(None))
    more = {name: np.zeros(shape, np.float32) for name, shape in card.options["states"].items()}
    more["downsample_ratio"] = np.float32([0.5])
    assert np.array_equal(*both(path, shown(24, 40), name="src", options={}, **more))
    before, after = (
        onnx.load_from_string(one).graph for one in (path.read_bytes(), fed(path.read_bytes(), "src"))
    )
    assert list(after.input)[1:] == list(before.input)[1:]
    assert list(after.output) == list(before.output)
    assert list(after.node)[-len(before.node) :] == list(before.node)
    # Sides are known by their names, by which they are fixed.
    assert [side.dim_param for side in after.input[0].type.tensor_type.shape.dim] == [
        "batch",
        "height",
        "width",
        "",
    ]


def test_a_size_that_the_graph_fixes_stays_fixed(tmp_path):
    made = opened(fed(halves(tmp_path / "g.onnx").read_bytes()))
    assert [(node.name, node.type, node.shape) for node in made.get_inputs()] == [
        (NAME, "tensor(uint8)", [1, 64, 64, 3])
    ]


@pytest.mark.parametrize("model", ["modnet", "u2netp"])
def test_a_real_graph_says_the_same(model):
    card = load_card(model, card_folders(None))
    try:
        path = weights.ensure(card, weights.cache_folder(None))
    except EngineUnavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    options = {"mean": list(card.input.mean), "std": list(card.input.std)}
    name = card.input.name or opened(path.read_bytes()).get_inputs()[0].name
    before, after = both(path, shown(320, 320), name=name, options=options)
    # The same numbers; where channels lie between may differ, and by it the order of sums.
    assert np.abs(before - after).max() <= 1e-6


def without_shape(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def of_an_old_version(model):
    model.opset_import[0].version = 6


def of_another_domain(model):
    model.opset_import[0].domain = "com.microsoft"


def of_whole_numbers(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32


def of_two_sides(model):
    del model.graph.input[0].type.tensor_type.shape.dim[2:]


@pytest.mark.parametrize(
    "spoil", [without_shape, of_an_old_version, of_another_domain, of_whole_numbers, of_two_sides]
)
def test_a_graph_that_is_not_understood_is_left_alone(tmp_path, spoil):
    model = onnx.load(arithmetic(tmp_path / "g.onnx"))
    assert fed(model.SerializeToString()) is not None
    spoil(model)
    assert fed(model.SerializeToString()) is None


def test_an_input_that_is_not_there_weights_beside_the_file_and_a_graph_that_is_fed_bytes_already(tmp_path):
    graph = arithmetic(tmp_path / "g.onnx").read_bytes()
    assert fed(graph, "photo") is None
    assert fed(fed(graph)) is None
    onnx.save_model(
        onnx.load_from_string(graph),
        tmp_path / "apart.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert fed((tmp_path / "apart.onnx").read_bytes()) is None


def test_a_file_that_is_no_graph_or_not_all_of_one_is_left_alone(tmp_path):
    graph = arithmetic(tmp_path / "g.onnx", ("Mul", 2.0)).read_bytes()
    for end in range(len(graph)):
        fed(graph[:end])
    assert fed(b"") is None
    assert fed(bytes(range(256))) is None
    assert fed(b"\xff" * 64) is None
    assert fed(graph[: len(graph) // 2]) is None
    # Two graphs would be merged by whoever reads them.
    assert fed(graph + b"\x3a\x00") is None
