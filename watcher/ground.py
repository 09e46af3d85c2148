"""Do the places for results still lie on the mounts they lay on when they were looked at last?

To be asked before and after something is written there. Whoever watches a folder looks every few
seconds; a share that goes in between would leave results, and photos that are archived, on the disk
below its mount point, where nobody looks for them once it is back.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from watcher.errors import HostError
from watcher.mounts import is_within, mount_of


class Ground:
    """What is not known to it counts as firm. Thread-safe: each of its steps is one of a dictionary's."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[str, int]] = {}

    def note(self, path: Path, *, point: str, device: int) -> None:
        """`path` lies on the mount `point`, as it shall; `device` was asked for before that was found out."""
        self._known[path] = point, device

    def check(self, path: Path | None) -> None:
        """One stat, as a rule. Raises HostError where `path` lies on the disk below its mount point."""
        if path is None or (known := self._known.get(path)) is None:
            return
        point, before = known
        device = device_of(path)
        if device == before:
            return
        real = os.path.realpath(path)
        if is_within(real, point) and len(mount_of(Path(real)).point) < len(point):
            raise HostError(
                f"{path} is not mounted: it was on {point}", remedy="Mount it again; work resumes by itself."
            )
        self._known[path] = point, device  # mounted anew


def device_of(path: Path) -> int:
    """st_dev of `path`, or of the nearest folder above it that is there. Raises HostError."""
    for place in itertools.chain((path,), path.parents):
        try:
            return os.stat(place).st_dev  # noqa: PTH116  (half as much of Python as its own stat)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise HostError(f"cannot reach {path}: {error.strerror or error}") from error
    return 0
