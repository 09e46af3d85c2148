"""Model cards and the sizes they ask for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from watcher.engine.card import (
    Card,
    card_folders,
    engine_file,
    list_cards,
    load_card,
    own_cards,
    proxy_size,
)
from watcher.engine.launch import prepare
from watcher.errors import ConfigError

# Without the user's own, which are nobody's business here.
SHIPPED = card_folders(None)[:1]
CARDS = [*SHIPPED, Path(__file__).parents[1] / "cards"]
MODNET = load_card("modnet", SHIPPED)
U2NETP = load_card("u2netp", SHIPPED)
BSHM = load_card("bshm", SHIPPED)

sides = st.integers(min_value=1, max_value=100_000)


def written(folder, name="mine", **changes):
    raw = yaml.safe_load((SHIPPED[0] / "modnet.yaml").read_text())
    raw |= {"name": name, **changes}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(raw))
    return folder


@pytest.mark.parametrize(
    ("photo", "proxy"),
    [
        ((1920, 1080), (896, 512)),
        ((1080, 1920), (512, 896)),
        ((6000, 4000), (768, 512)),
        ((512, 512), (512, 512)),
        ((256, 128), (1024, 512)),  # smaller both ways: brought up
        ((600, 400), (608, 416)),  # smaller one way: left alone
        ((1, 1), (512, 512)),
        ((3000, 7), (2048, 32)),
        ((3, 60_000), (32, 2048)),
        ((20_000, 2000), (2048, 192)),  # a panorama: bounded by its long side
    ],
)
def test_modnet_sees_what_its_reference_would(photo, proxy):
    assert proxy_size(*photo, MODNET) == proxy


@given(width=sides, height=sides)
def test_every_proxy_is_legal(width, height):
    wide, high = proxy_size(width, height, MODNET)
    for side in (wide, high):
        assert 32 <= side <= 2048
        assert side % 32 == 0


@given(width=sides, height=sides)
def test_a_turned_photo_has_a_turned_proxy(width, height):
    assert proxy_size(width, height, MODNET) == proxy_size(height, width, MODNET)[::-1]


@given(width=st.integers(300, 20_000), ratio=st.floats(0.5, 2.0))
def test_a_proxy_has_nearly_the_shape_of_its_photo(width, ratio):
    height = max(1, round(width * ratio))
    wide, high = proxy_size(width, height, MODNET)
    # Half a multiple on either side is all that rounding may cost.
    slack = 16 / min(wide, high)
    assert wide / high == pytest.approx(width / height, rel=2.1 * slack)


@given(width=sides, height=sides)
def test_a_graph_with_one_size_gets_that_size(width, height):
    assert proxy_size(width, height, U2NETP) == (320, 320)


@pytest.mark.parametrize(
    ("photo", "proxy"),
    [
        ((1, 1), (1, 1)),
        ((1920, 1080), (1920, 1080)),
        ((641, 479), (641, 479)),
        ((2000, 2000), (2000, 2000)),
        ((6000, 4000), (2000, 1333)),
        ((4000, 6000), (1333, 2000)),
        ((60_000, 3), (2000, 1)),
    ],
)
def test_bshm_sees_the_photo_as_it_is_up_to_2000_pixels_a_side(photo, proxy):
    assert proxy_size(*photo, BSHM) == proxy


@given(width=sides, height=sides, batch=st.integers(1, 8))
def test_the_arena_holds_the_largest_batch(width, height, batch):
    launch = prepare(MODNET.model_copy(update={"max_batch": 8}), None)
    wide, high = proxy_size(width, height, MODNET)
    assert batch * (wide * high * 7 + 128) <= launch.arena_bytes


@pytest.mark.parametrize("name", ["modnet", "u2netp", "fake", "bshm", "bshm-onnx"])
def test_cards_that_come_along_are_right(name):
    card = load_card(name, CARDS)
    assert engine_file(card.engine).is_file()
    assert engine_file(card.engine_on("cpu", gpu=False)).is_file()
    assert card.licence.attribution
    assert (card.interpreter == sys.executable) == (name != "bshm")


def test_a_card_may_name_another_engine_for_the_cpu():
    assert MODNET.engine_on("cpu", gpu=True) == "mnn"
    assert MODNET.engine_on("auto", gpu=False) == "mnn"
    assert MODNET.engine_on("auto", gpu=True) == "onnx"
    assert MODNET.engine_on("cuda:0", gpu=False) == "onnx"
    assert BSHM.engine_on("cpu", gpu=False) == "bshm"


def test_the_users_card_wins(tmp_path):
    written(tmp_path, "modnet", title="mine")
    assert load_card("modnet", card_folders(tmp_path)).title == "mine"
    assert load_card("modnet", SHIPPED).title != "mine"


def test_without_a_setting_the_users_own_cards_lie_in_his_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "hotmatte" / "models"
    folder.mkdir(parents=True)
    written(folder, "mine")
    assert load_card("mine", card_folders(None)).name == "mine"
    assert own_cards(Path("/elsewhere")) == Path("/elsewhere")


def test_an_unknown_card_names_those_there_are():
    with pytest.raises(ConfigError, match=r"no model card 'modnte' .*modnet, ") as refused:
        load_card("modnte", SHIPPED)
    assert "hotmatte models list" in refused.value.remedy, "also of a name that was typed, not configured"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_bacth": 3}, r"mine\.yaml: max_bacth: unknown setting"),
        ({"licence": None}, r"mine\.yaml: licence: "),
        ({"boot_timeout_s": 5}, "boot_timeout_s"),
        ({"input": {"std": [0.5, 0, 0.5]}}, r"input\.std"),
        ({"input": {"max_side": 1000}}, "multiple"),
        ({"input": {"short_side": 4096}}, "short_side must not exceed"),
        ({"engine": "../../etc/passwd"}, "engine"),
        ({"weights": {"file": "../x", "sha256": "0" * 64, "size": 1, "sources": []}}, r"weights\.file"),
        ({"output": {"kind": "stretched"}}, r"output\.kind"),
    ],
)
def test_a_wrong_card_is_refused_by_name(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        load_card("mine", [written(tmp_path, **changes)])


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "url", "url": "file:///etc/passwd"},
        {"kind": "wheel", "requirement": "--index-url=http://evil", "member": "x"},
        {"kind": "wheel", "requirement": "unpinned", "member": "x"},
        {"kind": "carrier-pigeon", "url": "coo"},
    ],
)
def test_a_source_that_could_be_something_else_is_refused(tmp_path, source):
    weights = {"file": "x.onnx", "sha256": "0" * 64, "size": 1, "sources": [source]}
    with pytest.raises(ConfigError, match=r"weights\.sources\.0"):
        load_card("mine", [written(tmp_path, weights=weights)])


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"size": 1}, "must be set together"),
        ({"sha256": "0" * 64}, "must be set together"),
        ({}, "must be set for sources of kind url and wheel"),
    ],
)
def test_weights_off_the_web_must_be_known_beforehand(tmp_path, held, words):
    weights = {"file": "x.onnx", "sources": [{"kind": "url", "url": "https://example.org/x"}], **held}
    with pytest.raises(ConfigError, match=words):
        load_card("mine", [written(tmp_path, weights=weights)])


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "name: !!python/object/apply:os.system [id]"])
def test_a_file_that_is_no_card_is_refused_by_name(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_card("mine", [tmp_path])


def test_a_card_is_called_like_its_file(tmp_path):
    written(tmp_path, "mine").joinpath("mine.yaml").rename(tmp_path / "yours.yaml")
    with pytest.raises(ConfigError, match="must be that of the file"):
        load_card("yours", [tmp_path])


def test_one_wrong_card_does_not_hide_the_others(tmp_path):
    written(tmp_path, "mine", engine=7)
    cards, problems = list_cards(card_folders(tmp_path))
    assert {"modnet", "u2netp"} <= {card.name for card in cards}
    assert len(problems) == 1


def test_an_unknown_engine_names_those_there_are():
    with pytest.raises(ConfigError, match=r"'torch' is not installed .*fake, mnn, onnx"):
        engine_file("torch")


def test_an_engine_of_another_package_is_found_without_running_it(tmp_path, monkeypatch):
    (tmp_path / "strange_engine.py").write_text("raise SystemExit('ran')\n")
    meta = tmp_path / "strange-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text(
        "[watcher.engines]\nstrange = strange_engine\nlost = nowhere_at_all\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert engine_file("strange") == tmp_path / "strange_engine.py"
    with pytest.raises(ConfigError, match="points at nothing"):
        engine_file("lost")


def test_an_engine_is_told_what_its_card_says():
    launch = prepare(MODNET, Path("/cache/modnet.onnx"), device="cpu", threads=1)
    assert launch.hello["model"] == "/cache/modnet.onnx"
    assert launch.hello["options"]["mean"] == [0.5, 0.5, 0.5]
    assert launch.hello["warmup"] == [512, 512]
    assert prepare(U2NETP, None).hello["warmup"] == [320, 320]
    assert prepare(U2NETP, None, warm=False).hello["warmup"] is None


def test_cards_cannot_be_changed_by_whoever_holds_one():
    with pytest.raises(ValueError, match="frozen"):
        MODNET.max_batch = 3
    assert isinstance(MODNET, Card)


@pytest.mark.parametrize("name", ["modnet-openvino", "modnet-bf16"])
def test_modnet_by_openvino_is_the_same_model_with_the_same_weights(name):
    one, other = (load_card(name, card_folders(None)) for name in ("modnet", name))
    assert other.engine == "openvino"
    assert (one.weights, one.licence) == (other.weights, other.licence)
    # OpenVINO takes the graph's first, which are those of these names.
    assert one.input.model_copy(update={"name": None}) == other.input
    assert one.output.model_copy(update={"name": None}) == other.output
