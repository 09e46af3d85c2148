"""BSHM's old command, as the scripts of a studio call it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from daemonrig import CHECKOUT, jpeg, write_card


@pytest.fixture
def run(tmp_path):
    """Run a command in a folder of its own, configured for the fake engine; the finished process."""
    config = {
        "folders": {"in": {"path": "hot", "output": "mattes"}},
        "profiles": {"portrait": {"model": "luminance"}},
        "models": {"cards": "cards", "cache": "cache"},
    }
    (tmp_path / "hotmatte.yaml").write_text(yaml.safe_dump(config))
    write_card(tmp_path / "cards", "luminance")
    (tmp_path / "a.jpg").write_bytes(jpeg(0x804020, width=40, height=30))

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return command


OLD = str(CHECKOUT / "inference_bshm.py")


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_the_old_command_and_the_new_one_give_the_same_files(run, tmp_path):
    write_card(tmp_path / "cards", "bshm")
    old = run(OLD, "-i", "a.jpg", "-d", "old")
    assert (old.returncode, "not here" in old.stderr) == (0, False), old.stderr
    new = run("-m", "watcher", "matte", "-i", "a.jpg", "-d", "new", "--model", "bshm")
    assert new.returncode == 0, new.stderr
    assert pictures(tmp_path / "old") == pictures(tmp_path / "new") != {}


def test_its_defaults_are_those_it_always_had(run, tmp_path):
    write_card(tmp_path / "cards", "bshm")
    (tmp_path / "image-matting").mkdir()
    (tmp_path / "image-matting" / "1.png").write_bytes(jpeg(7))
    done = run(OLD)
    assert done.returncode == 0, done.stderr
    assert set(pictures(tmp_path / "results")) == {"1.cutout.png", "1.matte.png"}


def test_without_its_weights_it_says_so_and_uses_the_configured_model(run, tmp_path):
    done = run(OLD, "-i", "a.jpg")
    assert done.returncode == 0, done.stderr
    assert "hotmatte models pull bshm" in done.stderr
    assert pictures(tmp_path / "results")


def test_what_it_cannot_find_is_said_in_its_exit_status(run):
    done = run(OLD, "--input", "nowhere.jpg", "--output_dir", "out")
    assert done.returncode == 65
    assert "nowhere.jpg" in done.stderr


def test_its_help_is_that_of_the_new_command(run):
    assert "--output_dir" in run(OLD, "--help").stdout
