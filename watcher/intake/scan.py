"""Lists a hot folder and compares the list with what is known. The truth that hints anticipate."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from dataclasses import dataclass, field
from stat import S_ISREG

from watcher.domain import JobState, Stamp
from watcher.errors import HostError
from watcher.intake import candidate
from watcher.intake.names import Rules

Listing = Mapping[str, Stamp]


@dataclass(slots=True)
class Walk:
    """The files under `root` that `rules` take, as (relpath, Stamp); each iteration lists anew.

    While and after iterating: `unreadable` sub-folders and files, about which nothing is
    known, and those of them that we are `refused`; how many `symlinks` and other names were `ignored`. Raises HostError where the
    root cannot be listed.

    What was listed `before` by the same rules and has not changed is not put to them
    again, which saves a third. `start` names the folders to begin with, instead of the
    root; `passed` those that are not entered from the one above. `on_folder` is called
    before a folder is listed.
    """

    root: str
    rules: Rules
    before: Listing = field(default_factory=dict)
    start: Collection[str] = ("",)
    passed: Container[str] = ()
    on_folder: Callable[[str], None] = lambda _: None
    unreadable: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    symlinks: int = 0
    ignored: int = 0

    def __iter__(self) -> Iterator[tuple[str, Stamp]]:
        self.unreadable, self.refused, self.symlinks, self.ignored = [], [], 0, 0
        folders = list(self.start)
        while folders:
            reldir = folders.pop()
            self.on_folder(reldir)
            prefix = f"{reldir}/" if reldir else ""
            for entry in self._entries(reldir):
                relpath = prefix + entry.name
                try:
                    stamp = self._sort(entry, relpath, folders)
                except OSError as error:
                    self._blame(error, relpath)
                    continue
                if stamp is not None:
                    yield relpath, stamp

    def _sort(self, entry: os.DirEntry[str], relpath: str, folders: list[str]) -> Stamp | None:
        """The stamp of a file that is wanted; a folder is added to `folders`."""
        if (known := self.before.get(relpath)) is not None:
            status = entry.stat(follow_symlinks=False)
            same = status.st_mtime_ns == known.mtime_ns and status.st_size == known.size
            if same and S_ISREG(status.st_mode):
                return known
        if entry.is_symlink():
            # Never followed: it may lead out of the folder, or in a circle.
            self.symlinks += 1
        elif entry.is_dir(follow_symlinks=False):
            if relpath not in self.passed and self.rules.enters(relpath):
                folders.append(relpath)
        elif entry.is_file(follow_symlinks=False) and self.rules.wants(relpath):
            return Stamp.of(entry.stat(follow_symlinks=False))
        else:
            self.ignored += 1
        return None

    def _entries(self, reldir: str) -> list[os.DirEntry[str]]:
        path = f"{self.root}/{reldir}"
        try:
            with os.scandir(path) as entries:
                return list(entries)
        except OSError as error:
            if not reldir:
                raise HostError(f"cannot list {path}: {error.strerror or error}") from error
            self._blame(error, reldir)
            return []

    def _blame(self, error: OSError, relpath: str) -> None:
        if error.errno not in candidate.GONE:
            self.unreadable.append(relpath)
        if isinstance(error, PermissionError):
            self.refused.append(relpath)


def walk(root: str, rules: Rules) -> Walk:
    """A listing of `root`, see Walk."""
    return Walk(root, rules)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a scan shows: files that are new or changed, done but still there, and no longer listed."""

    fresh: list[tuple[str, Stamp]]
    done: list[tuple[str, Stamp]]
    absent: list[str]


def reconcile(
    listing: Listing, known: Mapping[str, tuple[Stamp, JobState]], *, unreadable: Collection[str]
) -> Difference:
    """Compare a listing with what the journal knows of the folder.

    Absent is a hint as well: a file may have been renamed during the listing. What lies
    is `unreadable`, or lies below, is never absent.
    """
    fresh, done = [], []
    for relpath, stamp in listing.items():
        stamp_known, state = known.get(relpath, (None, None))
        if stamp_known != stamp:
            fresh.append((relpath, stamp))
        elif state is JobState.DONE:
            done.append((relpath, stamp))
    return Difference(fresh, done, _absent(listing, known, unreadable))


def compare(listing: Listing, before: Listing, *, unreadable: Collection[str]) -> Difference:
    """Compare a listing with the one before it, as a poll does."""
    fresh = [(relpath, stamp) for relpath, stamp in listing.items() if before.get(relpath) != stamp]
    return Difference(fresh, [], _absent(listing, before, unreadable))


def _absent(listing: Listing, before: Collection[str], unreadable: Collection[str]) -> list[str]:
    unknown, hidden = frozenset(unreadable), tuple(f"{relpath}/" for relpath in unreadable)
    return [
        relpath
        for relpath in before
        if relpath not in listing and relpath not in unknown and not relpath.startswith(hidden)
    ]
