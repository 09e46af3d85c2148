"""The environment that converts TensorFlow graphs to ONNX: a venv of its own, so that the daemon needs none."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from watcher.errors import EngineUnavailable

Say = Callable[[str], None]

# Seen working together. tensorflow-cpu is the same code at half the size, where there is one.
PINS = (
    'tensorflow-cpu==2.21.0; platform_machine == "x86_64"',
    'tensorflow==2.21.0; platform_machine != "x86_64"',
    "tf2onnx==1.17.0",
    "onnx==1.23.2",
    "numpy==2.4.6",
    "protobuf==7.36.2",
)
# pip fetches about 350 MB, on lines of any speed. Seconds.
PATIENCE = 3600.0
_VERSIONS = """
import json, sys
from importlib.metadata import version
import numpy, onnx, tensorflow, tf2onnx
print("\\n" + json.dumps({"python": sys.version.split()[0], "tensorflow": tensorflow.__version__,
                          "tf2onnx": version("tf2onnx"), "onnx": onnx.__version__}))
"""


def interpreter(cache: Path, *, say: Say) -> Path:
    """The Python of the environment under `cache`, made now if need be. Raises EngineUnavailable."""
    folder = cache / f"converter-{_name()}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / f".{folder.name}.lock"):
        if not ready.exists():
            say(f"making the environment of the converter in {folder} (about 1.5 GB, once)")
            shutil.rmtree(folder, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(folder)], doing="make a virtual environment")
            pip = [str(python), "-m", "pip", "install", "--quiet", "--no-input"]
            run([*pip, "--disable-pip-version-check", *PINS], doing="install the converter")
            ready.touch()
    return python


def versions(python: Path) -> str:
    """What converts, as JSON text. Raises EngineUnavailable where `python` lacks a part of it."""
    return run([str(python), "-c", _VERSIONS], doing=f"use {python} to convert").splitlines()[-1]


def run(command: Sequence[str], *, doing: str) -> str:
    """The command's stdout. Raises EngineUnavailable with its last words where it fails."""
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    # What leads to our own packages leads another interpreter astray.
    for name in ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"):
        quiet.pop(name, None)
    try:
        done = subprocess.run(
            command,
            env=quiet,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(doing, f"not done within {PATIENCE:g} s") from error
    except OSError as error:
        raise _failed(doing, error.strerror or str(error)) from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise _failed(doing, "\n".join(lines[-5:]) or f"exit status {done.returncode}")
    return done.stdout


def _failed(doing: str, why: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"cannot {doing}: {why}",
        remedy="Convert where a package index is reachable and copy the result and its .json record here, "
        "or name a Python that has tensorflow, tf2onnx and onnx: `hotmatte models convert NAME --python PATH`.",
    )


def _name() -> str:
    """Another set of pins, or another Python, is another environment."""
    recipe = "\n".join((*PINS, sys.version)).encode()
    return hashlib.sha256(recipe).hexdigest()[:8]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One maker at a time, over all processes."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
