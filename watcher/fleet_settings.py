"""The settings of a fleet: the broker, the shares, and what a hot folder needs for nodes to reach it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import Field

from watcher import places
from watcher.places import Problem
from watcher.strict import Place, Strict

SCHEME = "share://"
# Where a fleet keeps its own files, at the root of each share.
STATE = ".hotmatte-fleet"

# Settings of the queue that name files.
FILES = ("ca_file", "cert_file", "key_file")

Where = Literal["here", "fleet"]
Wait = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]


class Queue(Strict):
    """The broker that carries jobs to the nodes, and how long to wait for whom."""

    url: str | None = Field(
        None,
        pattern=r"^(rediss?|amqps?)://[^\s]+$",
        description="redis://host:6379/0 or amqp://user:password@host:5672; $HOTMATTE_QUEUE_URL wins",
    )
    ca_file: Place | None = Field(
        None,
        description="certificate (PEM) of who signed the broker's, for rediss:// and amqps://; unset: whom this host trusts",
    )
    cert_file: Place | None = Field(
        None, description="this host's own certificate (PEM), for a broker that asks its clients for one"
    )
    key_file: Place | None = Field(None, description="the key (PEM) of cert_file, if it is not in there")
    in_flight: Annotated[int, Field(ge=1, le=100_000)] = Field(
        64, description="photos that are with the nodes, or wait in the broker, at one time"
    )
    lost_after_s: Wait = Field(15.0, description="a node that is silent for so long is taken for dead")
    resend_after_s: Wait = Field(
        60.0, description="a photo that others have overtaken and no node holds is sent again after so long"
    )


class Placed(Protocol):
    """What this module needs of a hot folder."""

    @property
    def path(self) -> Path: ...
    @property
    def output(self) -> Path: ...
    @property
    def where(self) -> Where: ...


class Shared(Protocol):
    """What this module needs of the settings."""

    @property
    def folders(self) -> Mapping[str, Placed]: ...
    @property
    def shares(self) -> Mapping[str, Path]: ...
    @property
    def queue(self) -> Queue: ...


def broker_url(queue: Queue) -> str | None:
    """The environment's, so that a password need not lie in the configuration; or the setting's."""
    return os.environ.get("HOTMATTE_QUEUE_URL") or queue.url


def fault_of(url: str) -> str | None:
    """What is wrong with the address of a broker; never says the address, which holds a password."""
    if not re.match(r"(rediss?|amqps?)://[^\s]+$", url):
        return "must begin with redis://, rediss://, amqp:// or amqps://, and hold no spaces"
    try:
        parts = urlsplit(url)
        fine = parts.port != 0 and not parts.fragment and "@" not in parts.path + parts.query
    except ValueError:
        fine = False
    if not fine:
        return "cannot be read: write a # in the password as %23, / as %2F, ? as %3F, [ as %5B; the port is a number"
    if parts.scheme.startswith("redis") and not re.fullmatch(r"/?\d*/?", parts.path):
        return "names a database of Redis that is no number, such as redis://host:6379/0"
    return None


def _check_broker(queue: Queue) -> Iterator[Problem]:
    url = broker_url(queue)
    if url is not None and (fault := fault_of(url)) is not None:
        yield ("queue", "url"), f"{'$HOTMATTE_QUEUE_URL ' if url != queue.url else ''}{fault}"
    if queue.key_file and not queue.cert_file:
        yield ("queue", "key_file"), "is the key of no certificate: set cert_file"
    for key in ("ca_file", "cert_file"):
        if getattr(queue, key) and url is not None and not url.startswith(("rediss:", "amqps:")):
            yield (
                ("queue", key),
                "has no effect: the broker's address begins with neither rediss:// nor amqps://",
            )


def without_shares(raw: Any) -> tuple[Any, list[Problem]]:
    """`raw` with `share://NAME/...` in the hot folders replaced by the paths of this host."""
    if not isinstance(raw, dict) or not isinstance(raw.get("folders"), dict):
        return raw, []
    mounts = raw.get("shares")
    mounts = mounts if isinstance(mounts, dict) else {}
    problems: list[Problem] = []
    folders = {}
    for name, folder in raw["folders"].items():
        folders[name] = folder
        if isinstance(folder, dict):
            found = {key: _local(value, mounts) for key, value in folder.items()}
            problems += [
                (("folders", str(name), str(key)), f"{folder[key]} names a share that `shares` does not")
                for key, value in found.items()
                if value is None and folder[key] is not None
            ]
            folders[name] = found
    return {**raw, "folders": folders}, problems


def _local(value: Any, mounts: Mapping[Any, Any]) -> Any:
    """`value` itself unless it begins with share://; None where the share is not known."""
    if not isinstance(value, str) or not value.startswith(SCHEME):
        return value
    share, _, inner = value.removeprefix(SCHEME).partition("/")
    return None if share not in mounts else os.path.join(str(mounts[share]), inner)  # noqa: PTH118


def check_fleet(settings: Shared | None, base: Path) -> Iterator[Problem]:
    """What keeps nodes from working for the hot folders that ask for them."""
    if settings is None:
        return
    yield from _check_broker(settings.queue)
    roots = {name: places.absolute(base, path) for name, path in settings.shares.items()}
    for name, folder in settings.folders.items():
        if folder.where != "fleet":
            continue
        if broker_url(settings.queue) is None:
            yield ("folders", name, "where"), "a fleet needs a broker: set queue.url"
        for key, path in (("path", folder.path), ("output", folder.output)):
            place = places.absolute(base, path)
            if place in roots.values():
                yield ("folders", name, key), f"{place} is a whole share: name a folder on it"
            elif not any(places.within(place, root) for root in roots.values()):
                yield ("folders", name, key), f"{place} is on none of the `shares`: no node could reach it"
