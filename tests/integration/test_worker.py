"""The real worker process, under each interpreter it must run on."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from watcher.engine.card import card_folders, load_card
from watcher.engine.client import ISLAND, EngineClient
from watcher.engine.crew import ENOUGH, IDLE_S, SPARE_MB, Crew, Growth, has_room, most_on_cpu
from watcher.engine.launch import Launch
from watcher.engine.supervisor import Supervisor, pause_before_boot
from watcher.errors import (
    EngineCrashed,
    EngineOutOfMemory,
    EngineTimeout,
    EngineUnavailable,
    InputRejected,
)

HELLO = {"model": "", "device": "cpu", "options": {}, "warmup": [4, 6]}
MOODY = Path(__file__).parents[1] / "engines" / "moody.py"
TELLING = MOODY.with_name("telling.py")
ROOT = Path(__file__).parents[2]
FAKE = ISLAND / "engine_fake.py"
CRASH, HANG, OOM, REJECT, BUG, CHATTER = 1, 2, 3, 4, 5, 6
NAN, SHAPE, FEWER, EXIT, RANGE, GARBAGE, HALF, PROMISE, SPAWN = 7, 8, 9, 10, 11, 12, 13, 14, 15
CALM = 51


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


def proxy(mood=CALM, height=5, width=7):
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[0, 0, 0] = mood
    return pixels


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


def test_the_island_is_python_3_7():
    files = [*ISLAND.glob("*.py"), *(ROOT / "tests" / "engines").glob("*.py")]
    assert len(files) >= 5
    for path in files:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 7))


# --- Supervisor ----------------------------------------------------------------------------


def launch(model="", **changes):
    fields = {
        "model": "moody",
        "engine": "moody",
        "engine_file": MOODY,
        "python": sys.executable,
        "hello": dict(HELLO, model=model),
        "arena_bytes": 1 << 20,
        "boot_timeout": 20.0,
        "weights_sha256": None,
    }
    return Launch(**(fields | changes))


@pytest.fixture
def supervise():
    made = []

    def open_(model="", pause=lambda strikes: 0.0, **changes):
        supervisor = Supervisor(launch(model, **changes), pause=pause)
        made.append(supervisor)
        return supervisor

    yield open_
    for supervisor in made:
        supervisor.close()


@pytest.mark.parametrize(
    ("mood", "error"), [(CRASH, EngineCrashed), (HANG, EngineTimeout), (BUG, EngineCrashed)]
)
def test_a_lost_worker_is_replaced_on_the_next_call(supervise, mood, error):
    supervisor = supervise()
    assert supervisor.about is None
    with pytest.raises(error):
        supervisor.infer([proxy(mood)], timeout=0.5)
    assert supervisor.infer([proxy()], timeout=10)
    assert supervisor.restarts == 1
    assert supervisor.about.device == "cpu"


@pytest.mark.parametrize(("mood", "error"), [(OOM, EngineOutOfMemory), (REJECT, InputRejected)])
def test_a_polite_failure_costs_no_worker(supervise, mood, error):
    supervisor = supervise()
    with pytest.raises(error):
        supervisor.infer([proxy(mood)], timeout=10)
    assert supervisor.infer([proxy()], timeout=10)
    assert supervisor.restarts == 0


def test_a_worker_that_died_while_idle_costs_no_file_an_attempt(supervise, eventually):
    supervisor = supervise()
    supervisor.start()
    supervisor._client.kill()
    eventually(lambda: not supervisor._client.alive)
    assert supervisor.infer([proxy()], timeout=10)
    assert supervisor.restarts == 1


def test_three_failed_boots_in_a_row_are_the_end(supervise, tmp_path):
    boots = tmp_path / "boots"
    (tmp_path / "boots.broken").touch()
    supervisor = supervise(f"counted:{boots}")
    for count in (1, 2, 3):
        assert not supervisor.fatal
        with pytest.raises(EngineUnavailable, match="driver broken"):
            supervisor.infer([proxy()], timeout=10)
        assert supervisor.failed_boots == count
    assert supervisor.fatal
    with pytest.raises(EngineUnavailable, match="driver broken"):
        supervisor.start()
    assert boots.read_bytes() == b"..."


def test_a_boot_that_succeeds_forgives_those_that_failed(supervise, tmp_path):
    broken = tmp_path / "boots.broken"
    broken.touch()
    supervisor = supervise(f"counted:{tmp_path / 'boots'}")
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            supervisor.start()
    broken.unlink()
    supervisor.start()
    assert supervisor.failed_boots == 0
    assert supervisor.restarts == 0


def test_close_cuts_a_boot_short(supervise, eventually):
    supervisor = supervise("slow", boot_timeout=3600.0)
    errors = []

    def boot():
        try:
            supervisor.start()
        except EngineUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=boot)
    thread.start()
    eventually(lambda: supervisor._client is not None)
    began = time.monotonic()
    supervisor.close()
    thread.join(10)
    assert time.monotonic() - began < 3
    assert "shut down" in str(errors[0])
    assert supervisor.failed_boots == 0


def test_close_cuts_the_wait_before_a_boot_short(supervise, eventually):
    supervisor = supervise(pause=lambda strikes: 3600.0)
    with pytest.raises(EngineCrashed):
        supervisor.infer([proxy(CRASH)], timeout=10)

    def wait_for_boot():
        with pytest.raises(EngineUnavailable, match="shut down"):
            supervisor.start()

    thread = threading.Thread(target=wait_for_boot)
    thread.start()
    eventually(supervisor._turn.locked)
    supervisor.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_closed_supervisor_boots_no_more(supervise):
    supervisor = supervise()
    supervisor.start()
    supervisor.close()
    with pytest.raises(EngineUnavailable, match="shut down"):
        supervisor.infer([proxy()], timeout=10)


def test_the_first_replacement_comes_at_once_and_later_ones_wait_longer_but_not_for_ever():
    pauses = [pause_before_boot(strikes) for strikes in range(40)]
    assert pauses[:5] == [0, 0, 0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0


# --- Crew ----------------------------------------------------------------------------------


@pytest.fixture
def crew():
    crew = Crew(launch(), wanted=lambda about: 2 if about.device == "cpu" else 1)
    yield crew
    crew.close()


@pytest.fixture
def growing():
    """A crew on a CPU that begins with one and may become two; the further ones are started by `changes`."""
    made = []

    def open_(*, room=lambda: True, after=0.0, patience=0.0, **changes):
        crew = Crew(launch(), growth=Growth(launch(**changes), 2, room, after=after, patience=patience))
        made.append(crew)
        crew.start()
        return crew

    yield open_
    for crew in made:
        crew.close()


@pytest.fixture
def telling(tmp_path):
    """A crew whose answers are the number of threads that it was told to use; red 200 waits until red 201 comes."""
    told = launch(str(tmp_path / "meeting"), engine_file=TELLING)
    crew = Crew(told, growth=Growth(told, 2, after=0.0, patience=0.0))
    yield crew
    crew.close()


def test_one_of_a_crew_may_hang_while_the_other_works(crew):
    crew.start()
    assert crew.size == 2
    with ThreadPoolExecutor(1) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=3.0)
        for _ in range(5):
            assert crew.infer([proxy()], timeout=10)
        assert not hung.done()
        assert isinstance(hung.exception(), EngineTimeout)
    for _ in range(2):
        assert crew.infer([proxy()], timeout=10)
    assert crew.restarts == 1


def test_a_crew_is_as_large_as_the_first_of_it_says(crew):
    assert crew.size == 1
    assert crew.start() == crew.about
    assert crew.start() == crew.about
    assert crew.size == 2
    assert not crew.fatal


def test_a_crew_that_cannot_boot_gives_up_as_one(tmp_path):
    crew = Crew(launch(engine_file=tmp_path / "gone.py"))
    for _ in range(3):
        assert not crew.fatal
        with pytest.raises(EngineUnavailable):
            crew.start()
    assert crew.fatal
    crew.close()


# --- A crew that grows ---------------------------------------------------------------------


def test_a_crew_on_a_cpu_begins_with_one_and_one_photo_after_the_other_is_no_reason_for_more(growing):
    crew = growing()
    for _ in range(3):
        assert crew.infer([proxy()], timeout=10)
    assert (crew.size, crew.most) == (1, 2)


def test_two_photos_together_are_no_reason_for_more_either(growing):
    crew = growing(after=3600.0)
    with ThreadPoolExecutor(2) as aside:
        for done in [aside.submit(crew.infer, [proxy()], timeout=10) for _ in range(8)]:
            assert done.result(30)
    assert crew.size == 1
    assert crew._booting is None


def test_a_few_photos_are_not_worth_a_further_worker_and_many_are(growing, eventually):
    crew = growing(patience=3600.0)
    backlog = [ENOUGH - 1, ENOUGH]
    crew.heed(lambda: backlog.pop(0) if len(backlog) > 1 else backlog[0])
    with ThreadPoolExecutor(2) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
        eventually(lambda: crew._busy)
        assert crew.infer([proxy()], timeout=10)  # by the second, booted when it was asked again
        assert (crew.size, backlog) == (2, [ENOUGH])
        crew._members[0].close()
        assert isinstance(hung.exception(30), EngineCrashed | EngineUnavailable)


def test_a_journal_that_does_not_say_what_waits_holds_up_no_photo(growing, eventually):
    crew = growing(patience=3600.0)
    asked, goes_on = threading.Event(), threading.Event()

    def stalled():
        asked.set()
        goes_on.wait(60)
        return 0

    crew.heed(stalled)
    with ThreadPoolExecutor(2) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
        eventually(lambda: crew._busy)
        waits = aside.submit(crew.infer, [proxy()], timeout=10)
        assert asked.wait(30)
        crew._members[0]._client.kill()
        assert isinstance(hung.exception(30), EngineCrashed)
        assert waits.result(30)
        assert not goes_on.is_set()
        goes_on.set()
    eventually(lambda: crew._booting is None)
    assert crew.size == 1


def test_work_that_waits_gets_a_worker_more_whose_death_is_its_own(growing, eventually):
    crew = growing(hello=dict(HELLO, warmup=None))
    with ThreadPoolExecutor(2) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
        eventually(lambda: crew._busy)
        # Waits until there is a second one: the first says nothing.
        assert crew.infer([proxy()], timeout=10)
        assert crew.size == 2
        with pytest.raises(EngineCrashed):
            crew.infer([proxy(CRASH)], timeout=10)
        assert crew.infer([proxy()], timeout=10)
        assert not hung.done()
        crew._members[0].close()
        assert isinstance(hung.exception(30), EngineCrashed | EngineUnavailable)
    assert crew.restarts >= 1


@pytest.mark.parametrize("why", ["no room", "cannot boot"])
def test_a_crew_that_cannot_grow_goes_on_as_it_is(growing, eventually, why):
    asked = threading.Event()

    def room():
        asked.set()
        return why != "no room"

    crew = growing(room=room, hello=dict(HELLO, model="exit"))
    with ThreadPoolExecutor(2) as aside:
        hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
        eventually(lambda: crew._busy)
        waits = aside.submit(crew.infer, [proxy()], timeout=10)
        assert asked.wait(30)
        eventually(lambda: crew._booting is None)
        crew._members[0]._client.kill()
        assert isinstance(hung.exception(30), EngineCrashed)
        assert waits.result(30)
    assert crew.size == 1
    assert not crew.fatal
    assert crew.infer([proxy()], timeout=10)


def test_a_worker_that_nobody_needs_any_more_gives_its_memory_back_and_comes_again(growing, eventually):
    crew = growing()

    def grow():
        with ThreadPoolExecutor(1) as aside:
            hung = aside.submit(crew.infer, [proxy(HANG)], timeout=60.0)
            eventually(lambda: crew._busy)
            assert crew.infer([proxy()], timeout=10)
            crew._members[0]._client.kill()
            assert isinstance(hung.exception(30), EngineCrashed)

    grow()
    child = crew._members[1]._client._child
    crew.rest(now=crew._needed + IDLE_S - 1)
    assert crew.size == 2
    crew.rest(now=crew._needed + IDLE_S + 1)
    assert crew.size == 1
    assert not child.alive
    assert crew.infer([proxy()], timeout=10)
    grow()
    assert crew.size == 2


def test_a_lone_request_has_every_core_and_requests_side_by_side_share_them(telling, eventually, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    telling.start()

    def threads(mood=CALM):
        return round(telling.infer([proxy(mood)], timeout=60)[0][0, 0] * 100)

    assert threads() == 0
    with ThreadPoolExecutor(1) as aside:
        long = aside.submit(threads, 200)
        eventually(lambda: telling._busy)
        assert threads() == 3
        assert telling.size == 2
        assert not long.done()
        assert threads(201) == 3
        assert long.result(60) == 0
    assert threads() == 0


def test_a_card_says_how_many_share_a_cpu_or_what_one_takes():
    modnet = load_card("modnet", card_folders(None))
    assert [most_on_cpu(modnet, cores) for cores in (1, 2, 4, 64)] == [1, 2, 4, 4]
    assert most_on_cpu(modnet.model_copy(update={"workers_cpu": 8}), 2) == 8
    assert most_on_cpu(modnet.model_copy(update={"memory_mb": None}), 64) == 1
    enough = modnet.memory_mb + SPARE_MB
    assert has_room(modnet, available=lambda: enough)
    assert not has_room(modnet, available=lambda: enough - 1)
    # Where nobody says what is free, and where the operator has chosen.
    assert has_room(modnet, available=lambda: None)
    assert has_room(modnet.model_copy(update={"workers_cpu": 2}), available=lambda: 0.0)
