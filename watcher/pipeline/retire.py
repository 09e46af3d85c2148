"""What happens to a source once its matte is safe: the only code that moves or deletes one.

Never called before the journal says done. Moves first and looks then: between a look and a
deletion a camera or a sync client may have put a new photo under the old name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path, PurePosixPath

from watcher.config import Folder
from watcher.domain import Source, Stamp
from watcher.errors import HostError
from watcher.pipeline.publish import fsync_directory, temporary_of

# Module-level so that tests can replace it by sudden death, or by another device.
rename = os.rename


def retire(source: Source, folder: Folder, *, job_id: int) -> Path | None:
    """Leave, archive or delete `source`; where it was archived, or None.

    A source that is gone, or no longer the version that was done, is left alone. Raises
    HostError, with the source where it was.
    """
    path = folder.path / source.relpath
    try:
        if folder.source == "delete":
            _delete(path, source.stamp, job_id)
        elif folder.source == "archive" and folder.archive is not None:
            return _archive(path, source, folder.archive, job_id)
    except OSError as error:
        raise HostError(f"cannot {folder.source} {path}: {error.strerror or error}") from error
    return None


def _delete(path: Path, stamp: Stamp, job_id: int) -> None:
    aside = temporary_of(path, job_id)
    # `aside` may be there already, from before a death.
    if _is(path, stamp) and not aside.exists():
        rename(path, aside)
    if not aside.exists():
        return
    if _is(aside, stamp):
        aside.unlink()
        fsync_directory(aside.parent)
    else:
        _put_back(aside, path)


def _archive(path: Path, source: Source, archive: Path, job_id: int) -> Path | None:
    if not _is(path, source.stamp):
        return None
    folder = archive / PurePosixPath(source.relpath).parent
    folder.mkdir(parents=True, exist_ok=True)
    target = _free_name(folder, path.name)
    try:
        moved = _move(path, target, source.stamp, job_id)
        fsync_directory(folder)
    except BaseException:
        _remove_placeholder(target)
        raise
    return target if moved else None


def _move(path: Path, target: Path, stamp: Stamp, job_id: int) -> bool:
    """Whether what lies at `target` now is the version of `stamp`; another one is put back."""
    try:
        rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_away(path, target, stamp, job_id)
        return True
    if _is(target, stamp):
        return True
    _put_back(target, path)
    return False


def _is(path: Path, stamp: Stamp) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return Stamp.of(status) == stamp


def _free_name(folder: Path, name: str) -> Path:
    """A name nobody has, held by an empty file: a rename may then replace only our own."""
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    for number in range(1, 100_000):
        target = folder / (name if number == 1 else f"{stem}_{number}{dot}{ending}")
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            continue
        return target
    raise FileExistsError(errno.EEXIST, f"{name} is archived 99999 times already", str(folder))


def _remove_placeholder(target: Path) -> None:
    with suppress(OSError):
        if target.lstat().st_size == 0:
            target.unlink()


def _copy_away(path: Path, target: Path, stamp: Stamp, job_id: int) -> None:
    """Across devices: a durable, verified copy first, then `path` is deleted as `delete` does."""
    temporary = temporary_of(target, job_id)
    try:
        shutil.copy2(path, temporary, follow_symlinks=False)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if _digest(temporary) != _digest(path) or not _is(path, stamp):
            raise OSError(errno.EIO, "the copy differs from the photo", str(target))
        rename(temporary, target)
        fsync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
    _delete(path, stamp, job_id)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_back(moved: Path, path: Path) -> None:
    """Another version than the one that was done: it is work, and belongs into the hot folder."""
    try:
        # Unlike rename, a link never replaces what may have arrived there meanwhile.
        os.link(moved, path)
    except FileExistsError:
        return
    except OSError:
        if not path.exists():
            rename(moved, path)
        return
    moved.unlink()
