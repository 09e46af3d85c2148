"""Are a hot folder and the places for its results on the disks they were on? Looks at the mounts, not at the folders.

A result folder whose share is not mounted would be made anew on the disk below, where nobody
looks for it; and photos would be waited for in a mount point, where nobody puts them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from watcher.config import Folder
from watcher.ground import Ground, device_of
from watcher.intake.root import FolderAbsent
from watcher.mounts import mount_of
from watcher.places import own_places, within

# By the name of the setting, as the others.
_HOT = "path"


class Memory(Protocol):
    def folder_identity(self, folder: str) -> str | None: ...

    def remember_folder(self, folder: str, identity: str) -> None: ...

    def places(self, folder: str) -> Sequence[tuple[str, str]]: ...


class Footing:
    """Of one hot folder: what is remembered for each of its places is the mount point it lies on."""

    def __init__(self, name: str, folder: Folder, memory: Memory, ground: Ground) -> None:
        self._name = name
        self._root = folder.path
        self._places = own_places(folder)
        # Also where nothing in it is known any more, since all was archived: an empty mount point is no hot folder.
        self._mounted = [(_HOT, folder.path), *self._places]
        self._memory = memory
        self._ground = ground
        self._known: dict[str, str] = {}

    def forget(self) -> None:
        """Ask the memory again: somebody may have made it forget."""
        self._known.clear()

    def former(self) -> list[tuple[str, str]]:
        """(setting, path in the hot folder) of sub-folders that are no work: places of an earlier configuration.

        What lies there are results, and photos that are done.
        """
        root, own = os.path.realpath(self._root), {os.path.realpath(path) for _, path in self._places}
        found = []
        for setting, path in self._memory.places(self._name):
            if setting == _HOT:
                continue
            real = os.path.realpath(path)
            if real not in own and real != root and within(Path(real), Path(root)):
                found.append((setting, os.path.relpath(real, root)))
        return sorted(found)

    def require_mount(self) -> None:
        """Raises FolderAbsent where the mount that the hot folder was on is not there. Remembers nothing."""
        self._point_of(_HOT, self._root)

    def check(self) -> None:
        """Raises FolderAbsent where the mount that a place was on is not there."""
        for setting, path in self._mounted:
            device = device_of(path)
            point, before = self._point_of(setting, path)
            # By path: a place that was moved in the configuration is another one.
            key = f"{self._name} {setting} {path}"
            if before != point:
                self._memory.remember_folder(key, point)
            self._known[key] = point
            self._ground.note(path, point=point, device=device)

    def _point_of(self, setting: str, path: Path) -> tuple[str, str | None]:
        """The mount point that `path` lies on, and the one it is known to lie on."""
        real = os.path.realpath(path)
        point, key = mount_of(Path(real)).point, f"{self._name} {setting} {path}"
        before = self._known.get(key)
        if before != point:
            before = self._memory.folder_identity(key)
        if before is not None and len(before) > len(point) and within(Path(real), Path(before)):
            raise FolderAbsent(
                f"{path} ({setting}) is not mounted: it was on {before}",
                remedy="Mount it again; work resumes by itself. "
                f"If it shall stay like this: `hotmatte accept {self._name}`.",
            )
        return point, before
