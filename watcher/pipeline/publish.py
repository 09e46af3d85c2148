"""Make results appear under their final names, whole, the sidecar last.

The order is a small redo log. All temporaries are durable before anything visible
changes; the sidecar's temporary says which outputs with which bytes belong together.
From the removal of an older sidecar to the rename of the new one, a death (or an error)
leaves that record behind, and `recover` carries the publication through: an older
version's outputs that were overwritten cannot be brought back, so forward is the only
way to a whole set. Before that, and where the record does not add up, it is undone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from watcher.litter import walk
from watcher.pipeline.obstacles import translated
from watcher.pipeline.sidecar import SIDECAR, Record, Written, record_in

# Module-level so that tests can replace each durable step by sudden death.
fsync = os.fsync
rename = os.replace
unlink = os.unlink

TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<job>\d+)\.hotmatte\.tmp", re.DOTALL)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def publish_all(
    folder: Path,
    base: str,
    outputs: Sequence[tuple[str, bytes | memoryview | Path]],
    *,
    sidecar: bytes,
    job_id: int,
    supersedes: Sequence[str] = (),
) -> None:
    """Publish `outputs` (suffix, content) and then their sidecar as `folder`/`base` + suffix.

    A content may be a Path: a durable file from elsewhere, which is moved. If that fails it is gone.

    `supersedes`: suffixes of an older version's outputs that vanish with it. Doing it again,
    after a death at any point, ends in the same state. Raises HostError, or InputRejected
    where a name cannot be had; then nothing has changed, or `recover` will finish it.
    """
    try:
        with (
            _closed(_folder(folder)) as place,
            _closed(_create(_temporary(folder, base + SIDECAR, job_id))) as record,
        ):
            _prepare(folder, place, base, outputs, sidecar, record, job_id)
            _commit(folder, place, base, [suffix for suffix, _ in outputs], supersedes, job_id)
    except OSError as error:
        raise translated(error, folder) from error


def publish_one(path: Path, content: bytes, *, job_id: int) -> None:
    """One file by itself, such as a report. Raises as publish_all does."""
    try:
        temporary = temporary_of(path, job_id)
        with _closed(_folder(path.parent)) as folder, _closed(_create(temporary)) as place:
            _fill(place, content)
            rename(temporary, path)
            _sync(folder)
    except OSError as error:
        with suppress(OSError):
            unlink(temporary_of(path, job_id))
        raise translated(error, path.parent) from error


def temporary_of(path: Path, job_id: int) -> Path:
    return Path(_temporary(path.parent, path.name, job_id))


def _temporary(folder: Path, name: str, job_id: int) -> str:
    """As text, which takes a fraction of the time that paths take to be put together and read again."""
    return f"{folder}/.{name}.{job_id}.hotmatte.tmp"


def fsync_directory(folder: Path) -> None:
    """Make the names in `folder` durable."""
    with _closed(os.open(folder, _FOLDER)) as place:
        _sync(place)


def _sync(folder: int) -> None:
    """Some network file systems have nothing like it."""
    try:
        fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def withdraw(folder: Path, base: str) -> None:
    """Remove a whole set of results, but what somebody has changed since. Raises HostError."""
    whole = folder / (base + SIDECAR)
    try:
        record = record_in(whole.read_bytes())
        if record is None:
            return
        # First, and durably: it must not vouch for files that are gone.
        _remove(whole)
        fsync_directory(folder)
        for output in record.outputs:
            if _is(folder / (base + output.suffix), output):
                _remove(folder / (base + output.suffix))
        fsync_directory(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise translated(error, folder) from error


# --- The steps -----------------------------------------------------------------------------


@contextmanager
def _closed(place: int) -> Iterator[int]:
    """In the end."""
    try:
        yield place
    finally:
        os.close(place)


def _folder(folder: Path) -> int:
    """`folder`, opened to be synchronised; made where it is missing."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.open(folder, _FOLDER)
    make_folder(folder)
    return os.open(folder, _FOLDER)


def _prepare(
    folder: Path,
    place: int,
    base: str,
    files: Sequence[tuple[str, bytes | memoryview | Path]],
    sidecar: bytes,
    record: int,
    job_id: int,
) -> None:
    """All temporaries, durable, the `record` filled last; or none.

    The record was made first, empty, and is locked until all is published: see `_live`.
    """
    try:
        for suffix, content in files:
            temporary = _temporary(folder, base + suffix, job_id)
            if not isinstance(content, Path) or not _moved(content, temporary):
                _write(temporary, content.read_bytes() if isinstance(content, Path) else content)
        _fill(record, sidecar)
        _sync(place)
    except OSError:
        # The record first: without the others it would promise too much.
        for suffix in (SIDECAR, *(suffix for suffix, _ in files)):
            with suppress(OSError):
                unlink(_temporary(folder, base + suffix, job_id))
        raise


def _commit(
    folder: Path, place: int, base: str, suffixes: Sequence[str], supersedes: Sequence[str], job_id: int
) -> None:
    """From durable temporaries to a published set; each step may have been done before."""
    whole = f"{folder}/{base}{SIDECAR}"
    if _remove(whole):
        # Durable before any output changes, or an old sidecar could vouch for new files.
        _sync(place)
    for suffix in supersedes:
        if suffix not in suffixes:
            _remove(f"{folder}/{base}{suffix}")
    for suffix in suffixes:
        with suppress(FileNotFoundError):  # renamed already, before a death
            rename(_temporary(folder, base + suffix, job_id), f"{folder}/{base}{suffix}")
    _sync(place)
    rename(_temporary(folder, base + SIDECAR, job_id), whole)
    _sync(place)


def _create(path: Path | str) -> int:
    """A new, empty file at `path`, locked: the lock dies with its holder, however that dies."""
    while True:
        try:
            # O_EXCL: never through a link that somebody left under our name.
            place = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            _remove(path)
            continue
        with suppress(OSError):  # a file system without locks: then nobody can tell us from a leftover
            fcntl.flock(place, fcntl.LOCK_EX)
        if os.fstat(place).st_nlink:
            return place
        os.close(place)  # swept away before it was locked


def _write(path: str, content: bytes | memoryview) -> None:
    with _closed(_create(path)) as place:
        _fill(place, content)


def _moved(path: Path, temporary: str) -> bool:
    """False where that is on another file system."""
    try:
        rename(path, temporary)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _fill(place: int, content: bytes | memoryview) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(place, left) :]
    fsync(place)


def _is_held(path: Path) -> bool:
    """Whether somebody, here or in another process, is still at work on this temporary."""
    try:
        place = _opened(path)
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's: not ours to judge
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    finally:
        os.close(place)
    return False


def _opened(path: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags)  # NFS grants this lock to writers only
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)


def _remove(path: Path | str) -> bool:
    try:
        unlink(path)
    except FileNotFoundError:
        return False
    return True


def make_folder(folder: Path) -> None:
    """`folder` and what is missing above it, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
        fsync_directory(folder.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))


# --- After a death -------------------------------------------------------------------------


def sweep(root: Path, *, beat: Callable[[], None] = lambda: None, all_of_it: bool = False) -> int:
    """Carry through or undo what dead runs left under `root`; the number of files dealt with.

    Those of a run that lives (`hotmatte matte` beside a daemon) are locked and left alone.
    Touches nothing but files named as our temporaries are, and what their records list.
    `beat`, `all_of_it`: see litter.walk.
    """
    count = 0
    try:
        for place, names in walk(root, beat=beat, all_of_it=all_of_it):
            try:
                count += _swept(place, names)
            except OSError as error:
                if place == root or not _refuses_alone(error, root):
                    raise  # else its photos will say so
    except OSError as error:
        raise translated(error, root) from error
    return count


def _swept(folder: Path, names: Sequence[str]) -> int:
    leftovers = _dead(folder, names)
    for match in leftovers:
        if match["name"].endswith(SIDECAR):
            recover(folder, match["name"].removesuffix(SIDECAR))
    for match in leftovers:
        _remove(folder / match[0])
    if leftovers:
        fsync_directory(folder)
    return len(leftovers)


def _dead(folder: Path, names: Sequence[str]) -> list[re.Match[str]]:
    """The temporaries among `names` that no living run is at work on."""
    found = [match for name in names if (match := TEMPORARY.fullmatch(name))]
    # One lock stands for a publication: that of its record.
    live = {match["job"] for match in found if _is_held(folder / match[0])}
    return [match for match in found if match["job"] not in live]


def _refuses_alone(error: OSError, root: Path) -> bool:
    """Whether a sub-folder may not be written to, such as a snapshot, though `root` may."""
    read_only = error.errno == errno.EROFS and os.access(root, os.W_OK)
    return isinstance(error, PermissionError) or read_only


def records(folder: Path, base: str) -> Iterator[tuple[Path, int, Record]]:
    """The records that publications of `base` left unfinished: temporary, job id, content."""
    name = base + SIDECAR
    with os.scandir(folder) as entries:
        found = [match for entry in entries if (match := TEMPORARY.fullmatch(entry.name))]
    for match in found:
        path = folder / match[0]
        if match["name"] != name:
            continue
        with suppress(FileNotFoundError):  # finished by another thread since it was listed
            if (record := record_in(path.read_bytes())) is not None:
                yield path, int(match["job"]), record


def settled(folder: Path, base: str, suffixes: Sequence[str], *, vary: bool = False) -> Record | None:
    """What the sidecar in place says, once a publication that was cut short has been dealt with.

    `vary`: an earlier version's suffixes may have been others, so looking for these is not
    enough. To be asked before `publish_all`. Raises as that does.
    """
    whole = folder / (base + SIDECAR)
    try:
        if not whole.exists():
            there = any((folder / (base + suffix)).exists() for suffix in suffixes)
            if not there and not (vary and folder.is_dir()):
                return None
            recover(folder, base)
            if not whole.exists():
                return None
        return record_in(whole.read_bytes())
    except OSError as error:
        raise translated(error, folder) from error


def recover(folder: Path, base: str) -> None:
    """Finish the publication of `base` that was cut short, or undo it. Raises OSError.

    With a sidecar in place nothing visible had changed yet. Without, every output must be
    there with the bytes the record says, under its final or its temporary name.
    """
    for path, job_id, record in list(records(folder, base)):
        if _is_held(path):
            continue
        suffixes = [output.suffix for output in record.outputs]
        if (folder / (base + SIDECAR)).exists():
            pass
        elif all(_has(folder, base, output, job_id) for output in record.outputs):
            with _closed(_folder(folder)) as place:
                _commit(folder, place, base, suffixes, record.supersedes, job_id)
            continue
        else:
            for output in record.outputs:
                if _is(folder / (base + output.suffix), output):
                    _remove(folder / (base + output.suffix))
        for suffix in suffixes:
            _remove(temporary_of(folder / (base + suffix), job_id))
        # Last: it alone tells what the others are.
        _remove(path)


def _has(folder: Path, base: str, output: Written, job_id: int) -> bool:
    target = folder / (base + output.suffix)
    return _is(temporary_of(target, job_id), output) or _is(target, output)


def _is(path: Path, output: Written) -> bool:
    """Whether these are the very bytes."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != output.size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == output.sha256
    except OSError:
        return False
