"""Hosts on this machine: each with a name, a network link and mounts of its own, by namespaces.

Processes and files are shared with this one. A namespace lives as long as a process in it that ends with the tests: nothing is left behind.
"""

from __future__ import annotations

import ipaddress
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

NETWORK = ipaddress.ip_network("198.18.0.0/15")  # set aside for tests (RFC 2544): nobody lives there
NOBODY = "02:00:00:00:00:99"  # frames to this address are nobody's


class Host:
    """`here` is this machine's end of its cable, `there` the host's own. Raises OSError where that is not allowed."""

    def __init__(self, name: str = "far") -> None:
        number = _free_number()
        self.here, self.there = (str(NETWORK[4 * number + host]) for host in (1, 2))
        self._name, self._far = f"hm{number}", f"hn{number}"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-c", f"hostname {name} && echo && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert self._holder.stdout is not None
            if not self._holder.stdout.readline():
                raise PermissionError("unshare --net --mount --uts is not allowed")
            self._lay()
        except BaseException:
            self.close()
            raise

    def _lay(self) -> None:
        _ip("link", "add", self._name, "type", "veth", "peer", "name", self._far)
        _ip("link", "set", self._far, "netns", str(self._holder.pid))
        _ip("addr", "add", f"{self.here}/30", "dev", self._name)
        _ip("link", "set", self._name, "up")
        self._there("addr", "add", f"{self.there}/30", "dev", self._far)
        self._there("link", "set", "lo", "up")
        self._there("link", "set", self._far, "up")

    @property
    def prefix(self) -> list[str]:
        """What makes a command run there; it begins in the root folder."""
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", "--uts", "--"]

    def _there(self, *words: str) -> None:
        _run([*self.prefix, "ip", *words])

    def mount(self, folder: Path, place: Path) -> None:
        """`folder` lies at `place` from now on, there and nowhere else."""
        _run([*self.prefix, "mount", "--bind", str(folder), str(place)])

    def unmount(self, place: Path) -> None:
        """Also from under those who use it."""
        _run([*self.prefix, "umount", "--lazy", str(place)])

    def cut(self, way: str) -> None:
        """`down`: the far host's link goes down, as when its switch loses power; `silent`: links stay
        up, and whatever is sent arrives nowhere."""
        if way == "down":
            self._there("link", "set", self._far, "down")
            return
        _ip("neigh", "replace", self.there, "lladdr", NOBODY, "nud", "permanent", "dev", self._name)
        self._there("neigh", "replace", self.here, "lladdr", NOBODY, "nud", "permanent", "dev", self._far)

    def mend(self, way: str) -> None:
        if way == "down":
            self._there("link", "set", self._far, "up")
            return
        _ip("neigh", "del", self.there, "dev", self._name)
        self._there("neigh", "del", self.here, "dev", self._far)

    def close(self) -> None:
        """Its mounts and the cable go with the last process that runs there."""
        subprocess.run(["ip", "link", "del", self._name], stderr=subprocess.DEVNULL, check=False)
        self._holder.kill()
        self._holder.communicate()


def _free_number() -> int:
    """Of a cable. By chance, as other tests lay theirs at the same time."""
    for number in random.sample(range(NETWORK.num_addresses // 4), 100):
        if not Path(f"/sys/class/net/hm{number}").exists():
            return number
    raise PermissionError("no free number for a cable")


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _run(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(f"{' '.join(words)}: {done.stderr.strip()}")


def unavailable() -> str | None:
    """Why there can be no cable here; None if there can."""
    if missing := [
        tool for tool in ("ip", "unshare", "nsenter", "mount", "hostname") if not shutil.which(tool)
    ]:
        return f"apt install iproute2 util-linux mount hostname ({', '.join(missing)} not found)"
    try:
        Host().close()
    except OSError as error:
        return f"namespaces are not allowed here: {error}"
    return None
