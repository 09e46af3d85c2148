"""Real shares on this machine: mounts that stand in for a NAS, and servers that photographers upload to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rigs.brokers import free_port

RIGS = Path(__file__).parent
UP_S = 90.0


def wait_for(condition: Callable[[], object], server: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + UP_S
    while not condition():
        if server is not None and server.poll() is not None:
            raise AssertionError(f"{server.args!r} ended with {server.returncode}")
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {UP_S:g} s: {condition}")
        time.sleep(0.02)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def served(command: Sequence[object], port: int, log: Path) -> Iterator[int]:
    """A server that runs until the block ends; its port, once it answers."""
    with log.open("ab") as out:
        server = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out, process_group=0)
    try:
        wait_for(lambda: answers(port), server)
        yield port
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def samba(folder: Path, state: Path) -> Iterator[int]:
    state.mkdir()
    port = free_port()
    with served([RIGS / "smbd.sh", state, folder, port], port, state / "out"):
        yield port


@contextlib.contextmanager
def vsftpd(folder: Path, state: Path) -> Iterator[int]:
    state.mkdir()
    port = 20_000 + free_port() % 20_000
    with served([RIGS / "vsftpd.sh", state, folder, port], port, state / "out"):
        yield port


@contextlib.contextmanager
def pyftpd(folder: Path, state: Path) -> Iterator[int]:
    state.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", port, "-w", "-d", folder]
    with served(command, port, state / "out"):
        yield port


class Share:
    """A folder `point` on which `source` is mounted by FUSE, and unmounted, and mounted again."""

    def __init__(self, source: Path, point: Path, *, options: Sequence[str] = ()) -> None:
        self.source = source
        self.point = point
        self.control = source.with_name(source.name + ".control.json")
        self._options = options
        self._pid = source.with_name(source.name + ".pid")
        source.mkdir(parents=True, exist_ok=True)
        point.mkdir(parents=True, exist_ok=True)

    def mount(self) -> None:
        """Not as a child of ours: it may outlive the test that mounts it."""
        words = [sys.executable, RIGS / "faultfs.py", self.source, self.point, self.control, *self._options]
        with self.source.with_name(self.source.name + ".log").open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", 'echo $$ >"$0"; exec "$@"', self._pid, *words],
                stdout=log,
                stderr=log,
                check=True,
            )
        wait_for(self.point.is_mount)

    def unmount(self) -> None:
        """At once, whoever uses it, as when a cable is pulled and the administrator cleans up."""
        subprocess.run(["umount", "-l", self.point], check=False, capture_output=True)
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self._pid.read_text()), signal.SIGKILL)

    def fail(self, **what: Any) -> None:
        """From now on; without arguments nothing fails. See faultfs.py."""
        aside = self.control.with_suffix(".new")
        aside.write_text(json.dumps(what))
        aside.replace(self.control)


@contextlib.contextmanager
def share(source: Path, point: Path) -> Iterator[Share]:
    one = Share(source, point)
    one.mount()
    try:
        yield one
    finally:
        one.fail()
        one.unmount()


def can_mount() -> bool:
    return bool(shutil.which("fusermount3")) and Path("/dev/fuse").exists()


@contextlib.contextmanager
def sshd(state: Path) -> Iterator[tuple[int, Path]]:
    """An SSH server that lets us in by a key of its own; its port and that key."""
    state.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(state / name)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    options = {
        "HostKey": state / "host",
        "AuthorizedKeysFile": state / "user.pub",
        "PermitRootLogin": "prohibit-password",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "ListenAddress": "127.0.0.1",
        "Subsystem": "sftp internal-sftp",
    }
    (state / "config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    port = free_port()
    with served(["/usr/sbin/sshd", "-D", "-e", "-f", state / "config", "-p", port], port, state / "out"):
        yield port, state / "user"
