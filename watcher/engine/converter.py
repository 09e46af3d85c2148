"""The environments that convert weights: each a venv of its own, so that the daemon needs nothing of them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from watcher.errors import EngineUnavailable

Say = Callable[[str], None]

# pip fetches up to 350 MB, on lines of any speed. Seconds.
PATIENCE = 3600.0


@dataclass(frozen=True, slots=True)
class Kit:
    """What one kind of conversion needs: pins that were seen working together, and who they are to a person.

    `packages` are those whose versions go on record, `needs` what a Python given by hand must have.
    """

    pins: tuple[str, ...]
    packages: tuple[str, ...]
    needs: str
    size: str


TENSORFLOW = Kit(
    # tensorflow-cpu is the same code at half the size, where there is one.
    pins=(
        'tensorflow-cpu==2.21.0; platform_machine == "x86_64"',
        'tensorflow==2.21.0; platform_machine != "x86_64"',
        "tf2onnx==1.17.0",
        "onnx==1.23.2",
        "numpy==2.4.6",
        "protobuf==7.36.2",
    ),
    packages=("tensorflow", "tf2onnx", "onnx"),
    needs="tensorflow, tf2onnx and onnx",
    size="1.5 GB",
)
# ONNX Runtime's own tools do it, for which they want the package onnx, as the daemon does not.
HALF = Kit(
    pins=("onnxruntime==1.32.0", "onnx==1.23.2", "numpy==2.4.6", "protobuf==7.36.2"),
    packages=("onnxruntime", "onnx"),
    needs="onnxruntime and onnx",
    size="210 MB",
)
# A module of each must load: one that is there in part is not. TensorFlow goes by two names on the index.
_VERSIONS = """
import importlib, json, os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
from importlib.metadata import PackageNotFoundError, version
def of(name):
    module = importlib.import_module(name)
    try:
        return version(name)
    except PackageNotFoundError:
        return module.__version__
print("\\n" + json.dumps({"python": sys.version.split()[0], **{name: of(name) for name in sys.argv[1:]}}))
"""


def interpreter(cache: Path, kit: Kit, *, say: Say) -> Path:
    """The Python of the kit's environment under `cache`, made now if need be. Raises EngineUnavailable."""
    folder = cache / f"converter-{_name(kit)}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / f".{folder.name}.lock"):
        if not ready.exists():
            say(f"making the environment of the converter in {folder} (about {kit.size}, once)")
            shutil.rmtree(folder, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(folder)], kit, doing="make a virtual environment")
            pip = [str(python), "-m", "pip", "install", "--quiet", "--no-input"]
            run([*pip, "--disable-pip-version-check", *kit.pins], kit, doing="install the converter")
            ready.touch()
    return python


def versions(python: Path, kit: Kit) -> dict[str, str]:
    """What converts, by name. Raises EngineUnavailable where `python` lacks a part of it."""
    said = run([str(python), "-c", _VERSIONS, *kit.packages], kit, doing=f"use {python} to convert")
    return dict(json.loads(said.splitlines()[-1]))


def run(command: Sequence[str], kit: Kit, *, doing: str) -> str:
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
        raise _failed(kit, doing, f"not done within {PATIENCE:g} s") from error
    except OSError as error:
        raise _failed(kit, doing, error.strerror or str(error)) from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise _failed(kit, doing, "\n".join(lines[-5:]) or f"exit status {done.returncode}")
    return done.stdout


def _failed(kit: Kit, doing: str, why: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"cannot {doing}: {why}",
        remedy="Convert where a package index is reachable and copy the result and its .json record here, "
        f"or name a Python that has {kit.needs}: `hotmatte models convert NAME --python PATH`.",
    )


def _name(kit: Kit) -> str:
    """Another set of pins, or another Python, is another environment."""
    recipe = "\n".join((*kit.pins, sys.version)).encode()
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
