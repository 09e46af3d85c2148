"""What it means that a result cannot be written. Pure."""

from __future__ import annotations

import errno
from pathlib import Path

from watcher.errors import HostError, InputRejected, WatcherError

# Not the machine's fault but the name's: something else is where this result has to go.
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})


def translated(error: OSError, folder: Path) -> WatcherError:
    """What an OSError under `folder`, an output, quarantine or archive folder, means."""
    if error.errno in _IN_THE_WAY:
        return in_the_way(error, folder)
    # Permission, too, is about the folder, as a rule: every other photo would meet it as well.
    return HostError(f"cannot write to {folder}: {error.strerror or error}")


def in_the_way(error: OSError, folder: Path) -> InputRejected:
    return InputRejected(
        f"its result cannot be written: {error.filename2 or error.filename or folder}: {error.strerror or error}",
        remedy="Rename the photo or clear what is in the way, then `hotmatte retry`.",
    )
