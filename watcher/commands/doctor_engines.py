"""`hotmatte doctor`, on engines: model cards, interpreters, weights, GPUs. Imports no framework."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watcher.commands.findings import Finding, fail, ok, warn
from watcher.config import Profile, Settings
from watcher.engine import weights
from watcher.engine.card import Card, card_folders, load_card
from watcher.engine.choice import engine_for
from watcher.engine.tensorflow_builds import advice
from watcher.engine.weights import State
from watcher.errors import ConfigError
from watcher.exits import CONFIG, UNAVAILABLE

# What an engine needs its interpreter to have.
FRAMEWORKS = {"onnx": "onnxruntime", "mnn": "MNN", "openvino": "openvino", "bshm": "tensorflow"}
# Importing TensorFlow from a cold disk takes this long.
PATIENCE = 120.0

# Run by the worker's interpreter, Python 3.7 and later. Frameworks print: the last line counts.
QUESTION = """
import importlib, json, platform, sys
said = {"python": platform.python_version()}
try:
    module = importlib.import_module(sys.argv[1])
    said["version"] = module.version() if sys.argv[1] == "MNN" else module.__version__
    if sys.argv[1] == "onnxruntime":
        said["cuda"] = "CUDAExecutionProvider" in module.get_available_providers()
    elif sys.argv[1] == "tensorflow":
        said["cuda"] = bool(module.test.is_built_with_cuda())
except Exception as error:
    said["error"] = "%s: %s" % (type(error).__name__, error)
print("\\n" + json.dumps(said))
"""


def engines(settings: Settings) -> list[Finding]:
    """For each profile that a hot folder uses."""
    folders = card_folders(settings.models.cards)
    found: list[Finding] = []
    gpus: list[Gpu] | None = None
    for name in sorted({folder.profile for folder in settings.folders.values()}):
        profile, subject = settings.profiles[name], f"profiles.{name}"
        try:
            card = load_card(profile.model, folders)
        except ConfigError as error:
            found += [fail(subject, problem, error.remedy, status=CONFIG) for problem in error.problems]
            continue
        found += _weights(subject, card, settings)
        framework = FRAMEWORKS.get(engine_for(card, profile.device), "numpy")
        said = _ask(card, framework)
        found.append(_framework(subject, card, framework, said))
        if profile.device != "cpu":
            gpus = graphics_cards() if gpus is None else gpus
            found.append(_device(subject, profile, card, gpus, cuda=bool(said.get("cuda"))))
            if card.engine == "bshm":
                found += [_build(subject, gpu, str(said.get("version", ""))) for gpu in gpus]
    return found


def _weights(subject: str, card: Card, settings: Settings) -> list[Finding]:
    cache = weights.cache_folder(settings.models.cache)
    state, pull = weights.state(card, cache), f"Run `hotmatte models pull {card.name}`."
    match state:
        case State.OK:
            return [ok(subject, f"the weights of {card.name} are there and verified")]
        case State.MISSING if not settings.models.offline:
            return [warn(subject, f"the weights of {card.name} will be fetched at start", pull)]
        case State.MISSING | State.DAMAGED:
            words = f"the weights of {card.name} are {state.lower()}: {weights.place(card, cache)}"
            return [fail(subject, words, pull, status=UNAVAILABLE)]
        case _:
            return []


def _ask(card: Card, framework: str) -> dict[str, Any]:
    """What the worker's interpreter says of itself and the framework; `error` where it cannot."""
    try:
        done = subprocess.run(
            [card.interpreter, "-c", QUESTION, framework],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},  # as in worker/engine_onnx.py
            text=True,
            errors="replace",
        )
        said: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    except OSError as error:
        return {"error": f"cannot be started: {error.strerror or error}"}
    except subprocess.TimeoutExpired:
        return {"error": f"gave no answer within {PATIENCE:g} s"}
    except ValueError:
        return {"error": f"gave no answer and exited with status {done.returncode}"}
    return said


def _framework(subject: str, card: Card, framework: str, said: dict[str, Any]) -> Finding:
    if "error" in said:
        remedy = f"Install {framework} for it, or name another `python` in the card {card.name}."
        return fail(subject, f"{card.interpreter}: {said['error']}", remedy, status=UNAVAILABLE)
    return ok(subject, f"{card.interpreter} is Python {said['python']} with {framework} {said['version']}")


def _device(subject: str, profile: Profile, card: Card, gpus: Sequence[Gpu], *, cuda: bool) -> Finding:
    wants, package = profile.device, FRAMEWORKS.get(card.engine, "")
    if not gpus:
        if wants == "auto":
            return ok(subject, "no NVIDIA GPU found: computes on the CPU")
        remedy = "See whether `nvidia-smi` finds it, or set `device: auto`."
        return fail(subject, f"device: {wants}, but no NVIDIA GPU was found", remedy, status=UNAVAILABLE)
    if cuda or not package:
        return ok(subject, f"GPU: {', '.join(gpu.name for gpu in gpus)}")
    words = f"there is a GPU ({gpus[0].name}), but this {package} was built without CUDA"
    remedy = f"Install {package}-gpu for the worker's interpreter."
    if wants == "auto":
        return warn(subject, words + ": computes on the CPU", remedy)
    return fail(subject, words, remedy, status=UNAVAILABLE)


def _build(subject: str, gpu: Gpu, version: str) -> Finding:
    """Which TensorFlow suits the GPU; a warning where this one cannot."""
    words = advice(gpu.name, gpu.capability, gpu.driver)
    old = version.startswith("1.") and gpu.capability.split(".")[0].isdigit()
    if old and int(gpu.capability.split(".")[0]) >= 9:
        return warn(subject, f"TensorFlow {version} does not know this GPU", words)
    return ok(subject, words)


@dataclass(frozen=True, slots=True)
class Gpu:
    """As the driver names it; `capability` (\"8.9\") and `driver` (\"535.104.05\") are empty where unknown."""

    name: str
    capability: str = ""
    driver: str = ""


def graphics_cards() -> list[Gpu]:
    """The NVIDIA GPUs of this machine; empty without one."""
    if shutil.which("nvidia-smi"):
        # Drivers before 510 do not know compute_cap, and refuse the whole question.
        return _smi("name,compute_cap,driver_version") or _smi("name")
    driver = Path("/proc/driver/nvidia/gpus")
    return [Gpu(f"NVIDIA {gpu.name}") for gpu in sorted(driver.iterdir())] if driver.is_dir() else []


def _smi(fields: str) -> list[Gpu]:
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True,
            timeout=20.0,
            check=False,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return [Gpu(*(part.strip() for part in line.split(",")[:3])) for line in lines if line.strip()]
