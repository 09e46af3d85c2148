"""Each card against a graph with the inputs and outputs of its model, and the numbers of its reference.

The real weights are tried where they are at hand (test_engines.py); for these they never were. Names,
shapes and normalisation are those that the models' own projects document, written down here again.
"""

from __future__ import annotations

import numpy as np
import pytest
from graphs import film, one_map

from watcher.engine.card import card_folders, load_card, proxy_size
from watcher.engine.client import EngineClient
from watcher.engine.launch import prepare
from watcher.errors import EngineUnavailable

FOLDERS = card_folders(None)[:1]
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0])
PLAIN = ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
SEVEN = {"image": "input.1", "outputs": tuple(str(n) for n in range(1959, 1966))}
BIREFNET = {"image": "input_image", "outputs": ("output_image",), "sigmoid": False}
# name: side, (mean, std), the graph
SIGNATURES = {
    "u2netp": (320, IMAGENET, SEVEN),
    "u2net": (320, IMAGENET, SEVEN),
    "u2net-human": (320, IMAGENET, SEVEN),
    "isnet": (1024, HALF, {"image": "input", "outputs": ("output", "1890", "1891")}),
    "birefnet": (1024, IMAGENET, BIREFNET),
    "birefnet-lite": (1024, IMAGENET, BIREFNET),
    "birefnet-portrait": (1024, IMAGENET, BIREFNET),
    "birefnet-matting": (1024, IMAGENET, BIREFNET),
    "rmbg-1.4": (1024, HALF, {"image": "input"}),
    "rmbg-2.0": (1024, IMAGENET, {"image": "pixel_values", "outputs": ("alphas",)}),
    "ben2": (1024, PLAIN, {"image": "input", "half": True}),
}


def alpha_of(card, graph, picture):
    launch = prepare(card, graph, device="cpu", threads=1)
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes)
    try:
        client.boot(launch.hello, timeout=60)
        return client.infer([picture], timeout=60)[0]
    finally:
        client.close()


def photo(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_graph_sees_what_the_reference_would_show_it(name, tmp_path):
    side, (mean, std), graph = SIGNATURES[name]
    card = load_card(name, FOLDERS)
    assert proxy_size(6000, 4000, card) == (side, side)
    path = one_map(tmp_path / "g.onnx", shape=(1, 3, side, side), **graph)
    picture = photo(side, side)
    alpha = alpha_of(card, path, picture)
    seen = ((picture / 255.0 - np.array(mean)) / np.array(std)).mean(axis=2)
    expected = 1 / (1 + np.exp(-seen))
    # Half precision has 11 bits.
    assert np.abs(alpha - expected).max() < (1e-3 if graph.get("half") else 1e-5)


@pytest.mark.parametrize("name", ["u2net-human", "isnet", "ben2"])
def test_a_faint_map_stays_faint(name, tmp_path):
    """The references stretch every map to 0..1. Of a picture with nobody in it that makes somebody."""
    side, _, graph = SIGNATURES[name]
    path = one_map(tmp_path / "g.onnx", shape=(1, 3, side, side), shown=0.01, **graph)
    alpha = alpha_of(load_card(name, FOLDERS), path, photo(side, side))
    assert 0.001 < alpha.min() < alpha.max() <= 0.01


def test_logits_of_nobody_are_nobody(tmp_path):
    side, _, graph = SIGNATURES["birefnet-portrait"]
    path = one_map(tmp_path / "g.onnx", shape=(1, 3, side, side), gain=8.0, **graph)
    alpha = alpha_of(load_card("birefnet-portrait", FOLDERS), path, np.zeros((side, side, 3), np.uint8))
    assert alpha.max() < 1e-4


@pytest.mark.parametrize(("photo_size", "ratio"), [((1920, 1080), 512 / 1824), ((500, 500), 0.5)])
def test_a_photo_is_a_film_of_one_frame(photo_size, ratio, tmp_path):
    card = load_card("rvm", FOLDERS)
    width, height = proxy_size(*photo_size, card)
    assert ratio == 512 / max(width, height)
    picture = photo(height, width)
    first = alpha_of(card, film(tmp_path / "g.onnx"), picture)
    # Zero states, and the very ratio: the graph adds the one and multiplies by the other.
    assert np.abs(first - picture.mean(axis=2) / 255 * ratio).max() < 1e-5


def test_one_photo_leaves_nothing_behind_for_the_next(tmp_path):
    card = load_card("rvm", FOLDERS)
    launch = prepare(card, film(tmp_path / "g.onnx"), device="cpu", threads=1)
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes)
    try:
        client.boot(launch.hello, timeout=60)
        first, other, again = (
            client.infer([picture], timeout=60)[0]
            for picture in (photo(64, 96), 255 - photo(64, 96), photo(64, 96))
        )
    finally:
        client.close()
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_a_name_that_the_graph_does_not_have_is_said(tmp_path):
    card = load_card("rvm", FOLDERS)
    with pytest.raises(EngineUnavailable, match=r"no input called src \(there are: input\)"):
        alpha_of(card, one_map(tmp_path / "g.onnx"), photo(320, 320))


def test_pictures_with_channels_last_are_fed_as_such(tmp_path):
    path = one_map(tmp_path / "g.onnx", shape=("batch", "h", "w", 3))
    modnet = load_card("modnet", FOLDERS)
    nameless = {part: getattr(modnet, part).model_copy(update={"name": None}) for part in ("input", "output")}
    held = modnet.model_copy(update={"engine_cpu": None, "options": {"layout": "nhwc"}, **nameless})
    picture = photo(96, 64)
    seen = ((picture / 255.0 - 0.5) / 0.5).mean(axis=2)
    assert np.abs(alpha_of(held, path, picture) - 1 / (1 + np.exp(-seen))).max() < 1e-5


def test_every_card_says_whether_one_may_earn_by_it():
    may = {name: load_card(name, FOLDERS).licence.commercial for name in (*SIGNATURES, "rvm")}
    assert {name for name, allowed in may.items() if not allowed} == {"rmbg-1.4", "rmbg-2.0"}


def test_every_card_knows_its_weights_before_they_are_fetched():
    for name in (*SIGNATURES, "rvm"):
        weights = load_card(name, FOLDERS).weights
        assert weights.sha256
        assert weights.size
