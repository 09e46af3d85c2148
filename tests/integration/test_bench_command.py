"""`hotmatte bench`: real workers, real cards. Times are not judged, only that they are there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
import yaml
from bshm.runtimes import RUNTIMES, card_and_weights
from daemonrig import CARDS, jpeg
from PIL import Image

from watcher import cli
from watcher.commands import bench, bench_engines, bench_memory, bench_photos
from watcher.commands.bench_engines import Effort, Measured, Missing, devices_of, measure, percentile
from watcher.commands.doctor_engines import graphics_cards
from watcher.cores import cores
from watcher.engine import weights
from watcher.engine.card import FileSource, Weights, card_folders, load_card

LICENCE = {"weights": "MIT", "code": "MIT", "attribution": "us", "commercial": False, "url": "x"}
GONE = {
    "weights": {
        "file": "w.onnx",
        "size": 7,
        "sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
        "sources": [{"kind": "url", "url": "http://127.0.0.1:1/gone"}],
    },
}
SMALL = {"short_side": 64, "multiple": 32, "max_side": 128}


@pytest.fixture
def cards(tmp_path):
    """A folder of cards to which `cards(name, **settings)` adds one of the fake engine."""
    folder = tmp_path / "cards"
    folder.mkdir()

    def add(name, **settings):
        card = {"name": name, "title": name, "engine": "fake", "licence": LICENCE, "input": SMALL}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**card, **settings}))

    return add


@pytest.fixture
def run(tmp_path, capfd):
    """`hotmatte bench` with those cards; (status, stdout, stderr)."""
    config = {
        "folders": {"in": {"path": "hot", "output": "mattes"}},
        "models": {"cards": str(tmp_path / "cards"), "cache": str(tmp_path / "cache")},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))

    def command(*words):
        status = cli.main(["bench", "--config", str(tmp_path / "config.yaml"), "--runs", "2", *words])
        said = capfd.readouterr()
        return status, said.out, said.err

    return command


def cells(table, model):
    """The rows of `model`, as words."""
    return [line.split() for line in table.splitlines() if line.startswith(model + " ")]


def test_a_card_is_measured_at_both_sizes_beside_the_published_figures(run, cards):
    cards("quick")
    status, said, progress = run("--cards", "quick")
    assert status == 0, said + progress
    wide, tall = cells(said, "quick")
    assert [wide[1], *wide[-8:-5]] == ["cpu", "1920x1080", "128x64", "2"]
    assert [tall[1], *tall[-8:-5]] == ["cpu", "1200x1600", "64x96", "2"]
    assert wide[-1] == "-", "a worker on the CPU holds no GPU memory"
    for row, published in zip(
        cells(said, "BSHM,"), (("1920x1080", "132"), ("1200x1600", "158")), strict=True
    ):
        assert row[1] == "published"
        assert "4090" in row
        assert {*published, "2980"} <= set(row)
    assert "another machine" in said
    assert "not measured" not in said
    assert "quick on auto ..." in progress


def test_programs_get_json(run, cards):
    cards("quick")
    cards("gone", **GONE)
    status, said, _ = run("--cards", "quick", "gone", "--json")
    assert status == 0
    facts = json.loads(said)
    assert set(facts) == {"machine", "measured", "missing", "unreadable", "published"}
    assert facts["machine"]["cores"] == cores()
    assert [one["photo"] for one in facts["measured"]] == [[1920, 1080], [1200, 1600]]
    for one in facts["measured"]:
        assert set(one) == set(Measured.__dataclass_fields__)
        assert (one["model"], one["device"], one["runs"], one["gpu_mb"]) == ("quick", "cpu", 2, None)
        assert 0 < one["median_ms"] <= one["p95_ms"]
        assert one["end_to_end_ms"] > 0
        assert one["start_ms"] > 0
        assert one["host_mb"] > 10, "Python and numpy alone take more"
    (missing,) = facts["missing"]
    assert set(missing) == set(Missing.__dataclass_fields__)
    assert [one["median_ms"] for one in facts["published"]] == [132, 158]
    assert {one["gpu_mb"] for one in facts["published"]} == {2980}


def test_what_is_not_there_is_listed_with_reason_and_remedy_and_nothing_is_fetched(run, cards, tmp_path):
    cards("gone", **GONE)
    cards("homeless", python="/opt/nowhere/bin/python")
    cards("strange", engine="nobody_s")
    status, said, _ = run("--cards", "gone", "homeless", "strange")
    assert status == 69
    listed = said.partition("not measured:\n")[2]
    assert "gone: its weights are missing\n" in listed
    assert f"Put the file at {tmp_path / 'cache' / 'gone' / 'w.onnx'}" in listed
    assert "homeless: its interpreter /opt/nowhere/bin/python is not there\n" in listed
    assert "strange on auto: engine 'nobody_s' is not installed" in listed
    assert not (tmp_path / "cache").exists()
    assert len(cells(said, "BSHM,")) == 2, "what is published stays in the table"


def test_damaged_and_unrecorded_weights_are_not_measured_nor_recorded(run, cards, tmp_path):
    cards("gone", **GONE)
    unknown = {"kind": "file", "path": str(tmp_path / "somewhere.pb")}
    cards("unsure", weights={"file": "w.pb", "sources": [unknown]})
    for name, file in (("gone", "w.onnx"), ("unsure", "w.pb")):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / file).write_bytes(b"weighty")
    status, said, _ = run("--cards", "gone", "unsure")
    assert status == 69
    assert "gone: its weights are damaged" in said
    assert "unsure: the sha256 of its weights is not on record yet" in said
    assert "Run `hotmatte models pull unsure`." in said
    assert [path.name for path in (tmp_path / "cache" / "unsure").iterdir()] == ["w.pb"]


def test_a_worker_that_does_not_start_is_listed_with_its_words(run, cards, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"weights")
    lying = {"kind": "file", "path": str(tmp_path / "broken.onnx")}
    cards("broken", engine="onnx", weights={**GONE["weights"], "sources": [lying]})
    status, said, _ = run("--cards", "broken", "--device", "cpu")
    assert status == 69
    assert "broken on cpu: the engine did not start: " in said
    assert "hotmatte doctor" in said


def test_every_card_is_looked_at_and_an_unreadable_one_does_not_stop_the_others(run, cards, tmp_path):
    cards("quick")
    (tmp_path / "cards" / "bad.yaml").write_text("name: bad\nenigne: x\n")
    status, said, progress = run("--json", "--device", "cpu")
    assert status == 0
    assert "bad.yaml: enigne: unknown setting" in progress
    facts = json.loads(said)
    assert any("enigne" in problem for problem in facts["unreadable"])
    assert {one["model"] for one in facts["measured"]} == {"quick"}
    # The shipped ones, in a cache that holds none of their weights.
    assert {"modnet", "u2netp", "bshm", "bshm-onnx"} <= {one["model"] for one in facts["missing"]}
    (converted,) = (one for one in facts["missing"] if one["model"] == "bshm-onnx")
    assert converted["remedy"] == "Run `hotmatte models convert bshm`."


def test_a_slow_engine_is_run_once_that_counts(run, cards):
    cards("quick")
    status, said, _ = run("--cards", "quick", "--runs", "500", "--seconds", "0", "--json")
    assert status == 0
    assert [one["runs"] for one in json.loads(said)["measured"]] == [1, 1]


@pytest.mark.parametrize(
    "words",
    [("--runs", "0"), ("--runs", "x"), ("--seconds", "-1"), ("--seconds", "nan"), ("--device", "gpu")],
    ids=" ".join,
)
def test_a_senseless_number_or_device_is_wrong_usage(run, words):
    with pytest.raises(SystemExit) as left:
        run(*words)
    assert left.value.code == 64


def test_a_card_nobody_knows_is_a_configuration_error(run):
    status, _, said = run("--cards", "nobody")
    assert status == 78
    assert "no model card 'nobody'" in said


def test_a_photo_of_one_s_own_is_taken_and_a_bad_one_refused(run, cards, tmp_path):
    cards("quick")
    photo = tmp_path / "own.jpg"
    photo.write_bytes(jpeg(1))
    assert run("--cards", "quick", "--photo", str(photo))[0] == 0
    photo.write_bytes(b"a letter")
    for name in ("own.jpg", "nowhere.jpg"):
        status, said, complaint = run("--cards", "quick", "--photo", str(tmp_path / name))
        assert (status, said) == (65, "")
        assert name in complaint


# --- MODNet --------------------------------------------------------------------------------


@pytest.fixture
def modnet(real_part):
    """The folder of its real weights."""
    cache = weights.cache_folder(None)
    state = weights.state(load_card("modnet", card_folders(None)), cache)
    real_part("MODNet's weights", state is weights.State.OK, "run `hotmatte models pull modnet`")
    return cache


def test_modnet_is_measured_on_the_cpu_and_the_gpu_is_accounted_for(modnet, tmp_path, capfd):
    config = tmp_path / "config.yaml"
    folders = {"in": {"path": "hot", "output": "mattes"}}
    config.write_text(yaml.safe_dump({"folders": folders, "models": {"cache": str(modnet)}}))
    words = ["--cards", "modnet", "--runs", "1", "--seconds", "1", "--json"]
    assert cli.main(["bench", "--config", str(config), *words]) == 0
    facts = json.loads(capfd.readouterr().out)
    on_cpu = [one for one in facts["measured"] if one["device"] == "cpu"]
    assert [one["proxy"] for one in on_cpu] == [[896, 512], [512, 672]]
    assert all(one["framework"].startswith("mnn ") for one in on_cpu)
    # One graph in memory, at the very least.
    assert all(one["host_mb"] > 26 for one in on_cpu)
    with_gpu = [one for one in facts["measured"] if one["device"].startswith("cuda")]
    without = [one for one in facts["missing"] if one["device"] == "cuda"]
    assert bool(with_gpu) != bool(without)
    if not graphics_cards():
        assert without[0]["reason"] == "no NVIDIA GPU was found"


# --- BSHM ----------------------------------------------------------------------------------


@pytest.mark.bshm
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_of_bshm_is_measured(runtime, tmp_path):
    card, path = card_and_weights(runtime)
    source = FileSource(kind="file", path=path)
    known = {"sha256": weights.sha256_of(path), "size": path.stat().st_size}
    card = card.model_copy(update={"weights": Weights(file=path.name, sources=(source,), **known)})
    photo = tmp_path / "photo.jpg"
    Image.fromarray(bench_photos.portrait(320, 240)).save(photo)
    (found,) = measure(card, "cpu", [photo], cache=tmp_path, effort=Effort(runs=1, seconds=0), gpus=())
    assert isinstance(found, Measured), found
    assert found.framework.startswith("onnxruntime " if runtime == "bshm-onnx" else "tensorflow ")
    assert (found.device, found.photo, found.proxy) == ("cpu", (320, 240), (320, 240))


# --- Parts ---------------------------------------------------------------------------------


def test_engines_that_know_gpus_are_measured_on_both():
    known = card_folders(CARDS)
    assert devices_of(load_card("modnet", known), None) == ("cpu", "cuda")
    assert devices_of(load_card("bshm", known), None) == ("cpu", "cuda")
    assert devices_of(load_card("fake", known), None) == ("auto",)
    assert devices_of(load_card("modnet", known), "cuda:1") == ("cuda:1",)


def test_the_percentile_is_the_nearest_rank():
    assert percentile(range(20, 0, -1), 0.95) == 19
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([2.0, 1.0], 0.95) == 2.0


def test_the_drawn_portrait_is_the_same_each_time_and_has_a_person_in_it():
    one = bench_photos.portrait(240, 320)
    assert one.shape == (320, 240, 3)
    assert np.array_equal(one, bench_photos.portrait(240, 320))
    face, wall = one[140:150, 115:125].mean(axis=(0, 1)), one[20:30, 5:15].mean(axis=(0, 1))
    assert face[0] > face[2] + 30 and wall[2] > wall[0]


def test_a_photo_is_cropped_in_the_middle_not_squeezed(tmp_path):
    stripes = np.zeros((300, 900, 3), np.uint8)
    stripes[:, 300:600] = 255
    own = tmp_path / "wide.png"
    Image.fromarray(stripes).save(own)
    for path, size in zip(bench_photos.prepared(tmp_path, own), bench_photos.SIZES, strict=True):
        with Image.open(path) as image:
            assert image.size == size
            middle = np.asarray(image)[:, size[0] // 2]
        assert middle.min() > 240
    with Image.open(tmp_path / "1200x1600.jpg") as image:
        assert np.asarray(image).min() > 240, "the black at both sides is cut off"


# An `nvidia-smi` that tells of two processes and two GPUs, as the driver writes it.
TOOL = """#!/bin/sh
case "$1" in
    --query-compute-apps=*) printf '17, 2840\\n17, 10\\n18, [N/A]\\n' ;;
    --query-gpu=*) printf '0, 3000\\n1, 5\\n' ;;
esac
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")


MIB = 1024 * 1024 / 1e6


@pytest.mark.usefixtures("driver")
def test_gpu_memory_is_the_worker_s_own_where_the_driver_knows_it():
    assert bench_memory.gpu_mb_of(17) == pytest.approx(2850 * MIB)
    assert bench_engines._on_gpu(17, before=None) == (pytest.approx(2850 * MIB), False)


@pytest.mark.usefixtures("driver")
def test_otherwise_it_is_the_rise_in_all_and_marked():
    assert bench_memory.gpu_mb_of(18) is None, "the driver cannot look into it"
    assert bench_memory.gpu_mb_of(19) is None, "the driver does not know it"
    assert bench_engines._on_gpu(19, before=1000.0) == (pytest.approx(3005 * MIB - 1000), True)
    assert bench_engines._on_gpu(19, before=None) == (None, False)


def test_without_a_driver_nothing_is_said_of_gpu_memory(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bench_memory.gpu_mb_of(17) is None
    assert bench_memory.gpu_mb_in_use() is None


def test_shared_gpu_memory_is_marked_and_explained():
    one = Measured(
        "modnet", "onnxruntime 1", "cuda:0", (1920, 1080), (896, 512), 20, 1, 2, 3, 4, 500.4, 812.6, True
    )
    table = bench.words([one], [])
    assert cells(table, "modnet")[0][-2:] == ["500", "813*"]
    assert bench.SHARED in table
    assert bench.SHARED not in bench.words([], [])


# Takes 64 MB and gives them back before it says so.
GLUTTON = "held = bytearray(b'x') * 64_000_000; del held; print(flush=True); input()"


def test_the_peak_is_remembered_after_the_memory_was_given_back():
    command = [sys.executable, "-c", GLUTTON]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        peak = bench_memory.host_peak_mb(child.pid)
        now = psutil.Process(child.pid).memory_info().rss / 1e6
        child.communicate(b"\n")
    assert peak > 64
    assert now < peak - 60
