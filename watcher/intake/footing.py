"""Are the places for results on the disks they were on? Looks at the mounts, not at the folders.

A result folder whose share is not mounted would be made anew on the disk below, where nobody
looks for it.
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
            real = os.path.realpath(path)
            if real not in own and real != root and within(Path(real), Path(root)):
                found.append((setting, os.path.relpath(real, root)))
        return sorted(found)

    def check(self) -> None:
        """Raises FolderAbsent where the mount that a place was on is not there."""
        for setting, path in self._places:
            device = device_of(path)
            real = os.path.realpath(path)
            point = mount_of(Path(real)).point
            # By path: a place that was moved in the configuration is another one.
            key = f"{self._name} {setting} {path}"
            if self._known.get(key) == point:
                self._ground.note(path, point=point, device=device)
                continue
            before = self._memory.folder_identity(key)
            if before is not None and len(before) > len(point) and within(Path(real), Path(before)):
                raise FolderAbsent(
                    f"{path} ({setting}) is not mounted: it was on {before}",
                    remedy="Mount it again; work resumes by itself. "
                    f"If it shall stay like this: `hotmatte accept {self._name}`.",
                )
            if before != point:
                self._memory.remember_folder(key, point)
            self._known[key] = point
            self._ground.note(path, point=point, device=device)
