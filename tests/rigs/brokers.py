"""Real brokers on this machine, loopback only unless asked otherwise, thrown away afterwards: Redis and RabbitMQ from Debian."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

UP_S = 90.0
RABBIT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def free_port(address: str = "127.0.0.1") -> int:
    """None that the kernel gives to clients: while a broker is down, one that looks for it could get its port."""
    clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    for port in random.sample(range(10_000, max(clients, 20_000)), 1000):
        with suppress(OSError), socket.socket() as probe:
            probe.bind((address, port))
            return port
    raise AssertionError(f"no free port at {address}")


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + UP_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {UP_S:g} s: {what}")
        time.sleep(0.05)


class Broker:
    """One broker that can be stopped, killed, frozen and started again on the same port.

    Started detached: it outlives the test that started it, and is nobody's child.
    """

    kind = ""

    def __init__(self, root: Path, *, address: str = "127.0.0.1") -> None:
        """`address`: where it listens, of this machine; Redis can listen at several, with spaces between them."""
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.address = root, address
        self.port = free_port(address.split()[0])
        self.pid_file = root / "pid"

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        self.pid_file.unlink(missing_ok=True)
        self.launch()
        wait_for(lambda: self.pid_file.is_file() and self.answers(), f"{self.kind} is up: {self.root}")

    def launch(self) -> None:
        raise NotImplementedError

    def stop(self, number: int = signal.SIGTERM) -> None:
        with suppress(ProcessLookupError, FileNotFoundError):
            pid = self.pid
            os.kill(pid, number)
            wait_for(lambda: is_gone(pid), f"{self.kind} ends")

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        self.kill()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Redis(Broker):
    """Keeps nothing on disk: whoever restarts it starts with an empty one."""

    kind = "redis"

    @property
    def url(self) -> str:
        return self.url_at(self.address.split()[0])

    def url_at(self, address: str) -> str:
        return f"redis://{address}:{self.port}/0"

    def launch(self) -> None:
        words = ["redis-server", *self.ports(), "--bind", *self.address.split(), "--save", ""]
        words += ["--appendonly", "no", "--daemonize", "yes", "--pidfile", str(self.pid_file)]
        words += ["--protected-mode", "no"]  # whoever reaches it is one of our tests
        words += ["--logfile", str(self.root / "log"), "--dir", str(self.root)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    def ports(self) -> list[str]:
        return ["--port", str(self.port)]

    def answers(self) -> bool:
        try:
            with socket.create_connection((self.address.split()[0], self.port), 0.5) as line:
                line.sendall(b"PING\r\n")
                return line.recv(5) == b"+PONG"
        except OSError:
            return False


class Rabbit(Broker):
    """Keeps its queues on disk, as a real one does. Takes 5 to 20 s to start."""

    kind = "rabbit"

    def __init__(self, root: Path, *, address: str = "127.0.0.1") -> None:
        super().__init__(root, address=address)
        self._epmd, self._dist = free_port(), free_port()
        (root / "home").mkdir(exist_ok=True)
        (root / "plugins").write_text("[].")
        (root / "rabbit.conf").write_text(
            "loopback_users = none\nvm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 50MB\n"
        )

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{self.address}:{self.port}"

    def environment(self) -> dict[str, str]:
        root = str(self.root)
        return {
            **os.environ,
            "HOME": root + "/home",
            # The node's name must resolve: that of this host may not.
            "RABBITMQ_NODENAME": f"hotmatte{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": self.address,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": root + "/mnesia",
            "RABBITMQ_LOG_BASE": root + "/log",
            "RABBITMQ_PID_FILE": str(self.pid_file),
            "RABBITMQ_CONFIG_FILE": root + "/rabbit",
            "RABBITMQ_ENABLED_PLUGINS_FILE": root + "/plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd),
            # It may be told to go although it has not yet noticed that the broker is gone.
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "true",
            "ERL_CRASH_DUMP_BYTES": "0",
        }

    def launch(self) -> None:
        subprocess.run(
            ["sh", "-c", f"setsid {RABBIT} >{self.root}/out 2>&1 </dev/null &"],
            check=True,
            env=self.environment(),
            cwd=self.root,
        )

    def answers(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), 0.5) as line:
                line.settimeout(2)
                line.sendall(b"AMQP\0\0\x09\x01")
                return bool(line.recv(8))
        except OSError:
            return False

    def close(self) -> None:
        self.kill()
        subprocess.run(
            ["epmd", "-kill"], check=False, env=self.environment(), stdout=subprocess.DEVNULL, timeout=20
        )


def missing(kind: str) -> str | None:
    """Why a broker cannot be started here; None if it can."""
    if kind == "redis":
        return None if shutil.which("redis-server") else "apt install redis-server"
    return None if RABBIT.exists() else "apt install rabbitmq-server"
