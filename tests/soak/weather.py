"""What befalls a daemon: deaths, stops, full disks, shares that go away. Each is over when it returns."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from daemonrig import DaemonRig
from writers import Gate

# The hot folder that is on a share, and whose results go to a small disk, where we may mount.
SHARED = "keep"
DISK_MB = 16


class Places:
    """The parts of the file system that can be taken away. Without the right to mount: by rename."""

    def __init__(self, rig: DaemonRig, *, mounts: bool) -> None:
        self._mounts = mounts
        self._hot, self.out = rig.hot(SHARED), rig.out(SHARED)
        self._share = rig.root / "share"
        for path in (self._hot, self.out, self._share):
            path.mkdir(parents=True)
        if mounts:
            _run("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.out))
            _run("mount", "--bind", str(self._share), str(self._hot))

    def take_away(self) -> None:
        """A share: what is left is its empty mount point. Otherwise nothing is left."""
        if self._mounts:
            _run("umount", "--lazy", str(self._hot))
        else:
            self._hot.rename(self._share / "away")

    def bring_back(self) -> None:
        if self._mounts:
            _run("mount", "--bind", str(self._share), str(self._hot))
        else:
            (self._share / "away").rename(self._hot)

    def close(self) -> None:
        if self._mounts:
            _run("umount", "--lazy", str(self._hot), str(self.out))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is left on the disk of the results."""
        ballast = self.out / ".ballast"
        # Unbuffered: what a buffer still holds would be written, and refused, once more at the end.
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        try:
            yield
        finally:
            ballast.unlink()


class Weather:
    """`strike` lets one fault happen, from the list that is given; takes up to a few seconds."""

    def __init__(self, rig: DaemonRig, chance: random.Random, gates: dict[str, Gate], places: Places) -> None:
        self._rig = rig
        self._chance = chance
        self._gates = gates
        self._places = places
        self._pause = threading.Event()
        self.struck: Counter[str] = Counter()

    def strike(self, faults: list[Callable[[Weather], None]]) -> None:
        fault = self._chance.choice(faults)
        fault(self)
        self.struck[fault.__name__] += 1

    def wait(self, least: float, most: float) -> None:
        self._pause.wait(self._chance.uniform(least, most))

    # --- Faults ---------------------------------------------------------------------------

    def kill_daemon(self) -> None:
        self._rig.kill()
        self.wait(0.0, 1.0)
        self._rig.start()

    def stop_daemon(self) -> None:
        """As an upgrade does; it must end with 0."""
        status = self._rig.stop()
        assert status == 0, f"the daemon ended with {status}:\n{self._rig.log()[-4000:]}"
        self._rig.start()

    def kill_worker(self) -> None:
        for worker in self._rig.wait(self._rig.workers, timeout=20):
            with suppress(psutil.NoSuchProcess):
                worker.kill()

    def kill_readers(self) -> None:
        """Those that decode photos; there may be none at the moment."""
        for reader in self._rig.readers():
            with suppress(psutil.NoSuchProcess):
                reader.kill()

    def freeze_daemon(self) -> None:
        self._frozen(self._rig.pid)

    def freeze_worker(self) -> None:
        for worker in self._rig.wait(self._rig.workers, timeout=20):
            self._frozen(worker.pid)

    def _frozen(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            self.wait(0.2, 2.0)
        finally:
            os.kill(pid, signal.SIGCONT)

    def reload(self) -> None:
        done = self._rig.hotmatte("reload")
        assert done.returncode == 0, done.stderr

    def fill_disk(self) -> None:
        with self._places.full():
            self.wait(1.0, 3.0)

    def take_folder_away(self) -> None:
        self._gates[SHARED].close()
        self._places.take_away()
        self.wait(1.0, 3.0)
        self._places.bring_back()
        self._gates[SHARED].open()


# While it is calm the same daemon and the same worker live on: only then memory means something.
CALM = [
    Weather.kill_readers,
    Weather.freeze_daemon,
    Weather.freeze_worker,
    Weather.reload,
    Weather.take_folder_away,
]
STORM = [*CALM, Weather.kill_daemon, Weather.kill_daemon, Weather.kill_worker, Weather.stop_daemon]


def may_mount() -> bool:
    """In a mount namespace of our own (unshare -m), where nothing is left behind whatever happens."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        return False
    return Path("/proc/self/ns/mnt").readlink() != Path(f"/proc/{os.getppid()}/ns/mnt").readlink()


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
