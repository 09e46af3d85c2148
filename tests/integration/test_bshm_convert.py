"""`hotmatte models convert bshm`, by the real converter, and what becomes of its result."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import pytest
from bshm import environments
from bshm.runtimes import shipped, with_graph

from watcher.commands import models
from watcher.config import Settings
from watcher.engine import converter, weights
from watcher.engine.convert import convert, target_of
from watcher.engine.launch import prepare
from watcher.errors import ConfigError, EngineUnavailable

SMALL = ((1, 1), (33, 31))


def settings_of(cache):
    return Settings.model_validate(
        {
            "folders": {"hot": {"path": "hot", "output": "out"}},
            "profiles": {"portrait": {"model": "bshm-onnx"}},
            "models": {"cache": cache},
        }
    )


def hotmatte(cache, *words):
    parser = argparse.ArgumentParser()
    models.configure(parser)
    return models.run(parser.parse_args([*map(str, words)]), settings_of(cache))


@pytest.mark.bshm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_graph_is_converted_compared_and_put_on_record(tmp_path, capsys):
    python = environments.demand(environments.tensorflow2)
    with_graph(tmp_path)
    assert weights.state(shipped("bshm-onnx"), tmp_path) is weights.State.MISSING
    assert hotmatte(tmp_path, "convert", "bshm", "--python", python) == 0
    said = capsys.readouterr().out
    made, original = tmp_path / "bshm-onnx" / "bshm.onnx", tmp_path / "bshm" / "tf_graph.pb"
    record = json.loads((tmp_path / "bshm-onnx" / "bshm.onnx.json").read_text())
    assert record["sha256"] == weights.sha256_of(made)
    assert record["converted_from"] == {
        "model": "bshm",
        "file": "tf_graph.pb",
        "sha256": weights.sha256_of(original),
    }
    assert record["converter"]["tf2onnx"] == "1.17.0"
    assert record["parity"]["largest"] <= 1
    assert [1920, 1080] in record["parity"]["sizes"]
    for words in (record["sha256"], record["converted_from"]["sha256"], "1/255 apart at 6 sizes"):
        assert words in said
    assert sorted(path.name for path in made.parent.iterdir()) == ["bshm.onnx", "bshm.onnx.json"]

    target = shipped("bshm-onnx")
    assert weights.ensure(target, tmp_path, offline=True) == made
    assert prepare(target, made).weights_sha256 == record["sha256"]
    assert hotmatte(tmp_path, "verify", "bshm-onnx") == 0

    # The record decides, not the name: other bytes, or another original, and it is refused.
    good = made.read_bytes()
    made.write_bytes(good + b" ")
    assert weights.state(target, tmp_path) is weights.State.DAMAGED
    with pytest.raises(EngineUnavailable, match="sha256 is wrong") as caught:
        weights.ensure(target, tmp_path)
    assert caught.value.remedy == "Run `hotmatte models convert bshm`."
    made.write_bytes(good)
    (tmp_path / "bshm" / "tf_graph.pb.json").unlink()
    original.write_bytes(original.read_bytes() + b"\x12\x00")
    assert hotmatte(tmp_path, "pull", "bshm") == 0
    assert weights.state(target, tmp_path) is weights.State.DAMAGED
    with pytest.raises(EngineUnavailable, match="converted from other weights of bshm"):
        weights.ensure(target, tmp_path)


@pytest.mark.bshm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_conversion_that_gives_another_alpha_is_not_kept(tmp_path):
    python = environments.demand(environments.tensorflow2)
    target = shipped("bshm-onnx")
    # A card that feeds 0..1 to a graph that wants 0..255.
    wrong = target.model_copy(update={"options": {**target.options, "scale": 1}})
    with pytest.raises(EngineUnavailable, match=r"steps off at \d+ x \d+; it was not kept"):
        convert(shipped("bshm"), wrong, with_graph(tmp_path), python=python, sizes=SMALL, say=print)
    assert [path.name for path in (tmp_path / "bshm-onnx").iterdir()] == []
    assert weights.state(target, tmp_path) is weights.State.MISSING


def test_a_python_that_cannot_convert_is_named(tmp_path, capsys):
    with_graph(tmp_path)
    assert hotmatte(tmp_path, "convert", "bshm", "--python", "/no/such/python") == 69
    assert "cannot use /no/such/python to convert: No such file" in capsys.readouterr().err
    assert hotmatte(tmp_path, "convert", "bshm", "--python", sys.executable) == 69
    said = capsys.readouterr().err
    assert "No module named" in said
    assert "--python PATH" in said


def test_without_an_index_the_environment_is_not_half_made(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    kit = dataclasses.replace(converter.TENSORFLOW, pins=("nobody-has-this==1.0",))
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="cannot install the converter: ") as caught:
            converter.interpreter(tmp_path / "cache", kit, say=print)
        assert "--python PATH" in caught.value.remedy
    assert not list((tmp_path / "cache").glob("*/ready"))


def test_a_model_nobody_converts_is_a_configuration_error():
    with pytest.raises(ConfigError, match="no model card has weights converted from 'u2netp'"):
        target_of(shipped("u2netp"), [shipped("modnet"), shipped("bshm-onnx")])
    assert target_of(shipped("bshm"), [shipped("modnet"), shipped("bshm-onnx")]).name == "bshm-onnx"


def test_weights_that_were_not_converted_here_need_their_record(tmp_path):
    target = shipped("bshm-onnx")
    place = weights.place(target, tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"from somewhere")
    assert weights.state(target, tmp_path) is weights.State.DAMAGED
    with pytest.raises(EngineUnavailable, match="without its record") as caught:
        weights.ensure(target, tmp_path)
    assert "models convert bshm" in caught.value.remedy
    assert Path(place).read_bytes() == b"from somewhere"
