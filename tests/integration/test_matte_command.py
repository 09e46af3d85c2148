"""`hotmatte matte`: one shot, the real runner and a worker, no daemon."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from daemonrig import CARDS, CHECKOUT, check_set, jpeg

from watcher import cli, exits
from watcher.commands import matte
from watcher.download import download


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run the command with the fake engine in an empty folder; (status, stdout + stderr)."""
    monkeypatch.chdir(tmp_path)
    config = {
        "folders": {"in": {"path": "hot", "output": "mattes"}},
        "profiles": {"portrait": {"model": "fake"}},
        "models": {"cards": str(CARDS)},
        "cache": {"size_mb": 0},
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))

    def command(*words: str) -> tuple[int, str]:
        status = cli.main(["matte", "--config", "config.yaml", *words])
        said = capfd.readouterr()
        return status, said.out + said.err

    return command


def sets(folder: Path) -> dict[str, str]:
    """Sidecar -> the source it tells of; every set is whole."""
    found = {}
    for path in folder.rglob("*.matte.json"):
        content = json.loads(path.read_bytes())
        check_set(path, content, folder)
        found[str(path.relative_to(folder))] = content["source"]["path"]
    return found


def test_photos_and_folders_become_mattes_and_stay(run):
    Path("shoot/day2").mkdir(parents=True)
    for name in ("a.jpg", "shoot/b.jpg", "shoot/day2/c.jpg"):
        Path(name).write_bytes(jpeg(1))
    status, said = run("a.jpg", "shoot", "-d", "out")
    assert status == 0, said
    assert sets(Path("out")) == {
        "a.matte.json": "a.jpg",
        "b.matte.json": "b.jpg",
        "day2/c.matte.json": "day2/c.jpg",
    }
    assert Path("a.jpg").read_bytes() == jpeg(1)


def test_the_old_spelling_works_and_results_is_the_default_folder(run):
    Path("a.jpg").write_bytes(jpeg(1))
    status, said = run("-i", "a.jpg")
    assert status == 0, said
    assert sets(Path("results")) == {"a.matte.json": "a.jpg"}


def test_one_bad_photo_is_said_and_does_not_stop_the_others(run):
    Path("in").mkdir()
    for i in range(5):
        Path(f"in/{i}.jpg").write_bytes(jpeg(i))
    Path("in/2.jpg").write_bytes(jpeg(2)[:-40])
    Path("in/3.jpg").write_bytes(b"a letter")
    status, said = run("in", "missing.jpg", "-d", "out", "--quiet")
    assert status == 65
    assert len(sets(Path("out"))) == 3
    assert "FAILED 2.jpg" in said
    assert "FAILED 3.jpg" in said
    assert "missing.jpg: no such file" in said
    report = json.loads(Path("out/3.error.json").read_bytes())
    assert report["remedy"]


def test_running_it_again_gives_the_same_files(run):
    Path("a.jpg").write_bytes(jpeg(1))
    Path("a.png").write_bytes(cv2.imencode(".png", np.full((8, 8, 3), 9, np.uint8))[1].tobytes())
    run("a.jpg", "a.png", "-d", "out")
    before = {path.name: path.read_bytes() for path in Path("out").glob("*.png")}
    status, _ = run("a.png", "a.jpg", "-d", "out")
    assert status == 0
    assert {path.name: path.read_bytes() for path in Path("out").glob("*.png")} == before
    assert sorted(sets(Path("out")).values()) == ["a.jpg", "a.png"]


def test_results_among_the_photos_are_no_photos(run):
    Path("shoot/sub").mkdir(parents=True)
    for name in ("shoot/a.jpg", "shoot/sub/b.jpg"):
        Path(name).write_bytes(jpeg(1))
    assert run("shoot", "-d", "shoot")[0] == 0
    before = {path: path.stat().st_ino for path in Path("shoot").rglob("*") if "json" not in path.name}
    status, said = run("shoot", "-d", "shoot")
    assert status == 0, said
    assert set(sets(Path("shoot"))) == {"a.matte.json", "sub/b.matte.json"}
    assert {path for path in Path("shoot").rglob("*") if "json" not in path.name} == set(before)


def test_results_into_a_file_are_wrong_usage(run):
    Path("a.jpg").write_bytes(jpeg(1))
    Path("out").write_text("mine")
    status, said = run("a.jpg", "-d", "out")
    assert status == exits.USAGE
    assert "out is no folder" in said
    assert Path("out").read_text() == "mine"


def test_a_remedy_does_not_speak_of_a_daemon(run):
    Path("cut.jpg").write_bytes(jpeg(1, width=64, height=64)[:-60])
    status, said = run("cut.jpg", "-d", "out")
    assert status == exits.SOME_FAILED
    assert "Copy the file again, then run the command again." in said
    assert "by itself" not in Path("out/cut.error.json").read_text()


def test_no_remedy_of_any_failure_speaks_of_a_daemon(run):
    for name, content in (("empty.jpg", b""), ("zeros.jpg", bytes(99)), ("text.jpg", b"hello")):
        Path(name).write_bytes(content)
    status, said = run("empty.jpg", "zeros.jpg", "text.jpg", "-d", "out")
    assert status == 65
    reports = [json.loads(path.read_bytes()) for path in Path("out").glob("*.error.json")]
    assert len(reports) == 3
    Path("photo.jpg").write_bytes(jpeg(1))
    blocked, words = run("photo.jpg", "-d", "/proc/here")
    assert blocked == 74
    for told in (said, words, *(report["remedy"] for report in reports)):
        assert "by itself" not in told and "drop it again" not in told


def test_a_reader_that_has_seen_enough_ends_no_work(run):
    Path("shoot").mkdir()
    for seed in range(9):
        Path(f"shoot/{seed}.jpg").write_bytes(jpeg(seed))
    Path("shoot/bad.jpg").write_bytes(b"hello")
    words = [sys.executable, "-m", "watcher", "matte", "--config", "config.yaml", "shoot", "-d", "out"]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as command:
        command.stdout.readline()
        command.stdout.close()
        assert command.wait() == exits.SOME_FAILED
    assert len(sets(Path("out"))) == 9


def test_a_link_is_refused_with_what_to_do(run):
    Path("a.jpg").write_bytes(jpeg(1))
    Path("link.jpg").symlink_to("a.jpg")
    status, said = run("link.jpg", "-d", "out")
    assert status == exits.SOME_FAILED
    assert "Name the photo itself, or a copy of it." in said


def test_nothing_to_do_is_said(run):
    Path("empty").mkdir()
    status, said = run("empty")
    assert status == 65
    assert "no photo" in said
    status, said = run()
    assert status == 64
    assert "--help" in said


def test_an_unknown_profile_or_device_is_a_configuration_error(run):
    Path("a.jpg").write_bytes(jpeg(1))
    assert run("a.jpg", "--profile", "nobody")[0] == 78
    assert run("a.jpg", "--model", "nobody")[0] == 78


@pytest.fixture
def site(tmp_path):
    (tmp_path / "www").mkdir()
    for name, seed in (("a.jpg", 1), ("b.jpg", 2)):
        (tmp_path / "www" / name).write_bytes(jpeg(seed))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "www")
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_photos_by_url_become_mattes(run, site, monkeypatch):
    monkeypatch.setattr(matte, "download", functools.partial(download, allowed=lambda _: True))
    status, said = run("-i", f"{site}/a.jpg", "-i", f"{site}/b.jpg", "-i", f"{site}/gone.jpg", "-d", "out")
    assert status == 65
    assert "404" in said
    assert sets(Path("out")) == {"a.matte.json": "a.jpg", "b.matte.json": "b.jpg"}
    told = json.loads(Path("out/a.matte.json").read_bytes())
    assert told["source"]["folder"] == f"{site}/a.jpg"


def test_a_url_inside_this_network_is_refused(run, site):
    status, said = run("-i", f"{site}/a.jpg", "-d", "out")
    assert status == 65
    assert "inside this network" in said


def test_a_device_that_there_is_not_is_wrong_usage(run, capfd):
    with pytest.raises(SystemExit) as left:
        run("a.jpg", "--device", "gpu")
    assert left.value.code == 64
    assert "'gpu' is not auto, cpu, cuda or cuda:N" in capfd.readouterr().err
