"""Put a photo into a hot folder, whole or not at all, and durable: as `submit` and uploads do."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from watcher.errors import HostError
from watcher.mounts import identity, is_same

CHUNK = 1 << 20


def check_known(name: str, folder: Path, remembered: str | None) -> None:
    """`remembered`: what lay under hot folder `name` when it was last watched. Raises HostError for another thing.

    An empty mount point takes photos as well, and hides them once the share is back.
    """
    found = identity(Path(os.path.realpath(folder)))
    if remembered is not None and not is_same(remembered, found):
        raise HostError(
            f"nothing was put into {folder}: it is another folder than before (now {found}; before {remembered})",
            remedy="Mount the share again. If the folder has moved on purpose: "
            f"`hotmatte accept {name}`, then `hotmatte rescan`.",
        )


def place(source: IO[bytes], folder: Path, name: str) -> Path:
    """Copy `source` into `folder` as `name`; where that is taken, a number is added.

    Safe on disk, and so is its name, when this returns. Raises HostError.
    """
    return _place(source, folder, name, tries=9_999)


def place_as(source: IO[bytes], folder: Path, name: str) -> Path | None:
    """The same under this very name; None where a file of that name has content already.

    An empty file is what a death between two steps left behind, and is replaced.
    """
    try:
        return _place(source, folder, name, tries=1)
    except FileExistsError:
        if (folder / name).stat().st_size:
            return None
        (folder / name).unlink(missing_ok=True)
        source.seek(0)
        return place_as(source, folder, name)


def _place(source: IO[bytes], folder: Path, name: str, *, tries: int) -> Path:
    # Named so that no hot folder takes it: see intake/names.py. Not by the process id: containers share those.
    temporary = folder / f".{name[:50]}.{secrets.randbelow(10**12)}.submit.tmp"
    try:
        with temporary.open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
            target.flush()
            if os.geteuid() == 0:
                _open_as(folder, target.fileno())
            os.fsync(target.fileno())
        path = _reserve(folder, name, tries)
        temporary.replace(path)
        _fsync_folder(folder)
    except FileExistsError:
        temporary.unlink(missing_ok=True)
        raise
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise HostError(f"cannot write {name} into {folder}: {error.strerror or error}") from error
    return path


def _open_as(folder: Path, number: int) -> None:
    """What root submits must be readable for the service, whatever root's umask: it is as open as its folder."""
    status = folder.stat()
    with suppress(OSError):  # a share may not let root give files away
        os.fchown(number, status.st_uid, status.st_gid)
        os.fchmod(number, status.st_mode & 0o666)


def _reserve(folder: Path, name: str, tries: int) -> Path:
    """An empty file under a free name: what is empty is never taken for a photo."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (Path would not keep odd names)
    for number in range(1, tries + 1):
        target = folder / (name if number == 1 else f"{stem}_{number}{suffix}")
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return target
    if tries == 1:
        raise FileExistsError(errno.EEXIST, "there is one already", str(folder / name))
    raise OSError(errno.EMLINK, "too many files of this name")


def _fsync_folder(folder: Path) -> None:
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(place)
    except OSError as error:
        # Some network file systems have nothing like it.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(place)
