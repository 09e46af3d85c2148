"""Folders that systems and servers keep among other people's files: snapshots, bins, thumbnails. Pure but for `walk`.

Nothing in them is work, and nothing is a result: a snapshot holds what was there yesterday, and cannot be written.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDERS = (
    "lost+found",
    "@eaDir",
    "@tmp",
    "@Recycle",
    "#recycle",
    ".recycle",
    "$RECYCLE.BIN",
    ".Trash*",
    "#snapshot",
    "~snapshot",
    "@Recently-Snapshot",
    ".snapshot",
    ".snapshots",
    ".zfs",
    ".stversions",
    ".@__thumb",
    "System Volume Information",
    "__MACOSX",
)
_matches = re.compile("|".join(map(fnmatch.translate, FOLDERS)), re.IGNORECASE).match


def is_litter(name: str) -> bool:
    """Whether a folder of this name belongs to a system or a server."""
    return _matches(name) is not None


def walk(
    root: Path, *, beat: Callable[[], None] = lambda: None, all_of_it: bool = False
) -> Iterator[tuple[Path, list[str]]]:
    """Each folder from `root` on that may hold files of ours, and the names of files in it.

    `all_of_it`: those named like litter too. A sub-folder that we may not list is one that we never put
    anything into. `beat` is called for each folder: a sign of life. Raises OSError.
    """

    def complain(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            return
        if not isinstance(error, PermissionError) or error.filename == str(root):
            raise error

    for place, folders, names in os.walk(root, onerror=complain):
        beat()
        if not all_of_it:
            folders[:] = [name for name in folders if not is_litter(name)]
        yield Path(place), names
