"""`hotmatte models add`: real graphs, a real worker, cards and a cache of their own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from graphs import endless, film, one_map, stranger

from watcher.commands import models, models_add
from watcher.config import Settings
from watcher.engine import adopt, weights
from watcher.engine.card import load_card
from watcher.engine.weights import State
from watcher.errors import ConfigError, EngineUnavailable

ROOT = Path(__file__).parents[2]
RIGHTS = ("--licence", "MIT", "--commercial", "--url", "https://example.org/model")


@pytest.fixture
def settings(tmp_path):
    return Settings.model_validate(
        {
            "folders": {"hot": {"path": "hot", "output": "out"}},
            "models": {"cards": tmp_path / "cards", "cache": tmp_path / "cache"},
        }
    )


@pytest.fixture
def add(settings):
    def run(*words, ask=None):
        parser = argparse.ArgumentParser()
        models.configure(parser)
        return models_add.run(parser.parse_args(["add", *map(str, words)]), settings, ask=ask)

    return run


def card_of(settings, name):
    return load_card(name, [settings.models.cards])


def test_a_graph_of_one_size_with_several_outputs_gets_its_card(add, settings, tmp_path, capsys):
    path = one_map(tmp_path / "U2 Net.onnx", image="input.1", outputs=("d0", "d1", "d2"))
    words = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    assert add(path, "--yes", *RIGHTS, *words) == 0
    said = capsys.readouterr().out
    assert "opset     13" in said
    assert "input.1, nchw, 320 x 320 only" in said
    assert "alpha     d0, values" in said
    assert "or        d1, d2 (--output)" in said
    assert "u2-net: proved: alpha of 320 x 320" in said
    card = card_of(settings, "u2-net")
    assert card.input.size == (320, 320)
    assert card.input.mean == (0.485, 0.456, 0.406)
    assert (card.input.name, card.output.name, card.output.kind) == ("input.1", "d0", "alpha")
    assert (card.licence.weights, card.licence.commercial) == ("MIT", True)


def test_the_weights_are_kept_when_the_file_goes(add, settings, tmp_path):
    path = one_map(tmp_path / "mine.onnx")
    assert add(path, "--yes", *RIGHTS) == 0
    path.unlink()
    card = card_of(settings, "mine")
    assert weights.state(card, settings.models.cache) is State.OK
    assert weights.ensure(card, settings.models.cache, offline=True) is not None


def test_a_missing_sigmoid_is_seen(add, settings, tmp_path, capsys):
    path = one_map(tmp_path / "raw.onnx", shape=("n", 3, "h", "w"), sigmoid=False, gain=5.0)
    assert add(path, "--yes", *RIGHTS) == 0
    assert "the sigmoid is missing" in capsys.readouterr().out
    assert card_of(settings, "raw").output.kind == "logits"


@pytest.mark.parametrize(
    ("shape", "layout"), [(("n", 3, "h", "w"), None), (("n", "h", "w", 3), "nhwc"), (("h", "w", 3), "hwc")]
)
def test_the_layout_is_seen(shape, layout, add, settings, tmp_path):
    assert add(one_map(tmp_path / "g.onnx", shape=shape), "--yes", *RIGHTS) == 0
    assert card_of(settings, "g").options.get("layout") == layout


def test_of_what_the_sides_must_be_multiples_is_found_out(add, settings, tmp_path, capsys):
    path = one_map(tmp_path / "g.onnx", shape=("n", 3, "h", "w"), step=32)
    assert add(path, "--yes", *RIGHTS, "--short-side", "320") == 0
    assert "any size, sides multiples of 32" in capsys.readouterr().out
    card = card_of(settings, "g")
    assert (card.input.multiple, card.input.short_side) == (32, 320)


def test_a_film_gets_its_states_and_its_ratio(add, settings, tmp_path, capsys):
    assert add(film(tmp_path / "film.onnx"), "--yes", *RIGHTS, "--mean", "0", "--std", "1") == 0
    assert "r1i, r2i, r3i, r4i, begun at zero" in capsys.readouterr().out
    card = card_of(settings, "film")
    assert card.options["states"] == {f"r{n}i": [1, 1, 1, 1] for n in range(1, 5)}
    assert card.options["downsample"] == {"input": "downsample_ratio", "long_side": 512}
    assert card.output.name == "pha"


def test_what_no_graph_tells_is_asked(add, settings, tmp_path):
    said = {
        "Licence": "Apache-2.0",
        "commercially": "y",
        "URL": "https://example.org",
        "Mean": "0.5",
        "Std": "",
    }

    def ask(question):
        return next((answer for word, answer in said.items() if word in question), "")

    assert add(one_map(tmp_path / "asked.onnx"), ask=ask) == 0
    card = card_of(settings, "asked")
    assert (card.licence.weights, card.licence.commercial) == ("Apache-2.0", True)
    assert card.input.mean == (0.5, 0.5, 0.5)


def test_what_is_not_said_is_named_and_nothing_is_written(add, settings, tmp_path, capsys):
    assert add(one_map(tmp_path / "g.onnx"), "--yes", "--licence", "MIT") == 64
    assert "--commercial or --no-commercial, --url" in capsys.readouterr().err
    assert not settings.models.cards.exists()
    assert not settings.models.cache.exists()


def test_a_model_is_not_replaced_unasked(add, tmp_path):
    with pytest.raises(ConfigError, match="there is a model 'modnet' already"):
        add(one_map(tmp_path / "modnet.onnx"), "--yes", *RIGHTS)


def test_an_output_that_is_no_map_is_refused(add, tmp_path):
    path = one_map(tmp_path / "g.onnx", outputs=("a", "b"))
    with pytest.raises(ConfigError, match="output 'c' cannot be the alpha"):
        add(path, "--yes", *RIGHTS, "--output", "c")


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x07" + b"\xff" * 4096])
def test_a_file_that_is_no_graph_is_refused_in_words(content, add, settings, tmp_path):
    path = tmp_path / "g.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineUnavailable, match=r"g\.onnx cannot be used"):
        add(path, "--yes", *RIGHTS)
    assert not settings.models.cards.exists()


def test_an_input_that_nobody_can_explain_is_named(add, tmp_path):
    with pytest.raises(EngineUnavailable, match="nobody knows what its input temperature wants"):
        add(stranger(tmp_path / "g.onnx"), "--yes", *RIGHTS)


def test_a_graph_that_never_ends_is_ended(tmp_path):
    with pytest.raises(EngineUnavailable, match="no answer to hello within 4 s"):
        adopt.look_at(endless(tmp_path / "g.onnx"), mean=(0, 0, 0), std=(1, 1, 1), timeout=4.0)


def test_without_its_proof_nothing_stays(add, settings, tmp_path, monkeypatch):
    """A card of 64 x 64 for a graph that takes 320 x 320: the proof fails, and the copy goes."""
    real = adopt.drafted

    def wrong(findings, answers, path):
        card = real(findings, answers, path)
        return card.model_copy(update={"input": card.input.model_copy(update={"size": (64, 64)})})

    monkeypatch.setattr(adopt, "drafted", wrong)
    with pytest.raises(EngineUnavailable):
        add(one_map(tmp_path / "g.onnx"), "--yes", *RIGHTS)
    assert not settings.models.cards.exists()
    assert not [path for path in settings.models.cache.rglob("*") if path.is_file()]


def test_only_the_worker_opens_the_file(tmp_path):
    path = one_map(tmp_path / "mine.onnx", shape=(1, 3, 64, 64))
    (tmp_path / "hotmatte.yaml").write_text(
        yaml.safe_dump(
            {
                "folders": {"hot": {"path": "hot", "output": "out"}},
                "models": {"cards": str(tmp_path / "cards"), "cache": str(tmp_path / "cache")},
            }
        )
    )
    code = (
        "import sys; from watcher import cli; "
        "status = cli.main(sys.argv[1:]); print('loaded', 'onnxruntime' in sys.modules); sys.exit(status)"
    )
    words = ["--config", str(tmp_path / "hotmatte.yaml"), "models", "add", str(path), "--yes", *RIGHTS]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "loaded False" in done.stdout
