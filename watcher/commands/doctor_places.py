"""`hotmatte doctor`, on folders: are they there, may we write, is there room, do clocks agree."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from watcher.commands.findings import Finding, fail, ok, warn
from watcher.config import Folder
from watcher.intake.names import Rules
from watcher.mounts import Mount, mount_of
from watcher.places import own_places

LIMITS = Path("/proc/sys/fs/inotify")
LOW_BYTES = 2 << 30
LOW_INODES = 10_000
# Between this machine and a file server: below this nobody will notice.
SKEW_S = 5.0


def hot_folder(name: str, folder: Folder) -> list[Finding]:
    """The folder itself and how it would be observed."""
    path = folder.path
    if not path.exists():
        if folder.create:
            return [ok(name, f"{path} will be made at start"), *_buildable(name, path)]
        return [fail(name, f"{path} is not there", "Mount or create it. Until then this folder is offline.")]
    if not path.is_dir():
        return [fail(name, f"{path} is not a folder", "Put a folder there, or name another `path`.")]
    try:
        with os.scandir(path) as entries:
            next(entries, None)
    except PermissionError:
        remedy = f"Let the user of the daemon (uid {os.geteuid()}) read and enter it."
        return [fail(name, f"{path} cannot be listed: permission denied", remedy)]
    mount = mount_of(Path(os.path.realpath(path)))
    found = [ok(name, f"{path} is there ({mount.kind}), observed by {_observed(folder, mount)}")]
    if folder.observer == "native" and mount.is_network:
        remedy = "Set `observer: auto` or `polling`."
        found.append(warn(name, f"on {mount.kind} the kernel does not tell what others write", remedy))
    if folder.source != "leave":
        found += writable(name, path, f"`source: {folder.source}` takes photos away from it")
    return found


def results(name: str, folder: Folder) -> list[Finding]:
    """Output, archive and quarantine."""
    found = []
    for key, place in own_places(folder):
        subject = f"{name}.{key}"
        found += (
            writable(subject, place, "results go there") if place.exists() else _buildable(subject, place)
        )
        found += room(subject, place)
    if folder.source == "archive" and folder.archive is not None and folder.path.exists():
        found += _same_device(name, folder.path, folder.archive)
    return found


def state(path: Path) -> list[Finding]:
    """The folder of the journal."""
    found = (
        writable("state_dir", path, "the journal lies there")
        if path.exists()
        else _buildable("state_dir", path)
    )
    mount = mount_of(Path(os.path.realpath(path)))
    if mount.kind in ("tmpfs", "ramfs"):
        words = f"{path} is in memory ({mount.kind}): after a restart all photos left in place are done again"
        found.append(warn("state_dir", words, "Name a folder on a disk."))
    else:
        found.append(ok("state_dir", f"{path} is on a local file system ({mount.kind})"))
    return [*found, *room("state_dir", path)]


def room(subject: str, path: Path) -> list[Finding]:
    """Space and inodes, as far as the file system counts them."""
    status = os.statvfs(_existing(path))
    free, inodes = status.f_bavail * status.f_frsize, status.f_favail
    words = f"{free / 1e9:.1f} GB free"
    if free < LOW_BYTES // 100:
        return [fail(subject, words, "Free space; the folder pauses until there is some.")]
    if status.f_files and inodes < LOW_INODES:
        remedy = "Remove small files, or make the file system anew with more inodes."
        judge = fail if inodes < 100 else warn
        return [judge(subject, f"{words}, but only {inodes} inodes", remedy)]
    if free < LOW_BYTES:
        return [warn(subject, words, "Free some before the next large job.")]
    return [ok(subject, words)]


def _observed(folder: Folder, mount: Mount) -> str:
    if observes_natively(folder, mount):
        return "native events"
    return f"polling every {folder.poll_interval_s:g} s"


def observes_natively(folder: Folder, mount: Mount) -> bool:
    return folder.observer == "native" or (folder.observer == "auto" and not mount.is_network)


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _buildable(subject: str, path: Path) -> list[Finding]:
    """A folder that the daemon makes when it is needed."""
    parent = _existing(path)
    try:
        probe(parent)
    except OSError as error:
        remedy = f"Make it, owned by the user of the daemon (uid {os.geteuid()})."
        words = f"{path} is not there and cannot be made in {parent}: {error.strerror}"
        return [fail(subject, words, remedy)]
    return [ok(subject, f"{path} can be made")]


def writable(subject: str, path: Path, why: str) -> list[Finding]:
    """Tries a file; also whether the clock of the file server agrees with ours."""
    try:
        before = time.time()
        written = probe(path)
        after = time.time()
    except OSError as error:
        remedy = f"Let the user of the daemon (uid {os.geteuid()}) write there."
        return [fail(subject, f"{path} cannot be written ({why}): {error.strerror}", remedy)]
    return [ok(subject, f"{path} is writable"), *_clock(subject, written, before, after)]


def probe(folder: Path) -> float:
    """Write, sync and remove a file: permissions alone say little about a share. When it was written."""
    trace = folder / f".hotmatte-doctor.{os.getpid()}.tmp"
    try:
        with trace.open("xb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        return trace.stat().st_mtime
    finally:
        with contextlib.suppress(OSError):
            trace.unlink()


def _clock(subject: str, written: float, before: float, after: float) -> list[Finding]:
    """`written`: the time the file system gave a file that was made between `before` and `after`."""
    skew = written - before if written < before else max(0.0, written - after)
    if abs(skew) <= SKEW_S:
        return []
    words = f"the clock of its file server is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    return [warn(subject, words, "Synchronise both with NTP (timedatectl set-ntp true).")]


def _same_device(name: str, path: Path, archive: Path) -> list[Finding]:
    if path.stat().st_dev == _existing(archive).stat().st_dev:
        return []
    words = "the archive is on another file system: photos are copied, checked and then deleted"
    return [warn(f"{name}.archive", words, "Name an archive on the same file system, if speed matters.")]


def inotify(folders: dict[str, Folder], *, budget: float) -> list[Finding]:
    """The kernel's limits against what native observers need. Counts folders for `budget` seconds."""
    deadline = time.monotonic() + budget
    native = [
        folder
        for folder in folders.values()
        if folder.path.is_dir() and observes_natively(folder, mount_of(Path(os.path.realpath(folder.path))))
    ]
    needed = sum(sum(1 for _ in _directories(folder, deadline)) for folder in native)
    counted = "at least " if time.monotonic() > deadline else ""
    return [
        # Other programs of the same user draw on the same numbers.
        _limit("max_user_watches", needed + 1000, f"{counted}{needed} folders to watch", least=524_288),
        _limit("max_user_instances", 2 * len(native) + 16, f"{len(native)} native observers", least=1024),
    ]


def _directories(folder: Folder, deadline: float) -> Iterator[str]:
    rules, root = Rules(folder), str(folder.path)
    for path, names, _ in os.walk(root):
        yield path
        if time.monotonic() > deadline or not folder.recursive:
            return
        names[:] = [name for name in names if rules.enters(os.path.relpath(f"{path}/{name}", root))]


def _limit(name: str, needed: int, why: str, *, least: int) -> Finding:
    try:
        now = int((LIMITS / name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return warn("inotify", f"fs.inotify.{name} cannot be read", "Use `observer: polling` if events fail.")
    words = f"fs.inotify.{name} is {now}, for {why}"
    if now >= needed:
        return ok("inotify", words)
    remedy = (
        f"sysctl fs.inotify.{name}={max(least, 2 * needed)} (and in /etc/sysctl.d/); until then it polls."
    )
    return warn("inotify", words, remedy)
