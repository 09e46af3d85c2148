"""Which file system a path lies on, as /proc/self/mountinfo tells it. Reads nothing else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MOUNTINFO = Path("/proc/self/mountinfo")

# A client of one of these gets no inotify event for what others write to the share.
NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "afs", "ceph", "glusterfs", "lustre"}
)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. `source` is the device or the share, `root` the part of it mounted here."""

    point: str
    kind: str
    source: str
    root: str

    @property
    def is_network(self) -> bool:
        """FUSE counts: sshfs, rclone and the like write behind the kernel's back."""
        return self.kind in NETWORK_TYPES or self.kind == "fuse" or self.kind.startswith("fuse.")


def parse(text: str) -> list[Mount]:
    """See proc(5): id parent dev root point options [optional...] - type source super-options."""
    mounts = []
    # Not splitlines(): a name may hold what Unicode takes for the end of a line.
    for line in text.split("\n"):
        left, _, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if len(before) >= 5 and len(after) >= 2:
            mounts.append(Mount(_unescape(before[4]), after[0], _unescape(after[1]), _unescape(before[3])))
    return mounts


def mount_of(path: Path, mounts: list[Mount] | None = None) -> Mount:
    """The mount that `path` lies on, existing or not; the last one mounted wins."""
    if mounts is None:
        # Not read_text(), which would make a new line of the \r in a name.
        mounts = parse(os.fsdecode(MOUNTINFO.read_bytes()))
    # Not resolve(): it stats every part, and a dead share would hang the caller.
    target = os.path.normpath(path.absolute())
    found = Mount("/", "unknown", "unknown", "/")
    for mount in mounts:
        if len(mount.point) >= len(found.point) and is_within(target, mount.point):
            found = mount
    return found


def identity(path: Path, mounts: list[Mount] | None = None) -> str:
    """What lies under `path`, in words that survive a remount and a reboot.

    Device numbers do not: network and FUSE mounts get a new one each time.
    """
    mount = mount_of(path, mounts)
    inner = PurePosixPath(mount.root, os.path.relpath(path.absolute(), mount.point))
    return f"{mount.kind} {mount.source} {inner}"


def is_same(one: str, other: str) -> bool:
    """Whether two identities mean one thing.

    The first versions wrote two slashes before what lies right on a disk's own root, and their journals live on.
    """
    return one.replace(" //", " /") == other.replace(" //", " /")


def is_within(target: str, point: str) -> bool:
    """Whether the absolute path `target` is `point`, or lies below it."""
    return point == "/" or target == point or target.startswith(point + "/")


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
