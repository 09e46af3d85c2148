"""`hotmatte models`, with real cards and a cache of its own."""

from __future__ import annotations

import argparse
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from watcher import config
from watcher.commands import models
from watcher.errors import ConfigError, InputRejected

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path):
    """A card `tiny` whose weights lie on this machine, and one `gone` whose weights nobody has."""
    (tmp_path / "tiny.onnx").write_bytes(b"weights")
    sources = {
        "tiny": [{"kind": "file", "path": str(tmp_path / "tiny.onnx")}],
        "gone": [{"kind": "url", "url": "http://127.0.0.1:1/gone"}],
    }
    cards = tmp_path / "cards"
    cards.mkdir()
    for name, held in sources.items():
        weights = {
            "file": "w.onnx",
            "size": 7,
            "sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
            "sources": held,
        }
        licence = {"weights": "MIT", "code": "MIT", "attribution": "us", "commercial": False, "url": "x"}
        card = {"name": name, "title": f"the {name} one", "engine": "fake", "licence": licence}
        (cards / f"{name}.yaml").write_text(yaml.safe_dump({**card, "weights": weights}))
    return tmp_path


@pytest.fixture
def hotmatte(place):
    # From a file: the built-in profiles that it does not speak of are there too, and want another model.
    told = {
        "folders": {"hot": {"path": "hot", "output": "out"}},
        "profiles": {"portrait": {"model": "tiny"}},
        "models": {"cards": "cards", "cache": "cache", "offline": False},
    }
    (place / "hotmatte.yaml").write_text(yaml.safe_dump(told))
    settings = config.load(place / "hotmatte.yaml")

    def run(*words):
        parser = argparse.ArgumentParser()
        models.configure(parser)
        return models.run(parser.parse_args(words), settings)

    return run


def test_the_list_shows_licence_and_state(hotmatte, capsys):
    assert hotmatte("list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["tiny"].split()[:2] == ["tiny", "ok"]
    assert "missing" in lines["gone"]
    assert "MIT" in lines["gone"]
    assert "ask first" in lines["gone"]
    assert "Apache-2.0" in lines["modnet"]


def test_programs_get_json(hotmatte, capsys):
    assert hotmatte("list", "--json") == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert records["tiny"]["state"] == "ok"
    assert records["gone"]["state"] == "missing"
    assert records["modnet"]["licence"]["commercial"] is True


def test_a_broken_card_is_reported_and_the_others_listed(hotmatte, place, capsys):
    (place / "cards" / "bad.yaml").write_text("name: bad\nenigne: x\n")
    assert hotmatte("list") == 0
    said = capsys.readouterr()
    assert "bad.yaml: enigne: unknown setting" in said.err
    assert "tiny" in said.out


def test_pull_without_a_name_takes_what_the_profiles_use(hotmatte, capsys):
    assert hotmatte("pull") == 0
    said = capsys.readouterr()
    assert said.out.startswith("tiny: ok ") and len(said.out.splitlines()) == 1
    assert "fetching" not in said.err


def test_pull_goes_on_after_a_failure_and_says_what_to_do(hotmatte, place, capsys):
    assert hotmatte("pull", "gone", "tiny") == 69
    said = capsys.readouterr()
    assert "gone cannot be had" in said.err
    assert f"Put the file at {place / 'cache' / 'gone' / 'w.onnx'}" in said.err
    assert "tiny: ok" in said.out


def test_verify_tells_damaged_from_missing(hotmatte, place, capsys):
    assert hotmatte("verify", "tiny") == 0
    assert hotmatte("verify", "gone") == 69
    assert hotmatte("verify") in (0, 69)
    damaged = place / "cache" / "gone" / "w.onnx"
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_bytes(b"weighty")
    capsys.readouterr()
    assert hotmatte("verify") == 69
    lines = capsys.readouterr().out.splitlines()
    assert f"gone: DAMAGED {damaged}" in lines
    assert any(line.startswith("tiny: ok") for line in lines)


@pytest.mark.parametrize(
    "words",
    [["list"], ["pull"], ["verify"], ["convert", "tiny"], ["add", "tiny.onnx"]],
    ids=lambda words: words[0],
)
def test_the_configuration_may_be_named_behind_the_action(words):
    parser = argparse.ArgumentParser()
    models.configure(parser)
    assert parser.parse_args([*words, "--config", "my.yaml"]).config == Path("my.yaml")
    assert "config" not in parser.parse_args(words), "else what stands before would be forgotten"


def test_a_name_nobody_knows_is_a_configuration_error(hotmatte):
    with pytest.raises(ConfigError, match="no model card 'nope'"):
        hotmatte("pull", "nope")


def test_a_photo_to_compare_on_that_cannot_be_read_is_named(hotmatte, tmp_path):
    with pytest.raises(InputRejected, match=r"nowhere\.jpg: there is no such file"):
        hotmatte("convert", "modnet", "--photos", str(tmp_path / "nowhere.jpg"))
    letter = tmp_path / "letter.jpg"
    letter.write_text("Dear Sirs")
    with pytest.raises(InputRejected, match=r"letter\.jpg: this is a text file"):
        hotmatte("convert", "modnet", "--photos", str(letter))


PULL = """
import sys
from pathlib import Path
from watcher.commands import models
with models._progress("modnet") as progress:
    progress(0, None)
    for done in range(0, 1001, 100):
        progress(done * 1000, 1_000_000)
"""


def test_a_terminal_gets_a_bar_and_a_log_gets_one_line():
    plain = subprocess.run([sys.executable, "-c", PULL], cwd=ROOT, capture_output=True, text=True, check=True)
    assert plain.stderr == "modnet: fetching\n"
    ours, theirs = pty.openpty()
    env = dict(os.environ, TERM="xterm")
    try:
        subprocess.run([sys.executable, "-c", PULL], cwd=ROOT, stderr=theirs, env=env, check=True)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "modnet" in shown
    assert "━" in shown
