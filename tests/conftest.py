"""Shared fixtures. A test that leaks a thread or a child process fails."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import psutil
import pytest
from daemonrig import COMPILED, PATIENCE, DaemonRig
from rootless import permissions_count
from xdist.scheduler import LoadFileScheduling

# Every daemon of the tests has a cache of weights of its own, and would compile its loops there anew.
os.environ.setdefault("NUMBA_CACHE_DIR", str(COMPILED))
# How long an example takes says something of the machine, not of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Loops that are not there yet, or changed, are compiled before the first test, or several would do it at once."""
    if not hasattr(config, "workerinput") and not _are_compiled(Path(os.environ["NUMBA_CACHE_DIR"])):
        command = "from watcher.pipeline.finish import warm_up; warm_up()"
        subprocess.run([sys.executable, "-c", command], check=True, cwd=Path(__file__).parents[1])


def _are_compiled(cache: Path) -> bool:
    sources = (Path(__file__).parents[1] / "watcher" / "pipeline").rglob("*.py")
    made = [path.stat().st_mtime for path in cache.glob("*/kernels.whole.*")]
    return max(made, default=0) > max(path.stat().st_mtime for path in sources)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of the booted machine first: they wait more than any others, and others fill the time."""
    items.sort(key=lambda item: item.path.parent.name != "systemd")


class _Together(LoadFileScheduling):
    """A file stays in one process, and the folder of those that share a booted machine, too."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return file.rpartition("/")[0] if file.startswith("tests/systemd/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Together | None:
    return _Together(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def real_part() -> Callable[[str, object, str], None]:
    """`real_part(name, available, reason)`: go on only where a real part is there.

    Such as systemd, Samba or Python 3.7. On a laptop the test is skipped with the reason. In
    CI, which has to bring every part along, its absence is a failure: a test that never runs
    tests nothing.
    """

    def check(name: str, available: object, reason: str) -> None:
        if available:
            return
        if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
            pytest.fail(f"{name} is missing in CI: {reason}")
        pytest.skip(f"without {name}: {reason}")

    return check


@pytest.fixture
def eventually() -> Callable[..., object]:
    """Wait for a condition with a deadline, instead of sleeping and hoping."""

    def wait(condition: Callable[[], object], *, timeout: float = 10.0, every: float = 0.01) -> object:
        deadline = time.monotonic() + PATIENCE * timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout:g} s: {condition}")
            time.sleep(every)
        return value

    return wait


_DO_AS_OTHERS = {"test_backup", "test_bad_input", "test_same_photo_again", "test_web_restarts"}


@pytest.fixture(scope="module", autouse=True)
def _what_is_killed_is_not_counted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Coverage: who is killed cannot say which lines it ran, and counting takes a quarter of its time.

    Nor do daemons count that are started again and again to do what those of other files do.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name in ("faults", "soak") or request.path.stem in _DO_AS_OTHERS:
            for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
                patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    threads = set(threading.enumerate())
    children = {child.pid for child in psutil.Process().children()}
    yield
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        more_threads = [t.name for t in threading.enumerate() if t not in threads]
        # What a daemon that several tests share starts meanwhile is its own affair.
        more_children = [child for child in psutil.Process().children() if child.pid not in children]
        if not more_threads and not more_children:
            return
        time.sleep(0.02)
    pytest.fail(f"left running: threads {more_threads}, processes {more_children}")


@pytest.fixture(autouse=True)
def _loggers_as_new() -> None:
    """A command that ran in this very process has set them up for itself."""
    for name in ("hotmatte", "watcher"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., DaemonRig]]:
    """Makes rigs for real daemons under the test's folder; takes down whatever is left of them."""
    made: list[DaemonRig] = []

    def make(name: str = "rig", **settings: Any) -> DaemonRig:
        made.append(DaemonRig(tmp_path / name, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def photos() -> Path:
    """Photos that may be redistributed; see LICENCES.md beside them."""
    return Path(__file__).parent / "data"


@pytest.fixture
def permissions() -> Iterator[None]:
    """Permission bits hold in this test, although it may run as root."""
    with permissions_count():
        yield


def _load(name: str = "make") -> ModuleType:
    path = Path(__file__).parent / "data" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"hotmatte_test_pictures_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make() -> ModuleType:
    """tests/data/make.py"""
    return _load()


@pytest.fixture(scope="session")
def deep() -> ModuleType:
    """tests/data/make_deep.py"""
    return _load("make_deep")


@pytest.fixture(scope="session")
def variants(make: ModuleType) -> dict[str, bytes]:
    return make.variants()
