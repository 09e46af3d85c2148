"""The settings of a fleet: the broker, the shares, and what a hot folder needs for nodes to reach it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from watcher import places
from watcher.places import Problem
from watcher.strict import Strict

SCHEME = "share://"
# Where a fleet keeps its own files, at the root of each share.
STATE = ".hotmatte-fleet"

Where = Literal["here", "fleet"]
Wait = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]


class Queue(Strict):
    """The broker that carries jobs to the nodes, and how long to wait for whom."""

    url: str | None = Field(
        None,
        pattern=r"^(rediss?|amqps?)://[^\s]+$",
        description="redis://host:6379/0 or amqp://user:password@host:5672; $HOTMATTE_QUEUE_URL wins",
    )
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
