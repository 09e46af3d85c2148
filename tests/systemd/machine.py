"""A machine with a real systemd, booted on an overlay of this one; see tests/rigs/sdboot.sh."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemonrig import PATIENCE

RIG = Path(__file__).parents[1] / "rigs" / "sdboot.sh"
ABSENT = "/nowhere"


class Machine:
    """`run` executes inside. `binds` are folders of this machine that it sees: source -> target."""

    def __init__(self, name: str, binds: dict[Path, str]) -> None:
        self.name = name
        words = [f"{source}:{target}" for source, target in binds.items()]
        # v1: the controllers that enforce MemoryMax= and TasksMax= need not be handed down to us.
        self._rig("start", *words, CG="v1" if _has_v1() else "v2")

    def _rig(self, verb: str, *words: str, **env: str) -> None:
        done = subprocess.run(
            [str(RIG), verb, self.name, *words],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **env},
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self) -> None:
        self._rig("stop")

    def run(
        self, *words: str, check: bool = True, text: str | None = None, timeout: float = 100.0
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(RIG), "exec", self.name, *words],
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, (words, done.stdout + done.stderr, self.last_words())
        return done

    def out(self, *words: str) -> str:
        return self.run(*words).stdout.strip()

    def last_words(self) -> str:
        done = subprocess.run(
            [str(RIG), "exec", self.name, "journalctl", "-n", "40", "--no-pager", "-o", "short-precise"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    def eventually(self, condition: Callable[[], Any], *, timeout: float = 30.0, every: float = 0.1) -> Any:
        deadline = time.monotonic() + PATIENCE * timeout
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {self.last_words()}"
            time.sleep(every)
        return value

    # --- Files -----------------------------------------------------------------------------

    def write(self, path: str, content: str | bytes) -> None:
        """Aside first, so that nobody inside sees half of it."""
        data = content.encode() if isinstance(content, str) else content
        command = 'mkdir -p "${1%/*}" && cat > "$1.part" && mv "$1.part" "$1"'
        subprocess.run(
            [str(RIG), "exec", self.name, "sh", "-c", command, "sh", path],
            input=data,
            check=True,
            timeout=60,
        )

    def read(self, path: str) -> bytes:
        done = subprocess.run(
            [str(RIG), "exec", self.name, "cat", path], capture_output=True, timeout=60, check=True
        )
        return done.stdout

    def exists(self, path: str) -> bool:
        return self.run("test", "-e", path, check=False).returncode == 0

    def owner(self, path: str) -> str:
        """`user:group mode`."""
        return self.out("stat", "-c", "%U:%G %a", path)

    # --- systemd ---------------------------------------------------------------------------

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        lines = self.out("systemctl", "show", unit, "--property", ",".join(properties)).splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def is_active(self, unit: str = "hotmatte") -> bool:
        return self.show(unit, "ActiveState")["ActiveState"] == "active"

    def pid(self, unit: str = "hotmatte") -> int:
        return int(self.show(unit, "MainPID")["MainPID"])

    def entries(self, *matches: str, unit: str = "hotmatte", after: int = 0) -> list[dict[str, Any]]:
        """What the journal holds, with all fields; `after` is what `moment` said."""
        self.run("journalctl", "--sync")
        said = self.out("journalctl", "-u", unit, "-o", "json", "--no-pager", *matches)
        entries = [json.loads(line) for line in said.splitlines()]
        return [entry for entry in entries if int(entry["__MONOTONIC_TIMESTAMP"]) > after]

    def moment(self) -> int:
        """That of the last entry in the journal. Not a cursor: with matches, journalctl skips one after it."""
        self.run("journalctl", "--sync")
        last = json.loads(self.out("journalctl", "-n", "1", "-o", "json", "--no-pager"))
        return int(last["__MONOTONIC_TIMESTAMP"])

    @contextmanager
    def drop_in(self, text: str, *, unit: str = "hotmatte.service", name: str = "test") -> Iterator[None]:
        """As `systemctl edit` would, for as long as it lasts; restarts nothing."""
        path = f"/etc/systemd/system/{unit}.d/{name}.conf"
        self.write(path, text)
        self.run("systemctl", "daemon-reload")
        try:
            yield
        finally:
            self.run("rm", path)
            self.run("systemctl", "daemon-reload")


def _has_v1() -> bool:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return any(":memory:" in line for line in lines)


def can_boot() -> str:
    """Empty if a machine can be booted here; else what is missing."""
    if os.geteuid() != 0:
        return "needs root, for mounts and namespaces"
    if not Path("/lib/systemd/systemd").exists():
        return "apt install systemd dbus"
    if not Path("/usr/bin/dbus-daemon").exists():
        return "apt install dbus"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlayfs"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "this container may not unshare mount namespaces"
    return ""
