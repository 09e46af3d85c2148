"""`hotmatte models pull bshm` by the real ModelScope SDK, from a hub on loopback."""

from __future__ import annotations

import argparse
import hashlib
import json
import os

import pytest
from bshm import environments
from bshm.hub import Hub, serving
from bshm.runtimes import shipped

from watcher.commands import models
from watcher.config import Settings
from watcher.engine import modelscope, weights
from watcher.errors import EngineUnavailable

GRAPH = os.urandom(3_000_000)
OTHERS = {"README.md": b"# BSHM" * 500, "configuration.json": b"{}", "resources/sample.png": b"png" * 9000}

sdk = [pytest.mark.bshm, pytest.mark.timeout(600)]


@pytest.fixture
def hub(monkeypatch):
    with serving(Hub({"tf_graph.pb": GRAPH, **OTHERS})) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def newest(monkeypatch):
    monkeypatch.setenv(modelscope.PYTHON, str(environments.demand(environments.modelscope)))


def hotmatte(cache, *words):
    settings = Settings.model_validate(
        {
            "folders": {"hot": {"path": "hot", "output": "out"}},
            "profiles": {"portrait": {"model": "bshm"}},
            "models": {"cache": cache},
        }
    )
    parser = argparse.ArgumentParser()
    models.configure(parser)
    return models.run(parser.parse_args(words), settings)


def tagged(revision):
    card = shipped("bshm")
    (source,) = card.weights.sources
    pinned = source.model_copy(update={"revision": revision})
    return card.model_copy(update={"weights": card.weights.model_copy(update={"sources": (pinned,)})})


@pytest.mark.usefixtures("newest")
class TestWithTheSdk:
    pytestmark = sdk

    def test_the_graph_comes_alone_and_its_sha256_is_recorded(self, tmp_path, hub, capsys):
        assert hotmatte(tmp_path, "pull") == 0
        digest = hashlib.sha256(GRAPH).hexdigest()
        assert f"sha256 {digest} recorded, will be verified from now on" in capsys.readouterr().out
        place = tmp_path / "bshm" / "tf_graph.pb"
        assert place.read_bytes() == GRAPH
        record = json.loads((tmp_path / "bshm" / "tf_graph.pb.json").read_text())
        assert record["sha256"] == digest
        assert record["source"] == "modelscope damo/cv_unet_image-matting tf_graph.pb@master"
        visible = sorted(path.name for path in place.parent.iterdir() if path.suffix != ".lock")
        assert visible == ["tf_graph.pb", "tf_graph.pb.json"]
        fetched = [path for path in hub.asked if "/repo?" in path]
        assert len(fetched) == 1
        # A second time nothing is asked, and nothing is news.
        count = len(hub.asked)
        assert hotmatte(tmp_path, "pull") == 0
        assert len(hub.asked) == count
        assert "recorded" not in capsys.readouterr().out

    def test_a_tag_pins_the_revision(self, tmp_path, hub):
        assert weights.ensure(tagged("v1.0.1"), tmp_path).read_bytes() == GRAPH
        assert {
            path.partition("Revision=")[2].partition("&")[0] for path in hub.asked if "Revision" in path
        } == {"v1.0.1"}

    def test_a_revision_the_hub_does_not_have_is_told_in_its_words(self, tmp_path, hub):
        with pytest.raises(
            EngineUnavailable, match=r"tf_graph\.pb@v9: the ModelScope SDK failed: .*revision"
        ):
            weights.ensure(tagged("v9"), tmp_path)

    def test_a_line_that_breaks_is_taken_up_where_it_broke(self, tmp_path, hub):
        hub.cuts = [1_000_000, 500_000]
        assert weights.ensure(shipped("bshm"), tmp_path).read_bytes() == GRAPH
        assert hub.ranges == ["bytes=1000000-", "bytes=1500000-"]

    def test_a_later_run_goes_on_where_an_earlier_one_was_killed(self, tmp_path, hub, monkeypatch):
        monkeypatch.setenv("MODELSCOPE_DOWNLOAD_MAX_RETRIES", "0")
        hub.cuts = [2_000_000] + [0] * 30
        with pytest.raises(EngineUnavailable):
            weights.ensure(shipped("bshm"), tmp_path)
        assert weights.state(shipped("bshm"), tmp_path) is weights.State.MISSING
        hub.cuts, hub.ranges = [], []
        assert weights.ensure(shipped("bshm"), tmp_path).read_bytes() == GRAPH
        assert hub.ranges == ["bytes=2000000-"]

    def test_what_the_hub_garbles_never_becomes_weights(self, tmp_path, hub, monkeypatch):
        monkeypatch.setenv("MODELSCOPE_DOWNLOAD_MAX_RETRIES", "0")
        hub.lies = True
        with pytest.raises(EngineUnavailable, match="the ModelScope SDK failed"):
            weights.ensure(shipped("bshm"), tmp_path)
        assert weights.state(shipped("bshm"), tmp_path) is weights.State.MISSING

    def test_once_recorded_another_file_of_the_hub_is_refused(self, tmp_path, hub):
        place = weights.ensure(shipped("bshm"), tmp_path)
        place.unlink()
        hub.files["tf_graph.pb"] = GRAPH[::-1]
        with pytest.raises(EngineUnavailable, match="wrong sha256 and was deleted"):
            weights.ensure(shipped("bshm"), tmp_path)
        assert not place.exists()

    def test_a_hub_out_of_reach_is_told_with_the_way_by_hand(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setenv("MODELSCOPE_API_MAX_RETRIES", "0")
        assert hotmatte(tmp_path, "pull", "bshm") == 69
        said = capsys.readouterr().err
        assert "the ModelScope SDK failed: " in said
        assert "https://www.modelscope.cn/models/damo/cv_unet_image-matting/files" in said
        assert str(tmp_path / "bshm" / "tf_graph.pb") in said
        # The way by hand: the file is put there, and then it is the one.
        (tmp_path / "bshm" / "tf_graph.pb").write_bytes(GRAPH)
        assert hotmatte(tmp_path, "verify", "bshm") == 0
        assert "not recorded yet" in capsys.readouterr().out
        assert hotmatte(tmp_path, "pull", "bshm") == 0
        assert hashlib.sha256(GRAPH).hexdigest() in capsys.readouterr().out
        assert weights.state(shipped("bshm"), tmp_path) is weights.State.OK


@pytest.mark.bshm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("revision", ["master", "v1.0.1"])
def test_the_sdk_of_the_old_environment_will_do(revision, tmp_path, hub, monkeypatch):
    """ModelScope 1.6.1 under Python 3.7, which knows tags only. (After a break it gives up.)"""
    monkeypatch.setenv(modelscope.PYTHON, str(environments.demand(environments.tensorflow1)))
    assert weights.ensure(tagged(revision), tmp_path).read_bytes() == GRAPH
    assert {path for path in hub.asked if "/repo?" in path} == {
        "GET /api/v1/models/damo/cv_unet_image-matting/repo?Revision=v1.0.1&FilePath=tf_graph.pb"
    }
    assert not (tmp_path / "bshm" / ".modelscope").exists()


def test_without_the_sdk_the_extra_is_named(tmp_path, monkeypatch):
    lonely = tmp_path / "python"
    lonely.write_text("#!/bin/sh\nexit 1\n")
    lonely.chmod(0o755)
    monkeypatch.setenv(modelscope.PYTHON, str(lonely))
    with pytest.raises(
        EngineUnavailable, match=r"no Python here has the modelscope package.*hotmatte\[bshm\]"
    ):
        weights.ensure(shipped("bshm"), tmp_path / "cache")
