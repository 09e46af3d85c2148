"""A daemon to be measured: `hotmatte run` on folders of its own, as an operator would start it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.usage import children, works_on_photos

CARDS = Path(__file__).with_name("cards")
FAKE, REAL = "benchfake", "modnet"
READY_S, STOP_S, STALLED_S = 300.0, 60.0, 120.0


@dataclass(frozen=True, slots=True)
class Service:
    """A daemon that is ready. `hot` and `mattes` are its folders, `workers` its workers' process ids."""

    pid: int
    workers: tuple[int, ...]
    hot: Path
    mattes: Path

    @property
    def worker(self) -> int:
        """The only one there is."""
        (worker,) = self.workers
        return worker

    def await_done(self, count: int, *, every: float = 0.25) -> None:
        """Until `count` photos have their sidecar, looked for once in `every` seconds. Raises RuntimeError."""
        done, progress = 0, time.monotonic()
        while done < count:
            time.sleep(every)
            now = sum(1 for _ in self.mattes.glob("*.matte.json"))
            if now > done:
                done, progress = now, time.monotonic()
            elif time.monotonic() - progress > STALLED_S:
                raise RuntimeError(f"nothing was done for {STALLED_S:g} s after {done} photos")


def write_config(
    folder: Path,
    *,
    model: str,
    profile: dict[str, Any] | None = None,
    cards: Path = CARDS,
    cache: Path | None = None,
    limits: dict[str, Any] | None = None,
    **hot: Any,
) -> Path:
    """A configuration with one hot folder `hot` in `folder`; `hot`, `profile` and `limits` are settings of theirs.

    `cache`: answers are kept there, as by default; None: the same photos come again and again, and each is
    to be computed.
    """
    settings = {
        "state_dir": "state",
        "folders": {"hot": {"path": "hot", "output": "mattes", "create": True} | hot},
        "profiles": {"portrait": {"model": model, "device": "cpu"} | (profile or {})},
        "models": {"cards": str(cards)} | ({"cache": str(cache)} if cache else {}),
        "limits": limits or {},
        "cache": {} if cache else {"size_mb": 0},
        "log": {"format": "text", "level": "info"},
    }
    path = folder / "hotmatte.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@contextmanager
def running(config: Path) -> Iterator[Service]:
    """A daemon with `config`, ready; stopped afterwards. Errors carry the end of its log as a note."""
    folder = config.parent
    log = folder / "log.txt"
    command = [sys.executable, "-m", "watcher", "run", "--config", str(config), "--no-progress"]
    with (
        log.open("wb") as words,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words) as daemon,
    ):
        try:
            _await_ready(daemon, folder / "state" / "status.json")
            workers = tuple(child for child in children(daemon.pid) if not works_on_photos(child))
            yield Service(daemon.pid, workers, folder / "hot", folder / "mattes")
        except Exception as error:
            error.add_note(f"daemon {daemon.pid} (exit status {daemon.poll()}) said last:\n{_end(log)}")
            raise
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(STOP_S)


def _await_ready(daemon: subprocess.Popen[bytes], status: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not (status.exists() and json.loads(status.read_bytes())["ready"]):
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the daemon did not get ready")
        time.sleep(0.05)


def _end(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
