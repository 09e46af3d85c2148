"""Paths that hold on every host: `share://NAME/...`, and the proof that two hosts mean one share.

Each share has a file at its root, made by the first watcher, with a token. A node that reads
another token, or none, looks at another place (or at an empty mount point), and must not work.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from watcher import __version__
from watcher.domain import Stamp
from watcher.errors import HostError, InputRejected
from watcher.fleet.messages import PROTOCOL, check_versions
from watcher.fleet_settings import SCHEME, STATE
from watcher.pipeline.obstacles import translated
from watcher.pipeline.publish import publish_one

PROBE = "share.json"
# File systems keep times to 2 s (FAT), 100 ns (SMB) or 1 ns: the same time may read differently here.
COARSEST_S = 2.0


class Shares:
    """The shares of this host by name, each with its mount."""

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        self._mounts = dict(mounts)
        # The innermost first, where one share is mounted below another.
        self._deepest = sorted(mounts.items(), key=lambda item: -len(item[1].parts))

    @property
    def names(self) -> list[str]:
        return list(self._mounts)

    def url(self, path: Path) -> str:
        """What other hosts call `path`. Any bytes of a name survive. Raises InputRejected."""
        for name, mount in self._deepest:
            if path.is_relative_to(mount):
                return f"{SCHEME}{name}/{quote(os.fsencode(path.relative_to(mount)))}"
        raise InputRejected(f"{path} is on none of the shares")

    def path(self, url: str) -> Path:
        """Where that is on this host. Raises HostError for a share it does not have, InputRejected."""
        name, _, quoted = url.removeprefix(SCHEME).partition("/")
        inner = PurePosixPath(os.fsdecode(unquote_to_bytes(quoted)))
        if not url.startswith(SCHEME) or inner.is_absolute() or ".." in inner.parts or "\0" in str(inner):
            raise InputRejected(f"{url} leads out of its share")
        if name not in self._mounts:
            raise HostError(
                f"this host has no share {name!r}", remedy="Add it to `shares` in the configuration."
            )
        return self._mounts[name] / inner

    def state(self, name: str) -> Path:
        """Where the fleet keeps its own files on this share."""
        return self._mounts[name] / STATE

    def token(self, name: str) -> str:
        """What the share calls itself. Raises HostError where this host cannot see it."""
        probe = self.state(name) / PROBE
        try:
            return str(json.loads(probe.read_text(encoding="utf-8"))["token"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            reason = getattr(error, "strerror", None) or "not what a watcher writes"
            raise HostError(
                f"share {name}: cannot read {probe}: {reason}",
                remedy=f"Mount it at {self._mounts[name]}, or correct `shares`; "
                "the watcher must have been started once with this share.",
            ) from error

    def check_token(self, name: str, expected: str) -> None:
        """Raises HostError unless this host sees the very share that `expected` is the token of."""
        if self.token(name) != expected:
            raise HostError(
                f"share {name}: at {self._mounts[name]} lies another share than the watcher's",
                remedy="Mount the same share there, or correct `shares`.",
            )

    def check_watcher(self, name: str) -> None:
        """Is the watcher of this share of our version? Raises ConfigError, HostError."""
        self.token(name)
        said = json.loads((self.state(name) / PROBE).read_text(encoding="utf-8"))
        check_versions(said.get("protocol"), str(said.get("hotmatte")), who=f"the watcher of share {name}")

    def mark(self, name: str) -> str:
        """The watcher's side: the token, made where there is none yet. Raises HostError."""
        mount, probe = self._mounts[name], self.state(name) / PROBE
        try:
            if not mount.is_dir():
                raise HostError(
                    f"share {name}: {mount} is not there", remedy="Mount it, or correct `shares`."
                )
            _begin(probe)
            token = self.token(name)
            if probe.read_text(encoding="utf-8") != _probe(token):  # another version's
                publish_one(probe, _probe(token).encode(), job_id=0)
        except OSError as error:
            raise translated(error, probe.parent) from error
        return token


def _begin(probe: Path) -> None:
    """Make it where there is none, whole from the first moment. Of several that do so at once the first one's stands."""
    standing = _standing(probe)
    if standing == "whole":
        return
    own = probe.with_name(f".{probe.name}.{secrets.token_hex(8)}")
    publish_one(own, _probe(secrets.token_hex(16)).encode(), job_id=0)
    try:
        if standing == "torn":
            own.replace(probe)
        else:
            _link(own, probe)
    finally:
        own.unlink(missing_ok=True)


def _standing(probe: Path) -> Literal["absent", "torn", "whole"]:
    try:
        json.loads(probe.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "absent"
    except ValueError:  # empty or cut: whoever made it ran out of room, or of power
        return "torn"
    return "whole"


def _link(own: Path, probe: Path) -> None:
    try:
        os.link(own, probe)
    except FileExistsError:
        pass
    except OSError:  # a file server without hard links
        own.replace(probe)


def as_seen(path: Path, expected: Stamp) -> Stamp:
    """The expected stamp as this mount would show it; the watcher compares exactly, before it publishes."""
    with suppress(OSError):
        seen = Stamp.of(path.lstat())
        if seen.size == expected.size and abs(seen.mtime_ns - expected.mtime_ns) < COARSEST_S * 1e9:
            return seen
    return expected


def _probe(token: str) -> str:
    return json.dumps({"token": token, "protocol": PROTOCOL, "hotmatte": __version__}) + "\n"


def watcher_id(state_dir: Path) -> str:
    """Who this watcher is, for as long as its journal lives."""
    path = state_dir / "fleet.id"
    with suppress(FileNotFoundError, UnicodeError):
        if re.fullmatch(r"[0-9a-f]{16}\n", said := path.read_text(encoding="ascii")):
            return said.strip()
    # None yet, or one that a full disk or a power cut left empty: two watchers without a name would be one.
    fresh = secrets.token_hex(8)
    publish_one(path, f"{fresh}\n".encode(), job_id=0)
    return fresh
