"""A session for each shape on a GPU: with ONNX Runtime's real sessions, which compute on the CPU here."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import film, one_map
from onnx import TensorProto, helper, numpy_helper

from watcher.engine.card import card_folders, load_card
from watcher.engine.client import ISLAND
from watcher.engine.launch import prepare
from watcher.worker import opset
from watcher.worker.shaped_onnx import CUDA, Shaped, parts, sides_of


def clipped(path, *, version=11, sides=("batch", 3, "height", "width"), domain=None, gain=False):
    """A graph that clips to 0..0.5, as `version` of the operators has it; with `gain` an input for what to multiply by."""
    nodes = [
        helper.make_node("Clip", ["input", "low", "high"], ["half"]),
        helper.make_node("ReduceMean", ["half"], ["mean"], axes=[1], keepdims=1),
        helper.make_node(*("Mul", ["mean", "gain"]) if gain else ("Identity", ["mean"]), ["output"]),
    ]
    low, high = (
        numpy_helper.from_array(np.array(at, np.float32), name) for name, at in (("low", 0), ("high", 0.5))
    )
    shape = helper.make_tensor_value_info("input", TensorProto.FLOAT, list(sides))
    out = helper.make_tensor_value_info("output", TensorProto.FLOAT, [sides[0], 1, *sides[2:]])
    gains = [helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1])] if gain else []
    graph = helper.make_graph(nodes, "g", [shape, *gains], [out], [low, high])
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
            "input",
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


@pytest.mark.parametrize("order", [("gain", "input"), ("input", "gain")])
def test_each_photo_is_seen_however_inputs_are_ordered(tmp_path, order):
    shaped = Studio(clipped(tmp_path / "g.onnx", gain=True)).shaped()
    for turn in range(3):
        pixels = picture(4, 6) - turn / 10
        fed = {"input": pixels, "gain": np.float32([2])}
        (answer,) = shaped.run(["output"], {name: fed[name] for name in order})
        assert np.allclose(answer, 2 * np.clip(pixels, 0, 0.5).mean(1, keepdims=True))


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


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
def test_an_answer_is_of_the_kind_that_the_graph_gives(tmp_path, kind):
    path = clipped(tmp_path / "g.onnx")
    model = onnx.load(path)
    model.graph.node[-1].CopyFrom(helper.make_node("Cast", ["mean"], ["output"], to=kind))
    model.graph.output[0].type.tensor_type.elem_type = kind
    path.write_bytes(model.SerializeToString())
    (answer,) = Studio(path).shaped().run(["output"], {"input": picture(4, 6)})
    assert answer.dtype == helper.tensor_dtype_to_np_dtype(kind)


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
    model = onnx.load(clipped(tmp_path / "g.onnx"))
    onnx.save_model(
        model, tmp_path / "apart.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    assert (tmp_path / "weights.bin").exists()
    assert opset.raised((tmp_path / "apart.onnx").read_bytes()) is None
    assert opset.raised(clipped(tmp_path / "g.onnx").read_bytes().replace(b"Clip", b"Relu")) is None
    assert opset.raised(clipped(tmp_path / "g.onnx").read_bytes() + b"Dropout") is None


# --- The engine, with CUDA played by the CPU -------------------------------------------------


class Fetched:
    """A value whose numbers are copied from where they are, as from a GPU: on a CPU they would be a view."""

    def __init__(self, value):
        self._value = value

    def __getattr__(self, name):
        return getattr(self._value, name)

    def numpy(self):
        return self._value.numpy().copy()


class Played:
    """onnxruntime of a machine with a GPU, as far as the engine asks: sessions say CUDA, and compute on the CPU."""

    def __init__(self, real):
        self._real = real
        self.fixed = []  # the sides of each session that was opened for one shape
        self.fed = []  # ... and the kinds of its inputs
        self.OrtValue = self

    def __getattr__(self, name):
        return getattr(self._real, name)

    def get_available_providers(self):
        return [CUDA, "CPUExecutionProvider"]

    def preload_dlls(self):
        pass

    def ortvalue_from_numpy(self, array, device, number):
        assert (device, number) == ("cuda", 1)
        # A copy, as on a GPU.
        return self._real.OrtValue.ortvalue_from_numpy(array.copy(), "cpu", 0)

    def ortvalue_from_shape_and_type(self, shape, kind, device, number):
        assert (device, number) == ("cuda", 1)
        return Fetched(self._real.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cpu", 0))

    def SessionOptions(self):
        options, fixed = self._real.SessionOptions(), {}
        self._sides = fixed

        class Noting:
            def __getattr__(self, name):
                return getattr(options, name)

            def __setattr__(self, name, value):
                setattr(options, name, value)

            def add_free_dimension_override_by_name(self, name, length):
                fixed[name] = length
                options.add_free_dimension_override_by_name(name, length)

        noting = Noting()
        noting.__dict__["real"] = options
        return noting

    def InferenceSession(self, graph, options, providers):
        session = self._real.InferenceSession(
            graph, options.__dict__["real"], providers=["CPUExecutionProvider"]
        )
        if providers == ["CPUExecutionProvider"]:
            return session
        ((first, asked), _) = providers
        assert (first, asked["device_id"]) == (CUDA, "1")
        if self._sides:
            self.fixed.append((self._sides, asked.get("enable_cuda_graph")))
            self.fed.append([node.type for node in session.get_inputs()])
        session.get_providers = lambda: [CUDA, "CPUExecutionProvider"]
        session.get_provider_options = lambda: {CUDA: {"device_id": "1"}}
        return session


@pytest.fixture
def gpu(monkeypatch):
    """engine_onnx.py as a worker loads it, on a machine whose second GPU is played."""
    monkeypatch.syspath_prepend(str(ISLAND))
    spec = importlib.util.spec_from_file_location("engine_onnx_on_a_gpu", ISLAND / "engine_onnx.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "onnxruntime", Played(onnxruntime))
    return module


def shown(height, width, turn=0):
    return np.random.default_rng(height + turn).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_engine_prepares_for_each_shape_and_computes_one_picture_at_a_time(gpu, tmp_path):
    options = {"sizes": {"usual": [6, 8], "batch": 1}, "mean": [0.5] * 3, "std": [0.5] * 3}
    session = gpu.load(str(clipped(tmp_path / "g.onnx")), "cuda:1", options)
    assert session.about["device"] == "cuda:1" and session.usual == [6, 8]
    pictures = [shown(6, 8), shown(6, 8, 1), shown(8, 6), shown(6, 8, 2)]
    for picture, alpha in zip(pictures, session.infer(pictures), strict=True):
        expected = np.clip(picture / 127.5 - 1, 0, 0.5).mean(2)
        assert np.allclose(alpha, expected, atol=1e-5)
    assert gpu.onnxruntime.fixed == [
        ({"batch": 1, "height": 6, "width": 8}, "1"),
        ({"batch": 1, "height": 8, "width": 6}, "1"),
    ]


def test_the_engine_computes_full_batches_together(gpu, tmp_path):
    options = {"sizes": {"usual": [6, 8], "batch": 2}}
    session = gpu.load(str(clipped(tmp_path / "g.onnx")), "cuda:1", options)
    pictures = [shown(6, 8, turn) for turn in range(3)]
    for picture, alpha in zip(pictures, session.infer(pictures), strict=True):
        assert np.allclose(alpha, np.clip(picture / 255, 0, 0.5).mean(2), atol=1e-5)
    assert [sides["batch"] for sides, _ in gpu.onnxruntime.fixed] == [2, 1]


@pytest.mark.parametrize(
    ("layout", "shape"), [("nchw", ("n", 3, "h", "w")), ("nhwc", ("n", "h", "w", 3)), ("hwc", ("h", "w", 3))]
)
def test_the_engine_feeds_bytes_to_a_gpu_and_says_what_it_says_on_a_cpu(gpu, tmp_path, layout, shape):
    options = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "layout": layout, "sizes": {"batch": 2}}
    graph = str(one_map(tmp_path / "g.onnx", shape=shape, step=1))
    pictures = [shown(6, 8), shown(6, 8, 1), shown(8, 6)]
    played = gpu.load(graph, "cuda:1", options).infer(pictures)
    assert gpu.onnxruntime.fed == [["tensor(uint8)"]] * len(gpu.onnxruntime.fed)
    assert gpu.onnxruntime.fed
    gpu.onnxruntime = onnxruntime
    for one, other in zip(played, gpu.load(graph, "cpu", options).infer(pictures), strict=True):
        assert np.array_equal(one, other)


def test_a_graph_that_is_not_understood_is_fed_numbers_on_a_gpu_too(gpu, tmp_path, monkeypatch, capsys):
    graph, pictures = str(clipped(tmp_path / "g.onnx")), [shown(6, 8), shown(8, 6)]
    for made in (None, b"no graph any more"):
        monkeypatch.setattr(gpu.levels_onnx, "fed_levels", lambda *_, made=made: made)
        session = gpu.load(graph, "cuda:1", {})
        for picture, alpha in zip(pictures, session.infer(pictures), strict=True):
            assert np.allclose(alpha, np.clip(picture / 255, 0, 0.5).mean(2), atol=1e-5)
    assert gpu.onnxruntime.fed == [["tensor(float)"]] * 4
    assert capsys.readouterr().err.count("pictures are made numbers of before the graph") == 1


def test_a_large_file_is_not_read_to_be_changed(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_CHANGED", 100)
    (alpha,) = gpu.load(str(clipped(tmp_path / "g.onnx")), "cuda:1", {}).infer([shown(6, 8)])
    assert np.allclose(alpha, np.clip(shown(6, 8) / 255, 0, 0.5).mean(2), atol=1e-5)
    assert gpu.onnxruntime.fed == [["tensor(float)"]]


@pytest.mark.parametrize("can", [True, False])
def test_a_worker_sleeps_while_its_gpu_computes_unless_the_card_says_no(
    gpu, tmp_path, monkeypatch, capsys, can
):
    graph, asked = str(clipped(tmp_path / "g.onnx")), []
    monkeypatch.setattr(gpu.driver, "wait_asleep", asked.append)
    monkeypatch.setattr(gpu.driver, "waits_asleep", lambda index: can and asked[-1] == index)
    gpu.load(graph, "cpu", {})
    gpu.load(graph, "cuda:1", {"blocking_sync": False})
    assert asked == []
    gpu.load(graph, "cuda:1", {})
    assert asked == [1]
    assert "does not let this worker sleep" not in capsys.readouterr().err, "nobody asked for it"
    gpu.load(graph, "cuda:1", {"blocking_sync": True})
    assert asked == [1, 1]
    assert ("does not let this worker sleep" in capsys.readouterr().err) is not can


def test_a_graph_with_states_and_a_ratio_sees_every_photo(gpu, tmp_path):
    card = load_card("rvm", card_folders(None))
    hello = prepare(card, film(tmp_path / "g.onnx"), device="cuda:1").hello
    session = gpu.load(hello["model"], "cuda:1", hello["options"])
    for turn in range(3):
        for picture in (shown(64, 96, turn), shown(96, 64, turn)):
            (alpha,) = session.infer([picture])
            assert np.allclose(alpha, picture.mean(axis=2) / 255, atol=1e-5)
    assert len(gpu.onnxruntime.fixed) == 2
    assert gpu.onnxruntime.fed == [["tensor(uint8)"] + 5 * ["tensor(float)"]] * 2
