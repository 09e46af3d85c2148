"""`hotmatte models convert` of ONNX graphs: half precision by the real converter, compared before it is kept."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto

from watcher.commands import models
from watcher.config import Settings
from watcher.engine import parity, weights
from watcher.engine.card import load_card
from watcher.engine.halve import PROGRAM, half_card
from watcher.errors import ConfigError, EngineUnavailable

# A sum that half precision cannot hold, taken back at once; between 1 and 2 its steps are 0.001.
LOST = (("Add", 2048.0), ("Sub", 2048.0))


@pytest.fixture
def shop(tmp_path):
    """Models of one's own: graphs, cards, cache."""
    return Shop(tmp_path)


class Shop:
    def __init__(self, root):
        self.cards, self.cache, self.graphs = root / "cards", root / "cache", root / "graphs"
        self.cards.mkdir()
        self.graphs.mkdir()

    def add(self, name, *steps):
        path = graphs.arithmetic(self.graphs / f"{name}.onnx", *steps)
        card = {
            "name": name,
            "title": name,
            "engine": "onnx",
            "weights": {
                "file": f"{name}.onnx",
                "sha256": weights.sha256_of(path),
                "size": path.stat().st_size,
                "sources": [{"kind": "file", "path": str(path)}],
            },
            "licence": dict.fromkeys(("weights", "code", "attribution", "url"), "ours")
            | {"commercial": True},
            "input": {"short_side": 96, "multiple": 8, "max_side": 512, "looks": [64, 128]},
            "memory_mb": 100,
        }
        self.write(card)
        return path

    def write(self, card):
        (self.cards / f"{card['name']}.yaml").write_text(yaml.safe_dump(card))

    def card(self, name):
        return load_card(name, [self.cards])

    def hotmatte(self, *words):
        parser = argparse.ArgumentParser()
        models.configure(parser)
        settings = Settings.model_validate(
            {
                "folders": {"hot": {"path": "hot", "output": "out"}},
                "models": {"cache": self.cache, "cards": self.cards},
            }
        )
        return models.run(parser.parse_args([*map(str, words)]), settings)

    def convert(self, name, *words):
        return self.hotmatte("convert", name, "--python", sys.executable, *words)

    def kept(self, name):
        """What lies in the cache for `name`."""
        folder = self.cache / name
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_half_precision_is_a_model_of_its_own_and_on_record(shop, capsys, tmp_path):
    original = shop.add("plain", ("Mul", 2.3456), ("Sigmoid", None))
    photo = tmp_path / "photo.png"
    photo.write_bytes(onnx_photo())
    assert shop.convert("plain", "--photos", photo) == 0
    said = capsys.readouterr().out
    made = shop.cache / "plain-fp16" / "plain.onnx"
    record = json.loads((shop.cache / "plain-fp16" / "plain.onnx.json").read_text())
    assert record["sha256"] == weights.sha256_of(made)
    assert record["converted_from"]["sha256"] == weights.sha256_of(original)
    assert {"onnx", "onnxruntime", "python"} <= set(record["converter"])
    # Three looks at each of two photos, and one picture of nobody.
    assert len(record["parity"]["sizes"]) == 7
    assert [96, 96] in record["parity"]["sizes"]
    assert [128, 128] in record["parity"]["sizes"]
    assert record["parity"]["largest"] <= 1
    assert 0 < record["parity"]["mean"] < 0.2
    assert f"apart in any pixel of 7 pictures, {record['parity']['mean']:.3f}/255 on average" in said
    assert shop.kept("plain-fp16") == ["plain.onnx", "plain.onnx.json"]

    card = shop.card("plain-fp16")
    assert card.memory_mb is None
    assert card.input == shop.card("plain").input
    assert "hotmatte models convert" in (shop.cards / "plain-fp16.yaml").read_text()
    assert weights.ensure(card, shop.cache, offline=True) == made
    assert shop.hotmatte("verify", "plain-fp16") == 0

    graph = onnx.load(made).graph
    assert {value.type.tensor_type.elem_type for value in [*graph.input, *graph.output]} == {
        TensorProto.FLOAT
    }
    assert {tensor.data_type for tensor in graph.initializer} == {TensorProto.FLOAT16}
    pictures = [parity.picture(64, 40), parity.picture(96, 96)]
    single = parity.answers(shop.card("plain"), original, pictures)
    for one, other in zip(single, parity.answers(card, made, pictures), strict=True):
        assert 0 < np.abs(one - other).max() < 2e-3


def onnx_photo():
    """The bytes of a small PNG."""
    import cv2

    return cv2.imencode(".png", parity.picture(120, 120))[1].tobytes()


@pytest.mark.parametrize(
    "steps",
    [LOST, (("Mul", 1e5), ("Mul", 1e-5))],
    ids=["what is lost by rounding", "what is out of range"],
)
def test_a_graph_that_half_precision_breaks_is_not_kept(shop, capsys, steps):
    shop.add("frail", *steps)
    assert shop.convert("frail") == 69
    said = capsys.readouterr().err
    assert "in half precision" in said
    assert "it was not kept" in said
    assert "single precision" in said
    assert shop.kept("frail-fp16") == []
    assert not (shop.cards / "frail-fp16.yaml").exists()


def test_the_cpu_alone_would_not_have_seen_what_rounding_breaks(shop, tmp_path):
    """Why there is a rehearsal; should ONNX Runtime learn half precision on CPUs, it may go."""
    original = shop.add("frail", *LOST)
    half, twin = tmp_path / "half.onnx", tmp_path / "twin.onnx"
    subprocess.run([sys.executable, PROGRAM, original, half, twin], check=True)
    grey = np.full((1, 3, 4, 4), 0.5, np.float32)
    values = [
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"input": grey})[0]
        for graph in (original, half, twin)
    ]
    assert [float(one.mean()) for one in values] == [0.5, 0.5, 0.0]
    # And it is what a computer of half precision gives, by NumPy's own.
    assert np.float16(0.5) + np.float16(2048) - np.float16(2048) == 0


def test_squares_and_their_means_keep_single_precision(shop):
    # A norm in pieces: white is 300 here, and its square is out of the range of half precision; the mean is not.
    shop.add("norm", ("Mul", 300.0), ("Pow", 2.0), ("ReduceMean", None), ("Sqrt", None), ("Mul", 1 / 300))
    assert 300**2 > float(np.finfo(np.float16).max)
    assert shop.convert("norm") == 0
    assert shop.kept("norm-fp16") == ["norm.onnx", "norm.onnx.json"]


def test_what_is_in_half_precision_already_is_not_halved_again(shop, tmp_path):
    original = shop.add("plain", ("Sigmoid", None), ("Mul", 1.0))
    half = tmp_path / "half.onnx"
    subprocess.run([sys.executable, PROGRAM, original, half, tmp_path / "t"], check=True)
    again = subprocess.run(
        [sys.executable, PROGRAM, half, tmp_path / "a", tmp_path / "b"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1
    assert "may be in half precision already" in again.stderr


def test_a_card_of_that_name_that_is_another_model_stays_as_it_is(shop):
    shop.add("plain", ("Sigmoid", None))
    shop.add("plain-fp16", ("Sigmoid", None))
    before = (shop.cards / "plain-fp16.yaml").read_bytes()
    with pytest.raises(ConfigError, match="'plain-fp16' already, whose weights do not come from 'plain'"):
        shop.convert("plain")
    assert (shop.cards / "plain-fp16.yaml").read_bytes() == before


def test_only_graphs_of_onnx_runtime_have_a_half(shop):
    with pytest.raises(ConfigError, match="'modnet-openvino' has no ONNX graph of its own"):
        shop.convert("modnet-openvino")


def test_half_precision_is_for_gpus_even_where_single_precision_has_another_engine_for_cpus():
    single = load_card("u2netp", models.card_folders(None))
    assert single.engine_cpu == "mnn"
    half = half_card(single)
    assert (half.engine, half.engine_cpu, half.memory_mb) == ("onnx", None, None)


def test_a_graph_whose_engine_for_cpus_knows_no_half_precision_is_compared_without_it(shop):
    shop.add("plain", ("Add", 1.0), ("Sub", 1.0))
    shop.write(yaml.safe_load((shop.cards / "plain.yaml").read_text()) | {"engine_cpu": "mnn"})
    assert shop.convert("plain") == 0
    assert weights.ensure(shop.card("plain-fp16"), shop.cache, offline=True).exists()


def test_the_shipped_card_asks_for_its_conversion(shop):
    card = load_card("modnet-fp16", models.card_folders(None))
    with pytest.raises(EngineUnavailable, match="not done yet") as caught:
        weights.ensure(card, shop.cache, offline=True)
    assert caught.value.remedy == "Run `hotmatte models convert modnet`."
    single = load_card("modnet", models.card_folders(None))
    assert (card.input, card.output, card.max_batch) == (single.input, single.output, single.max_batch)
