"""One suite over every engine: whatever framework is inside, a batch of proxies becomes alphas."""

from __future__ import annotations

import functools
import os
import shlex
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bshm.runtimes import GRAPH, RUNTIMES, card_and_weights

from watcher.engine import choice, weights
from watcher.engine.card import card_folders, load_card, proxy_size
from watcher.engine.client import EngineClient
from watcher.engine.launch import prepare
from watcher.errors import EngineOutOfMemory, EngineUnavailable

FOLDERS = [*card_folders(None), Path(__file__).parents[1] / "cards"]
# By the engine that their cards name for a GPU.
BY_ONNX_RUNTIME = {"modnet-ort": "modnet", "u2netp-ort": "u2netp"}
# The environments of BSHM's runtimes are made by the first test that wants one.
MODELS = (
    "fake",
    "u2netp",
    "modnet",
    "modnet-ort",
    "modnet-openvino",
    *(pytest.param(runtime, marks=[pytest.mark.bshm, pytest.mark.timeout(900)]) for runtime in RUNTIMES),
)


@functools.cache
def sought(card_name):
    """The weights or why there are none; asked once, for a network that is not there takes its time."""
    try:
        return weights.ensure(load_card(card_name, FOLDERS), weights.cache_folder(None))
    except EngineUnavailable as error:
        return error


def at_hand(card):
    """The weights, from the user's cache or the network; CI may not do without."""
    found = sought(card.name)
    if isinstance(found, EngineUnavailable):
        if os.environ.get("CI") == "true":
            raise found
        pytest.skip(str(found))
    return found


def ready(name):
    """The card and its weights; for BSHM the signature graph, whose weights are nobody's secret."""
    if name in RUNTIMES:
        return card_and_weights(name)
    card = load_card(BY_ONNX_RUNTIME.get(name, name), FOLDERS)
    if name in BY_ONNX_RUNTIME:
        card = card.model_copy(update={"engine_cpu": None})
    return card, at_hand(card)


def booted(name, *, python=None, device="cpu", **options):
    card, graph = ready(name)
    launch = prepare(card, graph, device=device, threads=1)
    client = EngineClient(
        python or launch.python, launch.engine_file, arena_bytes=max(launch.arena_bytes, 1 << 28)
    )
    try:
        hello = dict(launch.hello, options={**launch.hello["options"], **options})
        return card, client, client.boot(hello, timeout=120)
    except BaseException:
        client.close()
        raise


class Bench:
    """One engine for all its tests: booting dominates otherwise."""

    def __init__(self, name):
        self.name = name
        self.card, self.client, self.about = booted(name)

    def proxy(self, width, height, paint):
        wide, high = proxy_size(width, height, self.card)
        return paint(high, wide)

    def infer(self, *proxies):
        return self.client.infer(list(proxies), timeout=60)


@pytest.fixture(scope="module", params=MODELS)
def bench(request):
    bench = Bench(request.param)
    yield bench
    bench.client.close()


def flat(value):
    return lambda high, wide: np.full((high, wide, 3), value, np.uint8)


def noise(high, wide):
    return np.random.default_rng(5).integers(0, 256, (high, wide, 3), np.uint8)


def drawing(high, wide):
    """A head, a body and a sky, in colours whose channels differ."""
    y, x = np.mgrid[:high, :wide] * 512 / np.array([high, wide]).reshape(2, 1, 1)
    picture = np.full((high, wide, 3), (90, 130, 180), np.uint8)
    picture[((x - 256) / 170) ** 2 + ((y - 520) / 220) ** 2 < 1] = (40, 40, 60)
    picture[((x - 256) / 75) ** 2 + ((y - 200) / 100) ** 2 < 1] = (224, 172, 140)
    return picture


def assert_is_alpha(alpha, proxy):
    assert alpha.shape == proxy.shape[:2]
    assert alpha.dtype == np.float32
    assert np.isfinite(alpha).all()
    assert alpha.min() >= 0.0
    assert alpha.max() <= 1.0


def test_any_photo_becomes_an_alpha_of_its_proxys_size(bench):
    for width, height in ((1, 1), (641, 479), (1080, 1920), (3, 9000), (9000, 3)):
        proxy = bench.proxy(width, height, noise)
        assert_is_alpha(bench.infer(proxy)[0], proxy)


def test_nobody_in_the_picture_is_no_reason_to_fail(bench):
    for paint in (flat(0), flat(255), flat(128), noise):
        proxy = bench.proxy(400, 300, paint)
        assert_is_alpha(bench.infer(proxy)[0], proxy)


def test_a_batch_gives_what_its_members_give_alone(bench):
    proxies = [bench.proxy(512, 512, paint) for paint in (noise, flat(200), flat(3))]
    proxies.insert(1, bench.proxy(768, 512, noise))
    together = bench.infer(*proxies)
    alone = [bench.infer(proxy)[0] for proxy in proxies]
    for one, other in zip(together, alone, strict=True):
        assert np.allclose(one, other, atol=2e-5)


def test_the_same_input_gives_the_same_bytes(bench):
    proxy = bench.proxy(700, 500, noise)
    assert bench.infer(proxy)[0].tobytes() == bench.infer(proxy)[0].tobytes()


@pytest.mark.parametrize("model", ["modnet-ort", "modnet-openvino"])
def test_one_thread_beside_others_gives_what_all_cores_give(model):
    card, graph = ready(model)
    launch = prepare(card, graph, device="cpu", threads=2)
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes)
    try:
        client.boot(launch.hello, timeout=120)
        shown = [drawing(512, 512), noise(384, 512)]
        for proxy in shown:
            wide, narrow, again = (client.infer([proxy], timeout=60, threads=n)[0] for n in (0, 1, 0))
            assert_is_alpha(narrow, proxy)
            # Sums in another order: OpenVINO splits them otherwise for each number of threads.
            assert np.allclose(wide, narrow, atol=5e-4 if card.engine == "openvino" else 2e-5)
            assert wide.tobytes() == again.tobytes()
    finally:
        client.close()


def test_what_resizes_by_the_plain_rule_says_the_same_as_what_resizes_by_pytorchs():
    shown = [drawing(320, 320), noise(320, 320)]
    said = []
    for plain in (False, True):
        _, client, _ = booted("u2netp-ort", half_pixel=plain)
        try:
            said.append([client.infer([proxy], timeout=60)[0] for proxy in shown])
        finally:
            client.close()
    for one, other in zip(*said, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_bfloat16_is_near_single_precision_and_is_not_claimed_where_the_cpu_has_none():
    card, graph = ready("modnet-bf16")
    launch, proxy, said = prepare(card, graph, device="cpu", threads=1), drawing(512, 512), []
    # OpenVINO's own switch: with it this CPU is an older one.
    for env in ({}, {"OV_CPU_MAX_ISA": "AVX2"}):
        client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes, env=env)
        try:
            about = client.boot(launch.hello, timeout=120)
            said.append((about["framework"].endswith(" bf16"), client.infer([proxy], timeout=60)[0]))
        finally:
            client.close()
    (native, near), (older, single) = said
    assert not older
    assert np.abs(near - single).mean() < 0.01
    assert native == (np.abs(near - single).max() > 2e-3)


def test_an_engine_says_who_it_is(bench):
    assert bench.about["engine"] == bench.card.engine_on("cpu", gpu=False)
    assert bench.about["device"] == "cpu"
    assert bench.about["framework"].split()[1][0].isdigit()


@pytest.mark.parametrize("model", MODELS)
def test_asked_for_a_gpu_that_is_not_there_an_engine_fails(model):
    with pytest.raises(EngineUnavailable, match="GPU"):
        booted(model, device="cuda")


@pytest.mark.parametrize("model", MODELS[1:])
def test_auto_falls_back_and_says_so(model, caplog):
    caplog.set_level("DEBUG", "hotmatte.engine")
    _, client, about = booted(model, device="auto")
    client.close()
    assert about["device"] == "cpu"
    assert "no usable GPU" in caplog.text


@pytest.mark.parametrize("model", ["modnet", "modnet-ort", "u2netp", "u2netp-ort", "modnet-openvino"])
def test_nobody_is_not_stretched_into_somebody(model):
    bench = Bench(model)
    try:
        for value in (0, 128, 255):
            assert bench.infer(bench.proxy(512, 512, flat(value)))[0].mean() < 0.5
    finally:
        bench.client.close()


@pytest.mark.parametrize("model", ["modnet", "modnet-ort", "u2netp", "u2netp-ort", "modnet-openvino"])
def test_the_graph_sees_what_its_card_says(model):
    """The reference straight from the card: RGB / 255, minus mean, through std, planes first."""
    bench = Bench(model)
    proxy = bench.proxy(512, 512, drawing)
    try:
        alpha = bench.infer(proxy)[0]
    finally:
        bench.client.close()
    mean, std = np.array(bench.card.input.mean), np.array(bench.card.input.std)
    planes = ((proxy / 255.0 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(at_hand(bench.card), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: planes})[0][0, 0]
    assert expected.std() > 0.001
    # Another runtime rounds elsewhere: an eighth of a level of 255.
    assert np.allclose(alpha, expected.clip(0, 1), atol=1e-4 if bench.about["engine"] == "onnx" else 5e-4)


def test_modnet_finds_a_person_in_a_drawing_of_one():
    """Coarse on purpose: quality is measured elsewhere, with photos."""
    bench = Bench("modnet")
    try:
        alpha = bench.infer(drawing(512, 512))[0]
    finally:
        bench.client.close()
    assert alpha[150:250, 220:290].mean() > 0.9
    assert alpha[:60].mean() < 0.1


def test_logits_get_their_sigmoid():
    # The sigmoid of an alpha in 0..1 lies in 0.5..0.74: that is how we see it applied.
    card, client, _ = booted("u2netp", output="logits")
    try:
        alpha = client.infer([noise(*card.input.size)], timeout=60)[0]
    finally:
        client.close()
    assert 0.5 <= alpha.min() <= alpha.max() <= 0.7311


BSHM_BY_TENSORFLOW = [one for one in MODELS[5:] if one.values[0] != "bshm-onnx"]


@pytest.mark.parametrize("model", MODELS[2:])
def test_what_cannot_be_allocated_is_out_of_memory(model, tmp_path):
    """A real shortage: the worker lives in a small address space, the proxy is huge."""
    narrow, room = tmp_path / "python", {"bshm-tf1": 3_500_000, "bshm-tf2": 2_500_000}.get(model, 3_000_000)
    interpreter = shlex.quote(ready(model)[0].interpreter)
    # With its oneDNN kernels TensorFlow 2.21 does not report the shortage, it crashes.
    plain = "export TF_ENABLE_ONEDNN_OPTS=0"
    narrow.write_text(f'#!/bin/sh\n{plain}\nulimit -v {room}\nexec {interpreter} "$@"\n')
    narrow.chmod(0o755)
    _, client, _ = booted(model, python=str(narrow))
    try:
        with pytest.raises(EngineOutOfMemory, match=r"(?i)alloc"):
            client.infer([flat(9)(5500, 5500)], timeout=60)
        assert client.infer([flat(9)(64, 64)], timeout=60)
    finally:
        client.close()


def test_a_file_that_mnn_cannot_read_is_refused_with_its_own_words(tmp_path, caplog):
    caplog.set_level("DEBUG", "hotmatte.engine")
    card, wrong = load_card("modnet", FOLDERS), tmp_path / "modnet.onnx"
    wrong.write_bytes(b"this is no graph")
    launch = prepare(card, wrong, device="cpu")
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=1 << 22)
    try:
        with pytest.raises(EngineUnavailable, match=r"MNN cannot read the graph in .*modnet\.onnx"):
            client.boot(launch.hello, timeout=120)
    finally:
        client.close()
    assert "Invalid ONNX Model" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "nhwc"}, "only given batches of planes"),
        ({"input_name": "photo"}, "finds no photo and output"),
    ],
)
def test_what_mnn_is_not_given_here_is_refused_with_the_reason(options, words):
    with pytest.raises(EngineUnavailable, match=words):
        booted("modnet", **options)


def test_where_mnn_is_not_installed_onnx_runtime_computes_and_says_so(tmp_path, caplog):
    caplog.set_level("DEBUG", "hotmatte.engine")
    (tmp_path / "MNN.py").write_text("raise ImportError('there is none')")
    card, graph = ready("u2netp")
    launch = prepare(card, graph, device="auto")
    env = {"PYTHONPATH": str(tmp_path)}
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes, env=env)
    try:
        about = client.boot(launch.hello, timeout=120)
        assert about["framework"].startswith("onnxruntime ")
        assert_is_alpha(client.infer([drawing(320, 320)], timeout=60)[0], drawing(320, 320))
    finally:
        client.close()
    assert "without MNN this takes longer" in caplog.text
    assert "there is none" in caplog.text


def test_a_gpu_that_onnx_runtime_cannot_use_leaves_the_work_to_the_engine_for_cpus(monkeypatch):
    """What /dev says is no promise: the package may have been built without CUDA."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime can use it")
    monkeypatch.setattr(choice, "GPUS", (Path("/dev/null"),))
    card, graph = ready("u2netp")
    launch = prepare(card, graph, device="auto")
    assert launch.engine == "onnx"
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes)
    try:
        about = client.boot(launch.hello, timeout=120)
    finally:
        client.close()
    assert (about["engine"], about["device"]) == ("mnn", "cpu")


@pytest.mark.parametrize("model", BSHM_BY_TENSORFLOW)
def test_a_file_that_is_no_graph_of_bshm_is_refused_by_name(model, tmp_path):
    card, _ = ready(model)
    for content in (
        b"",
        b"this is no protocol buffer at all",
        GRAPH.read_bytes().replace(b"output_png", b"output_jpg"),
    ):
        wrong = tmp_path / "tf_graph.pb"
        wrong.write_bytes(content)
        launch = prepare(card, wrong, device="cpu")
        client = EngineClient(launch.python, launch.engine_file, arena_bytes=1 << 22)
        try:
            with pytest.raises(
                EngineUnavailable, match=r"tf_graph\.pb is no frozen graph from input_image:0"
            ):
                client.boot(launch.hello, timeout=120)
        finally:
            client.close()


@pytest.mark.bshm
@pytest.mark.timeout(900)
def test_bshm_calls_254_opaque_and_the_picture_reaches_the_graph_as_it_is():
    """The reference straight from ONNX Runtime: RGB as float32, alpha from the fourth channel."""
    bench = Bench("bshm-onnx")
    proxy = bench.proxy(640, 480, drawing)
    try:
        alpha = bench.infer(proxy)[0]
    finally:
        bench.client.close()
    session = onnxruntime.InferenceSession(ready("bshm-onnx")[1], providers=["CPUExecutionProvider"])
    (png,) = session.run(None, {"input_image:0": proxy.astype(np.float32)})
    assert png.dtype == np.uint8
    assert np.abs(png[..., :3].astype(int) - proxy).max() <= 1
    assert {0, 254} <= set(png[..., 3].ravel().tolist())
    assert 255 not in png[..., 3]
    assert np.allclose(alpha, png[..., 3] / 254, atol=1e-6)
    assert alpha.max() == 1.0


@pytest.mark.bshm
@pytest.mark.timeout(900)
def test_tensorrt_that_is_not_there_is_missed_on_a_gpu_only():
    _, client, about = booted("bshm-onnx", device="cpu", tensorrt=True)
    client.close()
    assert about["device"] == "cpu"
    with pytest.raises(EngineUnavailable, match="GPU"):
        booted("bshm-onnx", device="cuda", tensorrt=True)


def test_the_fake_engine_takes_as_long_as_it_is_told():
    _, client, _ = booted("fake", latency_s=0.2)
    try:
        began = time.monotonic()
        client.infer([flat(1)(8, 8)], timeout=10)
        assert time.monotonic() - began >= 0.2
    finally:
        client.close()


@pytest.mark.parametrize("model", MODELS)
def test_no_engine_leaves_a_trace_in_the_users_folders(model, monkeypatch, tmp_path):
    """ONNX Runtime's telemetry keeps a device id there, and reports home, unless it is told not to."""
    ready(model)  # fetched before home is another one
    cached = weights.cache_folder(None)
    monkeypatch.setattr(weights, "cache_folder", lambda _: cached)
    for name in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"):  # each would hide it
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    _, client, _ = booted(model)
    client.close()
    # TensorFlow brings Keras, which writes down its defaults: no device, no use.
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found - {".keras", ".keras/keras.json"} == set()
