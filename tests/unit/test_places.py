"""Where hot folders, results and the journal may lie: places that must not meet are found."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from written import LEAST, written

from watcher import mounts, places
from watcher.config import excluded, load
from watcher.errors import ConfigError


def pair(first: str, second: str) -> str:
    return f"folders:\n  a: {{{first}}}\n  b: {{{second}}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("folders:\n  a: {path: x, output: x}\n", "2: folders.a.output: .*x is hot folder 'a' itself"),
        ("folders:\n  a: {path: x/in, output: x}\n", "2: folders.a.output: hot folder 'a' .* lies in .*x"),
        (
            pair("path: x, output: out", "path: y, output: x/out"),
            "3: folders.b.output: .*x/out lies in hot folder 'a'",
        ),
        (
            pair("path: x/in, output: out", "path: y, output: x"),
            "3: folders.b.output: hot folder 'a' .* lies in .*x",
        ),
        (
            pair("path: x, output: out", "path: y, output: out, quarantine: x/bad"),
            "3: folders.b.quarantine: .*x/bad lies in hot folder 'a'",
        ),
        (
            pair("path: x, output: out", "path: y, output: out, source: archive, archive: x"),
            "3: folders.b.archive: .*x is hot folder 'a' itself",
        ),
        (
            pair("path: x, output: out", "path: x, output: out"),
            "3: folders.b.path: .*is hot folder 'a' already",
        ),
        (
            pair("path: x/y, output: out", "path: x, output: out"),
            "2: folders.a.path: .* lies in hot folder 'b'",
        ),
        (
            "state_dir: x/state\nfolders:\n  a: {path: x, output: out}\n",
            "1: state_dir: .* lies in hot folder 'a'",
        ),
    ],
)
def test_places_that_meet_are_refused(problems: Callable[[str], list[str]], text: str, expected: str) -> None:
    (said,) = problems(text)
    assert re.match(expected, said), said


def test_results_in_a_sub_folder_of_their_own_hot_folder_are_fine_and_never_watched(tmp_path: Path) -> None:
    text = "folders: {a: {path: x, output: x/out, source: archive, archive: x/_done, quarantine: bad}}"
    folder = load(written(tmp_path, text)).folders["a"]
    assert excluded(folder) == (tmp_path / "x/out", tmp_path / "x/_done")


def test_a_hot_folder_within_one_that_ignores_sub_folders_is_fine(tmp_path: Path) -> None:
    settings = load(
        written(tmp_path, pair("path: x, output: out, recursive: false", "path: x/y, output: out2"))
    )
    assert set(settings.folders) == {"a", "b"}


def test_names_that_only_begin_alike_do_not_overlap(tmp_path: Path) -> None:
    load(written(tmp_path, pair("path: photos, output: photos-out", "path: photos2, output: photos2-out")))


def test_an_overlap_behind_a_symbolic_link_is_found(
    tmp_path: Path, problems: Callable[[str], list[str]]
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (said,) = problems(pair("path: real, output: out", "path: link, output: out"))
    assert "is hot folder 'a' already" in said
    (said,) = problems(pair("path: real, output: out", "path: y, output: link/out"))
    assert "lies in hot folder 'a'" in said


def test_results_that_reach_their_own_hot_folder_through_a_link_are_never_watched(tmp_path: Path) -> None:
    # By their name they lie outside.
    (tmp_path / "hot" / "mattes").mkdir(parents=True)
    (tmp_path / "out").symlink_to("hot/mattes")
    folder = load(written(tmp_path, "folders: {a: {path: hot, output: out}}")).folders["a"]
    assert excluded(folder) == (tmp_path / "hot" / "mattes",)


def test_results_below_a_hot_folder_that_is_itself_a_link_are_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "hot").symlink_to("real")
    folder = load(written(tmp_path, "folders: {a: {path: hot, output: hot/out}}")).folders["a"]
    assert excluded(folder) == (tmp_path / "hot" / "out",)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_state_folder_on_a_network_file_system_is_refused(
    tmp_path: Path, problems: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n40 22 0:50 / {tmp_path}/share rw - {kind} nas:/share rw\n"
    )
    monkeypatch.setattr(mounts, "MOUNTINFO", mountinfo)
    (said,) = problems("state_dir: share/state\n" + LEAST)
    assert said.startswith("1: state_dir: ")
    assert f"network file system ({kind})" in said


def test_the_embedded_default_is_refused_on_a_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"40 22 0:50 / {tmp_path} rw - nfs4 nas:/share rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", mountinfo)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"embedded default: state_dir: .*network file system") as caught:
        load(None)
    assert "hotmatte.yaml" in caught.value.remedy


def test_a_share_that_does_not_answer_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, answers = threading.Event(), os.path.realpath

    def realpath(path: Path) -> str:
        if "dead" in str(path):
            dead.wait(30.0)
        return answers(path)

    monkeypatch.setattr(places.os.path, "realpath", realpath)
    monkeypatch.setattr(places, "PATIENCE", 0.05)
    try:
        settings = load(written(tmp_path, pair("path: dead/in, output: out", "path: in, output: out")))
        assert settings.folders["a"].path == tmp_path / "dead" / "in"
    finally:
        dead.set()
