"""Commands by somebody who is not the user of the daemon: a line that says so, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from daemonrig import CARDS, jpeg
from rootless import permissions_count

from watcher import cli, exits


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run a command on a state folder that may not be entered; (status, stdout + stderr)."""
    monkeypatch.chdir(tmp_path)
    config = {
        "folders": {"in": {"path": "hot", "output": "mattes"}},
        "profiles": {"portrait": {"model": "fake"}},
        "models": {"cards": str(CARDS)},
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    Path("hot").mkdir()
    state = Path(".hotmatte")
    state.mkdir()
    (state / "lock").touch()
    (state / "journal.sqlite").touch()
    (tmp_path / "a.jpg").write_bytes(jpeg(1))

    def command(*words: str) -> tuple[int, str]:
        with permissions_count():
            status = cli.main([*words, "--config", "config.yaml"])
        said = capfd.readouterr()
        return status, said.out + said.err

    state.chmod(0)
    yield command
    state.chmod(0o755)


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["failed"],
        ["retry", "--all"],
        ["reload"],
        ["rescan"],
        ["backup", "copy"],
        ["pause", "in"],
        ["submit", "a.jpg"],
        ["keys", "list"],
    ],
    ids=" ".join,
)
def test_whoever_may_not_enter_the_state_folder_is_told_so(run, words):
    status, said = run(*words)
    assert status == exits.IO, said
    assert ".hotmatte" in said
    assert "Traceback" not in said
    assert "no daemon runs" not in said, "nobody knows"


def test_photos_that_may_not_be_read_are_said_and_do_not_stop_the_others(run, tmp_path):
    (tmp_path / ".hotmatte").chmod(0o755)
    (tmp_path / ".hotmatte" / "journal.sqlite").unlink()
    (tmp_path / "b.jpg").write_bytes(jpeg(2))
    (tmp_path / "b.jpg").chmod(0)
    status, said = run("submit", "b.jpg", "a.jpg")
    assert status == exits.SOME_FAILED, said
    assert "b.jpg: cannot be read: Permission denied" in said
    assert os.listdir("hot") == ["a.jpg"]
    (tmp_path / "locked").mkdir(mode=0)
    status, said = run("matte", "locked/a.jpg", "-d", "out")
    assert status == exits.SOME_FAILED, said
    assert "locked/a.jpg: cannot be read: Permission denied" in said


def test_a_bug_ends_a_command_with_the_status_that_says_so(run, monkeypatch):
    monkeypatch.setattr("watcher.commands.cache.run", lambda *_: 1 / 0)
    status, said = run("cache")
    assert status == exits.BUG
    assert "ZeroDivisionError" in said
    assert "please report it" in said
