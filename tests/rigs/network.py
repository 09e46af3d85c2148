"""A host of its own on a cable of its own: a network namespace whose link can go down, or swallow everything.

The namespace lives as long as a process in it that ends with the tests: nothing is left behind.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence

_NUMBERS = itertools.count(os.getpid())
NETWORK = ipaddress.ip_network("198.18.0.0/15")  # set aside for tests (RFC 2544): nobody lives there
NOBODY = "02:00:00:00:00:99"  # frames to this address are nobody's


class Cable:
    """Between this host (`here`) and a namespace (`there`). Raises OSError or CalledProcessError where that is not allowed."""

    def __init__(self) -> None:
        number = next(_NUMBERS) % (NETWORK.num_addresses // 4)
        self.here, self.there = (str(NETWORK[4 * number + host]) for host in (1, 2))
        self._name, self._far = f"hm{number}", f"hn{number}"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert self._holder.stdout is not None
            if not self._holder.stdout.readline():
                raise PermissionError("unshare --net is not allowed")
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
        """What makes a command run at the other end."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]

    def _there(self, *words: str) -> None:
        _run([*self.prefix, "ip", *words])

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
        """The namespace goes with its last process, and both ends with it."""
        subprocess.run(["ip", "link", "del", self._name], stderr=subprocess.DEVNULL, check=False)
        self._holder.kill()
        self._holder.communicate()


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _run(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(f"{' '.join(words)}: {done.stderr.strip()}")


def unavailable() -> str | None:
    """Why there can be no cable here; None if there can."""
    if missing := [tool for tool in ("ip", "unshare", "nsenter") if not shutil.which(tool)]:
        return f"apt install iproute2 util-linux ({', '.join(missing)} not found)"
    try:
        Cable().close()
    except OSError as error:
        return f"network namespaces are not allowed here: {error}"
    return None
