"""A real `hotmatte web` beside a real daemon, on a port of its own."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from daemonrig import PATIENCE, DaemonRig

START_S = 30.0
# A photo that a person may see, small enough to be quick.
PHOTO = Path(__file__).parent / "data" / "astronaut.png"


class WebRig:
    """`daemon` need not run. `settings` are those of the `web` section."""

    def __init__(
        self, daemon: DaemonRig, settings: Mapping[str, Any] | None = None, *, log: str = "web.log"
    ) -> None:
        self.daemon = daemon
        self.log_file = daemon.root / log
        self.child: subprocess.Popen[bytes] | None = None
        daemon.settings["web"] = {"listen": "127.0.0.1:0", **(settings or {})}
        daemon.configure()

    def start(self) -> None:
        self.log_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self.child = subprocess.Popen(
                self.daemon.command("web"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.daemon.environment(),
                cwd=self.daemon.root,
            )
        self.url = self._announced()
        self.until(lambda: self._answers())

    def _announced(self) -> str:
        found = self.until(lambda: re.search(r"serving .*?path=(\S+)", self.log()))
        return str(found[1]).rstrip("/")

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def until(self, condition: Any, *, timeout: float = START_S) -> Any:
        """The first true value; fails when the service ends meanwhile."""
        import time

        deadline = time.monotonic() + PATIENCE * timeout
        while not (value := condition()):
            if self.child is not None and (status := self.child.poll()) is not None:
                raise AssertionError(f"the service ended with {status}:\n{self.log()[-4000:]}")
            assert time.monotonic() < deadline, f"not within {timeout:g} s:\n{self.log()[-4000:]}"
            time.sleep(0.02)
        return value

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def hang_up(self) -> None:
        """SIGHUP: it reads its configuration again."""
        assert self.child is not None
        self.child.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        assert self.child is not None
        self.child.terminate()
        return self.child.wait(20)

    def close(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
