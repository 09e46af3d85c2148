"""The real worker process, under each interpreter it must run on."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from daemonrig import MOODY
from moodrig import CALM, HELLO, proxy
from moody import (
    BUG,
    CHATTER,
    CRASH,
    EXIT,
    FEWER,
    GARBAGE,
    HALF,
    HANG,
    NAN,
    OOM,
    PROMISE,
    RANGE,
    REJECT,
    SHAPE,
    SPAWN,
)

from watcher.engine.client import ISLAND, EngineClient
from watcher.errors import (
    EngineCrashed,
    EngineOutOfMemory,
    EngineTimeout,
    EngineUnavailable,
    InputRejected,
)

ROOT = Path(__file__).parents[2]
FAKE = ISLAND / "engine_fake.py"


@pytest.fixture(scope="session")
def py37(tmp_path_factory):
    """A Python 3.7 with numpy: the one PY37 names, or one made from pyenv's."""
    named = os.environ.get("PY37")
    if named:
        return named
    homes = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    found = sorted(python for home in homes for python in home.glob("3.7.*/bin/python"))
    missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    if not found:
        missing("no Python 3.7 here: set PY37 to one with numpy")
    place = tmp_path_factory.mktemp("py37")
    python = place / "bin" / "python"
    made = subprocess.run([found[-1], "-m", "venv", place], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        made = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "numpy==1.18.5"],
            capture_output=True,
            text=True,
            check=False,
        )
    if made.returncode != 0:
        missing(f"no numpy for Python 3.7: {made.stderr.strip()[-300:]}")
    return str(python)


@pytest.fixture(params=["here", pytest.param("py37", marks=pytest.mark.py37)])
def python(request):
    return sys.executable if request.param == "here" else request.getfixturevalue("py37")


@pytest.fixture
def start(python):
    clients = []

    def open_(engine=MOODY, *, model="", boot=True, arena_bytes=1 << 24):
        client = EngineClient(python, engine, arena_bytes=arena_bytes)
        clients.append(client)
        if boot:
            client.boot(dict(HELLO, model=model), timeout=20)
        return client

    yield open_
    for client in clients:
        client.close()


def test_alpha_keeps_the_size_and_the_order_of_the_proxies(start):
    client = start(FAKE)
    proxies = [proxy(90, 5, 7), proxy(90, 1, 1), proxy(90, 640, 481), np.zeros((3, 3, 3), np.uint8)]
    alphas = client.infer(proxies, timeout=10)
    assert [alpha.shape for alpha in alphas] == [(5, 7), (1, 1), (640, 481), (3, 3)]
    for alpha, expected in zip(alphas, (90 / 255, 90 / 255, 90 / 255, 0), strict=True):
        assert alpha.dtype == np.float32
        assert np.allclose(alpha, expected)


def test_an_alpha_outlives_the_next_batch(start):
    client = start()
    first = client.infer([proxy()], timeout=10)[0]
    before = first.copy()
    client.infer([np.full((5, 7, 3), 200, np.uint8)], timeout=10)
    assert np.array_equal(first, before)


@pytest.mark.parametrize(
    ("mood", "error", "words"),
    [
        (CRASH, EngineCrashed, "SIGKILL"),
        (HANG, EngineTimeout, "within 0.5 s"),
        (OOM, EngineOutOfMemory, "memory"),
        (REJECT, InputRejected, "no person"),
        (BUG, EngineCrashed, "KeyError: 'oops'"),
        (NAN, EngineCrashed, "not finite"),
        (SHAPE, EngineCrashed, "alpha of shape"),
        (FEWER, EngineCrashed, "0 alphas for 1 images"),
        (EXIT, EngineCrashed, "status 3; its last words:\n(?s:.)*driver gone"),
        (GARBAGE, EngineCrashed, "garbage"),
        (HALF, EngineTimeout, "no answer to infer"),
        (PROMISE, EngineCrashed, "without a kind|not JSON"),
    ],
)
def test_each_misfortune_has_its_name(start, mood, error, words):
    client = start()
    with pytest.raises(error, match=words):
        client.infer([proxy(mood)], timeout=0.5 if error is EngineTimeout else 10)


@pytest.mark.parametrize("mood", [OOM, REJECT, BUG, NAN, SHAPE])
def test_the_worker_survives_a_polite_failure(start, mood):
    client = start()
    for _ in range(3):
        with pytest.raises((EngineOutOfMemory, InputRejected, EngineCrashed)):
            client.infer([proxy(mood)], timeout=10)
    assert client.infer([proxy()], timeout=10)[0][0, 0] == pytest.approx(0.2)


def test_alpha_out_of_range_is_clipped(start):
    alpha = start().infer([proxy(RANGE)], timeout=10)[0]
    assert alpha.min() >= 0.0
    assert alpha.max() == 1.0


def test_noise_on_stdout_is_not_a_message(start):
    assert start().infer([proxy(CHATTER)], timeout=10)


def test_a_dead_client_says_so_instead_of_writing_to_strangers(start):
    client = start()
    with pytest.raises(EngineCrashed):
        client.infer([proxy(CRASH)], timeout=10)
    with pytest.raises(EngineCrashed, match="the worker is gone"):
        client.infer([proxy()], timeout=10)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("missing", "FileNotFoundError: missing"),
        ("exit", "exited with status 7"),
        ("huge", "2 GB of weights"),
        ("cold", "kernel image is not for this card"),
    ],
)
def test_a_boot_that_fails_is_not_a_files_fault(start, model, words):
    client = start(boot=False)
    with pytest.raises(EngineUnavailable, match=words):
        client.boot(dict(HELLO, model=model), timeout=20)


def test_a_boot_that_takes_too_long_is_ended(start):
    client = start(boot=False)
    with pytest.raises(EngineUnavailable, match="no answer to hello"):
        client.boot(dict(HELLO, model="slow"), timeout=1.5)
    assert not client.alive


def test_an_engine_file_that_does_not_parse_is_named(start, tmp_path):
    (tmp_path / "broken.py").write_text("def load(:\n")
    client = start(tmp_path / "broken.py", boot=False)
    with pytest.raises(EngineUnavailable, match="SyntaxError"):
        client.boot(HELLO, timeout=20)


def test_a_missing_interpreter_is_the_cards_fault():
    with pytest.raises(EngineUnavailable, match="/no/such/python") as caught:
        EngineClient("/no/such/python", MOODY, arena_bytes=4096)
    assert "model card" in caught.value.remedy


def test_a_batch_larger_than_the_arena_is_too_big_not_a_bug(start):
    client = start(arena_bytes=1 << 16)
    with pytest.raises(EngineOutOfMemory):
        client.infer([proxy(CALM, 100, 100)] * 2, timeout=10)
    assert client.infer([proxy(CALM, 90, 90)], timeout=10)


@pytest.mark.parametrize(
    "item",
    [
        {"height": 10, "width": 10, "in": (1 << 24) - 10, "out": 0},
        {"height": 10, "width": 10, "in": -1, "out": 0},
        {"height": 10, "width": 10, "in": 0, "out": 1 << 40},
        {"height": 0, "width": 10, "in": 0, "out": 0},
        {"height": -5, "width": -5, "in": 0, "out": 0},
        {"height": "9", "width": 10, "in": 0, "out": 0},
        {"height": 9},
    ],
)
def test_the_worker_refuses_places_outside_the_arena(start, item):
    client = start()
    reply = client._ask("infer", {"items": [item]}, 10.0)
    assert (reply["kind"], reply["why"]) == ("failed", "bug")
    assert client.infer([proxy()], timeout=10)


def test_hanging_up_ends_the_worker_by_itself(start):
    client = start()
    worker = psutil.Process(client.pid)
    client._child._process.stdin.close()
    assert worker.wait(60) in (0, None)


def test_ctrl_c_does_not_reach_the_worker(start):
    client = start()
    os.kill(client.pid, signal.SIGINT)
    assert client.infer([proxy()], timeout=10)


def test_nothing_is_left_open(start):
    start().close()
    before = set(os.listdir("/proc/self/fd"))
    for mood in (CALM, EXIT, REJECT):
        client = start()
        try:
            client.infer([proxy(mood)], timeout=10)
        except (EngineCrashed, InputRejected):
            pass
        client.close()
        client.close()
    with pytest.raises(EngineUnavailable):
        EngineClient("/no/such/python", MOODY, arena_bytes=4096)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_grandchild_that_keeps_stderr_does_not_hold_us_up(start):
    client = start()
    with pytest.raises(EngineCrashed, match="status 4") as caught:
        client.infer([proxy(SPAWN)], timeout=10)
    client.close()
    orphan = int(str(caught.value).rpartition("orphan=")[2])
    os.kill(orphan, signal.SIGKILL)


PARENT = """
import sys, time
from pathlib import Path
import numpy as np
from watcher.engine.client import EngineClient
client = EngineClient(sys.argv[1], Path(sys.argv[2]), arena_bytes=1 << 16)
client.boot({"model": "", "device": "cpu", "options": {}, "warmup": [4, 4]}, timeout=20)
print(client.pid, flush=True)
if sys.argv[3] == "busy":
    client.infer([np.full((4, 4, 3), 2, np.uint8)], timeout=3600)
time.sleep(3600)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_the_death_of_the_daemon_ends_the_worker(python, state, eventually):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, python, str(MOODY), state], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running()
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    eventually(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, ["glibc.malloc.hugetlb=1"]),
        ("glibc.malloc.arena_max=2", ["glibc.malloc.arena_max=2", "glibc.malloc.hugetlb=1"]),
        ("glibc.malloc.hugetlb=0", ["glibc.malloc.hugetlb=0"]),
    ],
)
def test_the_worker_asks_for_huge_pages_unless_somebody_said_otherwise(start, monkeypatch, said, told):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if said is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", said)
    environment = Path(f"/proc/{start().pid}/environ").read_bytes().decode()
    # glibc may end each of them by a zero byte when it reads them.
    (found,) = re.findall(r"GLIBC_TUNABLES=((?:glibc\.[a-z._]+=\d[:\0])+)", environment)
    assert re.split("[:\0]", found)[:-1] == told


def test_the_island_is_python_3_7():
    files = [*ISLAND.glob("*.py"), *(ROOT / "tests" / "engines").glob("*.py")]
    assert len(files) >= 5
    for path in files:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 7))
