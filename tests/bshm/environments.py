"""Interpreters with real frameworks, made once and kept: TensorFlow 1.15.5, TensorFlow 2, the ModelScope SDK.

They lie under HOTMATTE_TEST_CACHE, or ~/.cache/hotmatte-tests (about 3.5 GB). Python 3.7 is the one that
HOTMATTE_PY37 names, or pyenv's. What cannot be had skips a test with the reason; in CI it is a failure.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from watcher.engine import converter
from watcher.errors import EngineUnavailable

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("HOTMATTE_TEST_CACHE") or Path.home() / ".cache" / "hotmatte-tests")
CONSTRAINTS = Path(__file__).with_name("py37-constraints.txt")
# The newest we know; the oldest is that of environment.yml.
SDK = "modelscope==1.40.2"


class Missing(Exception):
    """This environment cannot be made here."""


def demand(make: Callable[[], Path]) -> Path:
    """What `make` makes, or the end of the test: skipped on a laptop, failed in CI."""
    try:
        return make()
    except Missing as error:
        give_up(str(error))


def give_up(why: str) -> NoReturn:
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"missing in CI: {why}")
    pytest.skip(why)


def pins() -> dict[str, str]:
    """What environment.yml has pip install: name -> requirement."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (item["pip"] for item in listed if isinstance(item, dict))
    return {requirement.partition("==")[0]: requirement for requirement in pip}


@functools.cache
def tensorflow1() -> Path:
    """A real Python 3.7 with the pins of environment.yml, ModelScope 1.6.1 included.

    The constraints are what pip 24 made of these pins in four minutes; older ones seek for longer.
    systemd-python is left out: it is compiled, and only for services.
    """
    wanted = [requirement for name, requirement in pins().items() if name != "systemd-python"]
    return _environment("py37", _python37(), [*wanted, "--constraint", str(CONSTRAINTS)])


@functools.cache
def tensorflow2() -> Path:
    """The environment that `hotmatte models convert` makes, made by the same code."""
    try:
        return converter.interpreter(CACHE, converter.TENSORFLOW, say=print)
    except EngineUnavailable as error:
        raise Missing(str(error)) from error


@functools.cache
def modelscope() -> Path:
    """The newest SDK, with nothing else."""
    return _environment("hub", Path(sys.executable), [SDK])


def _python37() -> Path:
    named = os.environ.get("HOTMATTE_PY37") or os.environ.get("PY37")
    if named:
        return Path(named)
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(home.glob("versions/3.7.*/bin/python"))
    if not found:
        raise Missing("no Python 3.7 here: set HOTMATTE_PY37 to one")
    return found[-1]


def _environment(name: str, python: Path, wanted: Sequence[str]) -> Path:
    """The Python of a venv with `wanted`; another list or another Python is another venv."""
    # Of a list of constraints what it says, not where this checkout has it: or each checkout would make its own.
    said = [Path(word).read_text() if Path(word).is_file() else word for word in wanted]
    recipe = hashlib.sha256("\n".join([str(python.resolve()), *said]).encode()).hexdigest()[:8]
    folder = CACHE / f"{name}-{recipe}"
    made = folder / "bin" / "python"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([python, "-m", "venv", folder])
            _run([made, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
            (folder / "ready").touch()
    return made


def _run(command: Sequence[object]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{command[0]}: {done.stderr.strip()[-500:]}")
