"""What a polled folder held when it was listed last, what of it may have changed, and when to look again.

A folder's own times change with the names in it: so much can be relied on where the file system
is in KEEP_TIMES and nobody writes to it but through this machine. There one stat a folder tells
which ones to list anew. It does not tell that a file was written over in place, so that the whole
is listed as well, though less often.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection

from watcher.domain import Stamp
from watcher.intake.names import Rules
from watcher.intake.pace import SHARE
from watcher.intake.scan import Listing, Walk

# Never a share: its folder times are the server's, seen through a cache, and some have none.
KEEP_TIMES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "tmpfs"})
# Looking may take this share of a core; what it may take of the time is SHARE.
CPU_SHARE = 0.02
# Two changes within one step of a file system's clock leave the same times behind.
STEP_NS = 2_000_000_000

# Inode, mtime and ctime; a folder that changed a moment ago may do so again unseen.
_Times = tuple[int, int, int]
_TOO_RECENT: _Times = (0, 0, 0)


class Polled:
    """The hot folder `root`, which lies on `device` (st_dev). Times are monotonic seconds.

    `files` is the last listing. `interval` is how often to look, unless looking takes long.
    `clock` gives the file system's time, in nanoseconds.
    """

    def __init__(
        self,
        root: str,
        *,
        device: int,
        interval: float,
        keeps_times: bool,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.files: dict[str, Stamp] = {}
        self.next_look = 0.0
        self._root = root
        self._device = device
        self._interval = interval
        self._keeps_times = keeps_times
        self._clock = clock
        self._folders: dict[str, _Times] = {}
        self._next_whole = 0.0

    def changed(self, now: float) -> Collection[str] | None:
        """The folders to list anew; None where all must be."""
        if now >= self._next_whole or not self._keeps_times:
            return None
        return [reldir for reldir, times in self._folders.items() if self._times(reldir) != times]

    def whole(self, rules: Rules) -> Walk:
        """A listing of everything."""
        self._folders = {}
        return Walk(self._root, rules, before=self.files, on_folder=self._mark)

    def part(self, rules: Rules, changed: Collection[str]) -> Walk:
        """A listing of the folders `changed`, and of what is new below them."""
        passed = frozenset(self._folders)
        for reldir in changed:
            del self._folders[reldir]
        return Walk(self._root, rules, before=self.files, start=changed, passed=passed, on_folder=self._mark)

    def within(self, changed: Collection[str]) -> dict[str, Stamp]:
        """What is known to lie in the folders `changed`, not in those below."""
        places = frozenset(changed)
        return {path: stamp for path, stamp in self.files.items() if path.rpartition("/")[0] in places}

    def replace(self, before: Collection[str], walk: Walk, listing: Listing) -> None:
        """`walk` found `listing` where `before` had been."""
        for relpath in before:
            if relpath not in listing:
                del self.files[relpath]
        self.files.update(listing)
        for reldir in self._folders.keys() & set(walk.unreadable):
            self._folders[reldir] = _TOO_RECENT

    def looked(self, now: float, *, whole: bool, seconds: float, cpu: float) -> None:
        """A look that ends now took so long, and so much of a core's time."""
        rest = max(self._interval, seconds / SHARE, cpu / CPU_SHARE)
        if whole:
            self._next_whole = now + rest
        self.next_look = now + (self._interval if whole and self._keeps_times else rest)

    def _mark(self, reldir: str) -> None:
        """Remember the times of a folder that is about to be listed."""
        times = self._times(reldir)
        if times is not None:
            recent = max(times[1:]) > self._clock() - STEP_NS
            self._folders[reldir] = _TOO_RECENT if recent else times

    def _times(self, reldir: str) -> _Times | None:
        """None where nothing can be said of it."""
        if not self._keeps_times:
            return None
        try:
            status = os.lstat(f"{self._root}/{reldir}")
        except OSError:
            return None
        if status.st_dev != self._device:  # something is mounted there, and who knows what
            self._keeps_times = False
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns
