"""A real daemon in a folder of its own: configured, started, watched, killed.

Nothing is mocked: `python -m watcher run` in another process, its journal read as people's
commands read it. Photos are tiny, so that the journey is what takes the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import yaml

from watcher.domain import JobState
from watcher.health import JOURNAL, read_snapshot
from watcher.journal import Journal, Record

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent
CARDS = TESTS / "cards"
# Compiled once for all daemons and all tests: that takes longer than anything else they do.
COMPILED = Path(sys.prefix) / "numba-cache"
MOODY = TESTS / "engines" / "moody.py"

# As fast as it goes: what is tested is not the waiting.
QUICK_FOLDER: Mapping[str, Any] = {"create": True, "quiet_s": 0.1, "scan_interval_s": 60}
QUICK_RETRY: Mapping[str, Any] = {"max_attempts": 3, "base_delay_s": 0.1, "max_delay_s": 1}
READY_S = 30.0
STOP_S = 20.0
# Deadlines are for what goes wrong. A machine that tests share may be so much slower than the one they were chosen on.
PATIENCE = 4.0


class DaemonDied(AssertionError):
    """It ended while it was waited for; says how, and its last words."""


class DaemonRig:
    """One daemon at a time on one configuration, all of it under `root`.

    `folders` maps the names of hot folders to settings that differ from QUICK_FOLDER; `path`
    and `output` are filled in. `card` is the model card all of them use, from `cards`. Further
    settings (`retry`, `limits`, ...) go into the configuration as they are.
    """

    def __init__(
        self,
        root: Path,
        *,
        folders: Mapping[str, Mapping[str, Any]] | None = None,
        card: str = "fake",
        cards: Path = CARDS,
        profile: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.config = root / "hotmatte.yaml"
        self.state = root / "state"
        self.log_file = root / "daemon.log"
        self.child: subprocess.Popen[bytes] | None = None
        self.env: dict[str, str] = {}
        self.settings: dict[str, Any] = {
            "state_dir": "state",
            "folders": {name: self._folder(name, own) for name, own in (folders or {"in": {}}).items()},
            "profiles": {"portrait": {"model": card, "device": "cpu", **(profile or {})}},
            "retry": dict(QUICK_RETRY),
            "models": {"cards": str(cards), "cache": str(root / "cache")},
            # Photos of tests are alike, and each is to go all the way to the engine.
            "cache": {"size_mb": 0},
            **settings,
        }
        self.configure()

    def _folder(self, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
        places: dict[str, Any] = {"path": f"hot/{name}", "output": f"out/{name}"}
        if own.get("source") == "archive":
            places["archive"] = f"archive/{name}"
        return {**QUICK_FOLDER, **places, **own}

    # --- Places ----------------------------------------------------------------------------

    def place(self, name: str, key: str) -> Path:
        """The folder that `key` (`path`, `output`, `archive`, `quarantine`) names."""
        return self.root / str(self.settings["folders"][name][key])

    def hot(self, name: str = "in") -> Path:
        return self.place(name, "path")

    def out(self, name: str = "in") -> Path:
        return self.place(name, "output")

    def archive(self, name: str = "in") -> Path:
        return self.place(name, "archive")

    # --- Life ------------------------------------------------------------------------------

    def configure(self) -> None:
        """Write `settings`; a running daemon reads them at `signal(SIGHUP)`."""
        self.config.write_text(yaml.safe_dump(self.settings, allow_unicode=True), encoding="utf-8")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "watcher", *words, "--config", str(self.config)]

    def start(
        self, *, ready: bool = True, command: Sequence[str] | None = None, **env: str
    ) -> subprocess.Popen[bytes]:
        """Start a daemon; with `ready`, wait until its snapshot says that every folder is listed."""
        assert self.child is None or self.child.poll() is not None, "there is one already"
        with self.log_file.open("ab") as log:
            self.child = subprocess.Popen(
                list(command or self.command("run")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(**env),
                cwd=self.root,
            )
        if ready:
            self.wait(self.is_ready, timeout=READY_S)
        return self.child

    def environment(self, **more: str) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("HOTMATTE_")}
        env.setdefault("NUMBA_CACHE_DIR", str(COMPILED))
        path = os.pathsep.join(filter(None, [str(CHECKOUT), self.env.get("PYTHONPATH", "")]))
        return {**env, **self.env, **more, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    def is_alive(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def is_ready(self) -> bool:
        status = self.status()
        return bool(status.get("ready")) and status.get("pid") == self.pid

    def wait(self, condition: Callable[[], object], *, timeout: float, every: float = 0.02) -> Any:
        """The first true value of `condition`; fails when the daemon ends meanwhile."""
        deadline = time.monotonic() + PATIENCE * timeout
        while not (value := condition()):
            if self.child is not None and (status := self.child.poll()) is not None:
                raise DaemonDied(f"the daemon ended with {status}:\n{self.log()[-4000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout:g} s; log:\n{self.log()[-4000:]}")
            time.sleep(every)
        return value

    def signal(self, number: int) -> None:
        assert self.child is not None
        self.child.send_signal(number)

    def stop(self, *, timeout: float = STOP_S) -> int:
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout=timeout)

    def wait_exit(self, *, timeout: float) -> int:
        assert self.child is not None
        try:
            return self.child.wait(PATIENCE * timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s:\n{self.log()[-4000:]}") from None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.child is not None
        self.child.kill()
        self.child.wait()

    def close(self) -> None:
        """Whatever the test did, nothing is left running."""
        if self.child is not None:
            workers = self.workers()
            self.child.kill()
            self.child.wait()
            psutil.wait_procs(workers, timeout=5)

    # --- What can be seen from outside -----------------------------------------------------

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def status(self) -> dict[str, Any]:
        """The daemon's last snapshot (status.json); empty before the first."""
        return read_snapshot(self.state)

    def workers(self) -> list[psutil.Process]:
        """The engine processes of the running daemon."""
        others = {*self.readers(), *self.renderers()}
        return [child for child in self._children() if child not in others]

    def readers(self) -> list[psutil.Process]:
        """The processes of the running daemon that decode photos."""
        return [child for child in self._children() if "watcher.pipeline.reader" in _command(child)]

    def renderers(self) -> list[psutil.Process]:
        """The processes of the running daemon that render photos."""
        return [child for child in self._children() if "watcher.pipeline.renderer" in _command(child)]

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def peak_rss_mb(self) -> float:
        """The most memory the running daemon (without its worker) ever had, in MB (10^6)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise AssertionError("the kernel does not say VmHWM")

    def hotmatte(self, *words: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run another command on the same configuration."""
        return subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout,
            env=self.environment(),
            cwd=self.root,
            check=False,
        )

    @contextlib.contextmanager
    def journal(self) -> Iterator[Journal]:
        with Journal(self.state / JOURNAL) as journal:
            yield journal

    def counts(self) -> dict[str, int]:
        """Jobs in each state, all hot folders together; empty before there is a journal."""
        total: dict[str, int] = {}
        if (self.state / JOURNAL).exists():
            with self.journal() as journal:
                for states in journal.counts().values():
                    for state, count in states.items():
                        total[state] = total.get(state, 0) + count
        return total

    def record(self, relpath: str, name: str = "in") -> Record | None:
        """What the journal says of the present version of one photo."""
        if not (self.state / JOURNAL).exists():
            return None
        with self.journal() as journal:
            return journal.find(name, relpath)

    def state_of(self, relpath: str, name: str = "in") -> JobState | None:
        record = self.record(relpath, name)
        return None if record is None else record.state

    def wait_done(self, relpath: str, name: str = "in", *, timeout: float = 20.0) -> Record:
        """The record of a photo, once its present version is done."""
        self.wait(lambda: self.state_of(relpath, name) is JobState.DONE, timeout=timeout, every=0.05)
        record = self.record(relpath, name)
        assert record is not None
        return record

    def wait_quarantined(self, relpath: str, name: str = "in", *, timeout: float = 20.0) -> Record:
        self.wait(lambda: self.state_of(relpath, name) is JobState.QUARANTINED, timeout=timeout, every=0.05)
        record = self.record(relpath, name)
        assert record is not None
        return record

    def sidecars(self, name: str = "in") -> dict[Path, dict[str, Any]]:
        """Every sidecar in the output folder, parsed."""
        return {path: json.loads(path.read_bytes()) for path in sorted(self.out(name).rglob("*.matte.json"))}

    def reports(self, name: str = "in") -> dict[Path, dict[str, Any]]:
        """Every error report in the output folder, parsed."""
        return {path: json.loads(path.read_bytes()) for path in sorted(self.out(name).rglob("*.error.json"))}

    def leftovers(self) -> list[Path]:
        """Temporaries of ours anywhere: hot folders, outputs, archives, state."""
        return sorted(path for path in self.root.rglob("*") if path.name.endswith(".tmp"))


# --- Photos ------------------------------------------------------------------------------


def _command(child: psutil.Process) -> list[str]:
    try:
        return child.cmdline()
    except psutil.Error:
        return []


def jpeg(seed: int = 0, *, width: int = 16, height: int = 16) -> bytes:
    """A small JPEG; other seeds give other bytes."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[: height // 2] = [seed >> 16 & 255, seed >> 8 & 255, seed & 255]
    # Flat halves: JPEG may round neighbouring colours alike, a comment never.
    content = cv2.imencode(".jpg", pixels)[1].tobytes()
    remark = f"photo {seed}".encode()
    return content[:2] + b"\xff\xfe" + (len(remark) + 2).to_bytes(2, "big") + remark + content[2:]


def drop(path: Path, content: bytes, *, how: str = "rename") -> None:
    """Bring a photo into a hot folder as programs do: `rename` a whole file in, or `write` it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "write":
        path.write_bytes(content)
        return
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(content)
    aside.replace(path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def check_set(sidecar: Path, content: Mapping[str, Any], output: Path) -> None:
    """Every output a sidecar lists is there, has the bytes it says, and can be decoded."""
    assert content["outputs"], sidecar
    for item in content["outputs"]:
        named = bytes.fromhex(item["path_bytes"]) if "path_bytes" in item else os.fsencode(item["path"])
        path = output / os.fsdecode(named)
        written = path.read_bytes()
        assert sha256(written) == item["sha256"], (sidecar, path)
        pixels = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels is not None and pixels.shape[:2] == (item["height"], item["width"]), path


# --- Engines of our own --------------------------------------------------------------------


def plug_in(folder: Path, name: str, module: Path) -> str:
    """Install the engine in `module` under `name` as a package would: by an entry point.

    Returns what PYTHONPATH needs for it to be found.
    """
    record = folder / f"{name}_engine-1.dist-info"
    record.mkdir(parents=True, exist_ok=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-engine\nVersion: 1\n")
    (record / "entry_points.txt").write_text(f"[watcher.engines]\n{name} = {module.stem}\n")
    return os.pathsep.join([str(folder), str(module.parent)])


def write_card(folder: Path, name: str, **differences: Any) -> Path:
    """A model card `name` in `folder`: that of the fake engine but for `differences`."""
    folder.mkdir(parents=True, exist_ok=True)
    card = yaml.safe_load((CARDS / "fake.yaml").read_text())
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**card, "name": name, **differences}))
    return path
