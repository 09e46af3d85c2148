"""What happens to a source once its matte is safe: the only code that moves or deletes one.

Never called before the journal says done. Moves first and looks then: between a look and a
deletion a camera or a sync client may have put a new photo under the old name. A death in
between leaves the photo under a name of ours, and `restore` brings that to its end.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Literal

from watcher.config import Folder
from watcher.domain import Source, Stamp
from watcher.errors import HostError
from watcher.ground import Ground
from watcher.litter import walk
from watcher.pipeline.publish import fsync_directory, make_folder

# Module-level so that tests can replace each step by sudden death, or by another device.
rename = os.rename
link = os.link
unlink = os.unlink

# aside: a photo on its way out, perhaps the only copy there is; copy: not whole yet, worth
# nothing. Never a name that publish.sweep would take for one of its own and remove.
LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<job>\d+)\.(?P<kind>aside|copy)\.hotmatte\.tmp", re.DOTALL)
# What every Linux file system allows for one name.
_NAME_BYTES = 255

_READ_ONLY = "Make it writable, or set `source: leave` for this folder; work resumes by itself."

_mutex = threading.Lock()
_leaving: set[Path] = set()
# Photos aside that could not be put back either, and where they belong.
_stranded: dict[Path, Path] = {}


def retire(source: Source, folder: Folder, *, job_id: int, ground: Ground | None = None) -> Path | None:
    """Leave, archive or delete `source`; where it was archived, or None.

    A source that is gone, or no longer the version that was done, or that another thread is
    retiring, is left alone. Raises HostError, with the source where it was.
    """
    path = folder.path / source.relpath
    with _alone(path) as ours:
        return _retire(path, source, folder, job_id, ground or Ground()) if ours else None


def leaves(folder: Folder) -> bool:
    """Whether `retire` has nothing to do there."""
    return folder.source == "leave" and not _stranded


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """False where somebody is at it: a job that ends and a scan may both want a photo to go."""
    with _mutex:
        ours = path not in _leaving
        if ours:
            _leaving.add(path)
    try:
        yield ours
    finally:
        if ours:
            _leaving.discard(path)


def _retire(path: Path, source: Source, folder: Folder, job_id: int, ground: Ground) -> Path | None:
    try:
        if _stranded:
            _bring_back(folder.path)
        if folder.source == "delete":
            _delete(path, source.stamp, job_id)
        elif folder.source == "archive" and folder.archive is not None:
            ground.check(folder.archive)
            return _archive(path, source, folder.archive, job_id, ground)
    except OSError as error:
        remedy = _READ_ONLY if error.errno == errno.EROFS else None
        raise HostError(f"cannot {folder.source} {path}: {error.strerror or error}", remedy=remedy) from error
    return None


def leftover(path: Path, job_id: int, kind: Literal["aside", "copy"] = "aside") -> Path:
    """The name of ours that stands for `path` meanwhile; a long one is cut."""
    rest = f".{job_id}.{kind}.hotmatte.tmp"
    return path.with_name("." + _cut(path.name, room=_NAME_BYTES - 1 - len(rest)) + rest)


def _delete(path: Path, stamp: Stamp, job_id: int) -> None:
    aside = leftover(path, job_id)
    # `aside` may be there already, from a deletion that failed half-way.
    if _is(path, stamp) and not _is_there(aside):
        rename(path, aside)
    with _or_back(aside, path):
        if not _is_there(aside):
            return
        if _is(aside, stamp):
            unlink(aside)
            fsync_directory(aside.parent)
        else:
            _name(aside, path)


def _archive(path: Path, source: Source, archive: Path, job_id: int, ground: Ground) -> Path | None:
    if not _is(path, source.stamp):
        return None
    folder = archive / PurePosixPath(source.relpath).parent
    make_folder(folder)
    aside = leftover(folder / path.name, job_id)
    try:
        rename(path, aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        target = _copy(path, folder, source.stamp, job_id)
        ground.check(archive)  # the only copy must not lie below a mount point
        _delete(path, source.stamp, job_id)
        return target
    with _or_back(aside, path):
        if not _is(aside, source.stamp):
            _name(aside, path)
            return None
        target = _name(aside, folder / path.name)
        fsync_directory(folder)
    return target


@contextmanager
def _or_back(aside: Path, path: Path) -> Iterator[None]:
    """What was moved aside is put back where that is refused what it was moved for."""
    try:
        yield
    except OSError:
        try:
            if _is_there(aside):
                _name(aside, path)
        except OSError:
            # Nothing can be moved at the moment: with the next photo of this folder, or the next start.
            with _mutex:
                _stranded[aside] = path
        raise


def _bring_back(folder: Path) -> None:
    with _mutex:
        mine = {aside: path for aside, path in _stranded.items() if path.is_relative_to(folder)}
    for aside, path in mine.items():
        if _is_there(aside):
            _name(aside, path)
        with _mutex:
            _stranded.pop(aside, None)


def _copy(path: Path, folder: Path, stamp: Stamp, job_id: int) -> Path:
    """Across devices: a durable, verified copy, under the name that it got."""
    copy = leftover(folder / path.name, job_id, "copy")
    try:
        copy.unlink(missing_ok=True)
        shutil.copyfile(path, copy, follow_symlinks=False)
        with suppress(
            PermissionError
        ):  # a share may say that another one owns what we write: its times are its own
            shutil.copystat(path, copy, follow_symlinks=False)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        if _digest(copy) != _digest(path) or not _is(path, stamp):
            raise OSError(errno.EIO, "the copy differs from the photo", str(folder))
        target = _name(copy, folder / path.name)
        fsync_directory(folder)
    finally:
        copy.unlink(missing_ok=True)
    return target


# --- After a death -------------------------------------------------------------------------


def restore(
    name: str,
    folder: Folder,
    *,
    done: Callable[[int], Source | None],
    beat: Callable[[], None] = lambda: None,
) -> int:
    """Bring to its end what a death interrupted in hot folder `name`; how many photos that were.

    `done`: the source of a job that is done, None for every other job. A photo aside that is
    the version that was done goes where it was going; any other one goes back to work, under
    its own name or, where that is taken, a numbered one. To be called before any job of
    this run. Raises HostError.
    """
    count = 0
    for root in filter(None, (folder.path, folder.archive)):
        try:
            for moved, match in _leftovers(root, beat, all_of_it=not folder.default_ignores):
                source = done(int(match["job"]))
                # Hot folders may share an archive: each looks after its own.
                if source is None or source.folder == name:
                    _resolve(moved, match, folder, source)
                    fsync_directory(moved.parent)
                    count += 1
        except OSError as error:
            where = error.filename2 or error.filename or root
            raise HostError(f"cannot restore photos in {root}: {where}: {error.strerror or error}") from error
    return count


def _leftovers(
    root: Path, beat: Callable[[], None], *, all_of_it: bool
) -> Iterator[tuple[Path, re.Match[str]]]:
    for place, names in walk(root, beat=beat, all_of_it=all_of_it):
        for name in names:
            if match := LEFTOVER.fullmatch(name):
                yield place / name, match


def _resolve(moved: Path, match: re.Match[str], folder: Folder, source: Source | None) -> None:
    own = moved.with_name(PurePosixPath(source.relpath).name if source else match["name"])
    archived = folder.archive is not None and moved.is_relative_to(folder.archive)
    if match["kind"] == "copy":
        unlink(moved)
    elif source is None:
        _name(moved, own)
    elif not _is(moved, source.stamp):
        _name(moved, folder.path / source.relpath)
    elif archived:
        _name(moved, own)
    else:
        unlink(moved)


# --- Names ---------------------------------------------------------------------------------


def _is(path: Path, stamp: Stamp) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return Stamp.of(status) == stamp


def _is_there(path: Path) -> bool:
    """Unlike os.path.lexists: raises OSError where that cannot be told, instead of "no"."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _name(moved: Path, wanted: Path) -> Path:
    """Give `moved` the name `wanted`, or else a numbered one; the name it got.

    Never replaces anything: unlike rename, a link fails where the name is taken. Where the
    very same photo is there already, that is enough.
    """
    make_folder(wanted.parent)
    for target in _numbered(wanted):
        try:
            link(moved, target, follow_symlinks=False)
        except FileExistsError:
            if not _same(moved, target):
                continue
        except OSError:  # a file system without hard links
            if _is_there(target):
                continue
            rename(moved, target)
            return target
        unlink(moved)
        return target
    raise FileExistsError(errno.EEXIST, "there are 99999 of that name already", str(wanted))


def _numbered(wanted: Path) -> Iterator[Path]:
    yield wanted
    for number in range(2, 100_000):
        rest = f"_{number}{wanted.suffix}"
        yield wanted.with_name(_cut(wanted.stem, room=_NAME_BYTES - len(os.fsencode(rest))) + rest)


def _cut(name: str, *, room: int) -> str:
    """The beginning of `name` that fits into `room` bytes."""
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return name


def _same(one: Path, other: Path) -> bool:
    """Whether these are one file, or equal in stamp and content."""
    with suppress(FileNotFoundError):
        if not _is(one, Stamp.of(other.lstat())) or other.is_symlink():
            return False
        return one.samefile(other) or _digest(one) == _digest(other)
    return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
