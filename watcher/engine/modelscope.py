"""A file from the ModelScope hub, by its own SDK, in whatever interpreter has it. Never imports it here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from watcher.engine.card import ModelScopeSource

# Names an interpreter that has the SDK, before all others.
PYTHON = "HOTMATTE_MODELSCOPE_PYTHON"
ENDPOINT = "MODELSCOPE_ENDPOINT"
# The SDK gives up by itself where nothing comes; this is for one that does not. Seconds.
PATIENCE = 4 * 3600.0
_GLANCE = 0.5

_FIND = "import importlib.util as u, sys; sys.exit(u.find_spec('modelscope') is None)"
# Python 3.7, any SDK: 1.6.1 can only leave files out, later ones can name the one that is wanted. It
# also knows tags only: for the branch it takes the last tag of its own time, as it did by default.
_PULL = """
import inspect, json, os, re, sys
model, revision, file, folder = sys.argv[1:]
from modelscope.hub.snapshot_download import snapshot_download
known = inspect.signature(snapshot_download).parameters
if "allow_patterns" in known:
    only = {"allow_patterns": [file]}
else:
    only = {"ignore_file_pattern": ["^(?!" + re.escape(os.path.basename(file)) + "$)"]}
    revision = None if revision == "master" else revision
root = snapshot_download(model, revision=revision, cache_dir=folder, **only)
print("\\n" + json.dumps({"path": os.path.join(root, file)}))
"""


class HubFailed(Exception):
    """The file was not had. The message is for people."""


def snapshot(source: ModelScopeSource, target: Path, *, python: str, progress: Callable[[int], None]) -> None:
    """Bring the file of `source` to `target`; the hub's own sha256 is checked by the SDK.

    `python` is the interpreter of the card. What an interrupted run left is built upon by SDKs
    that can (1.6.1 cannot). `progress` is told bytes. Raises HubFailed.
    """
    folder = target.with_name(".modelscope")
    chosen = _interpreter(python)
    command = [chosen, "-c", _PULL, source.model, source.revision, source.file, str(folder)]
    folder.mkdir(exist_ok=True)
    said = _run(command, _environment(folder), watched=folder, progress=progress)
    came = Path(said)
    if not came.is_file():
        raise HubFailed(f"the hub has no {source.file} in {source.model} at {source.revision}")
    came.replace(target)
    shutil.rmtree(folder, ignore_errors=True)


def _interpreter(python: str) -> str:
    """The first interpreter that has the SDK: the named one, ours, or the card's."""
    named = os.environ.get(PYTHON)
    # Ours first: its SDK is newer than that of a Python 3.7, and can resume.
    candidates = [named] if named else list(dict.fromkeys([sys.executable, python]))
    for candidate in candidates:
        with contextlib.suppress(OSError):
            if subprocess.run([candidate, "-c", _FIND], check=False, capture_output=True).returncode == 0:
                return candidate
    raise HubFailed(
        f"no Python here has the modelscope package (asked: {', '.join(candidates)}): "
        f"pip install 'hotmatte[bshm]', or name one that has it as {PYTHON}"
    )


def _environment(folder: Path) -> dict[str, str]:
    """Ours, with all that the SDK would leave in the user's home sent to `folder`."""
    env = {
        **os.environ,
        "MODELSCOPE_CACHE": str(folder),
        "MODELSCOPE_HOME": str(folder / "home"),
        "MODELSCOPE_CREDENTIALS_PATH": str(folder / "home" / "credentials"),
    }
    endpoint = env.get(ENDPOINT)
    if endpoint:
        # SDKs of the time of 1.6.1 know a host only, and speak plain HTTP.
        env["MODELSCOPE_DOMAIN"] = urlsplit(endpoint).netloc
    return env


def _run(command: list[str], env: dict[str, str], *, watched: Path, progress: Callable[[int], None]) -> str:
    """The path the SDK reports. Tells `progress` how much lies under `watched` meanwhile."""
    progress(0)
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as child:
        try:
            out, err = _attend(child, watched, progress)
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        raise HubFailed(_conclusion(err))
    return str(json.loads(out.strip().splitlines()[-1])["path"])


def _attend(child: subprocess.Popen[str], watched: Path, progress: Callable[[int], None]) -> tuple[str, str]:
    for _ in range(int(PATIENCE / _GLANCE)):
        try:
            return child.communicate(timeout=_GLANCE)
        except subprocess.TimeoutExpired:
            progress(sum(_sizes(watched)))
    raise HubFailed(f"the SDK did not finish within {PATIENCE:g} s")


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        # The SDK renames and deletes while we look.
        with contextlib.suppress(OSError):
            yield path.stat().st_size if path.is_file() else 0


def _conclusion(stderr: str) -> str:
    """The last line of a traceback: the error and its message."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f"the ModelScope SDK failed: {(lines or ['without a word'])[-1][:500]}"
