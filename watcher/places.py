"""Which folders must not meet: results that land in a hot folder would become work.

Looks through symbolic links, but does not wait for a share that does not answer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from watcher.mounts import mount_of

Problem = tuple[tuple[str, ...], str]

# Resolving links asks the file system, and a dead share may never answer.
PATIENCE = 3.0


class Watched(Protocol):
    """What this module needs of a hot folder."""

    @property
    def path(self) -> Path: ...
    @property
    def recursive(self) -> bool: ...
    @property
    def output(self) -> Path: ...
    @property
    def archive(self) -> Path | None: ...
    @property
    def quarantine(self) -> Path | None: ...


def absolute(base: Path, path: Path) -> Path:
    """`path` from `base`, `~` expanded, links left alone."""
    return Path(os.path.normpath(base / os.path.expanduser(path)))  # noqa: PTH111  (raises for an unknown user)


def within(path: Path, outer: Path) -> bool:
    return path == outer or outer in path.parents


def own_places(folder: Watched) -> list[tuple[str, Path]]:
    """Where a hot folder's results and photos go, by the name of the setting."""
    named = (("output", folder.output), ("archive", folder.archive), ("quarantine", folder.quarantine))
    return [(key, place) for key, place in named if place is not None]


def check(base: Path, state_dir: Path, folders: Mapping[str, Watched]) -> Iterator[Problem]:
    """Every pair of places that must not meet, and a state folder that SQLite cannot live in."""
    wanted = [state_dir]
    for folder in folders.values():
        wanted += [folder.path, *(place for _, place in own_places(folder))]
    real = resolve(absolute(base, path) for path in wanted)
    roots = {name: real[absolute(base, folder.path)] for name, folder in folders.items()}
    yield from _check_roots(roots, folders)
    yield from _check_state(real[absolute(base, state_dir)], roots)
    for name, folder in folders.items():
        for key, written in own_places(folder):
            place = real[absolute(base, written)]
            yield from ((("folders", name, key), words) for words in _meets(name, place, roots))


def _check_roots(roots: Mapping[str, Path], folders: Mapping[str, Watched]) -> Iterator[Problem]:
    for name, root in roots.items():
        for other, outer in roots.items():
            where = ("folders", name, "path")
            if root == outer and name > other:
                yield where, f"{root} is hot folder {other!r} already"
            elif root != outer and within(root, outer) and folders[other].recursive:
                yield where, f"{root} lies in hot folder {other!r}, which watches sub-folders"


def _check_state(state: Path, roots: Mapping[str, Path]) -> Iterator[Problem]:
    mount = mount_of(state)
    if mount.is_network:
        yield (
            ("state_dir",),
            f"{state} is on a network file system ({mount.kind}): SQLite's locks are not safe there, name a local folder",
        )
    for owner, root in roots.items():
        if within(state, root):
            yield ("state_dir",), f"{state} lies in hot folder {owner!r}"


def _meets(name: str, place: Path, roots: Mapping[str, Path]) -> Iterator[str]:
    """What is wrong with `place`, which belongs to hot folder `name`."""
    for owner, root in roots.items():
        if place == root:
            yield f"{place} is hot folder {owner!r} itself: results would become work"
        elif within(place, root) and owner != name:
            yield f"{place} lies in hot folder {owner!r}: results would become work"
        elif within(root, place):
            yield f"hot folder {owner!r} ({root}) lies in {place}: results could become work"


def resolve(paths: Iterable[Path]) -> dict[Path, Path]:
    """Each path with its links followed; as it is where the file system does not answer in time."""
    real: dict[Path, Path] = {}

    def follow(path: Path) -> None:
        real[path] = Path(os.path.realpath(path))

    wanted = list(dict.fromkeys(paths))
    threads = [threading.Thread(target=follow, args=(path,), daemon=True) for path in wanted]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {path: real.get(path, path) for path in wanted}
