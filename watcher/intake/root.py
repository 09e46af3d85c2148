"""The hot folder itself: is it there, and is it the one we know? One stat, one look at the mounts."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from watcher import mounts
from watcher.errors import HostError


@dataclass(frozen=True, slots=True)
class Anchor:
    """What lies under a path now. `identity` outlives a remount; device and inode do not."""

    identity: str
    device: int
    inode: int


class FolderAbsent(HostError):
    """The hot folder is not there, cannot be read, or is another one than before."""


def anchor(path: Path) -> Anchor:
    """Raises FolderAbsent. May hang on a dead share: call it where only that folder waits."""
    try:
        status = path.stat()
    except OSError as error:
        raise FolderAbsent(
            f"{path} cannot be reached: {error.strerror or error}",
            remedy="Mount or create it; watching resumes by itself.",
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise FolderAbsent(
            f"{path} is not a folder", remedy="Put a folder there; watching resumes by itself."
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise FolderAbsent(
            f"{path} cannot be read: permission denied",
            remedy="Let the user of the service read and enter it; watching resumes by itself.",
        )
    return Anchor(mounts.identity(Path(os.path.realpath(path))), status.st_dev, status.st_ino)


def stranger(path: Path, name: str, *, expected: str, found: str) -> FolderAbsent:
    """The error for a folder that lies on another file system than the one remembered."""
    return FolderAbsent(
        f"{path} is another folder than before (now {found}; before {expected})",
        remedy="Mount the share again; watching resumes by itself. If the same photos lie on another disk or server "
        f"now: `hotmatte accept {name}`.",
    )
