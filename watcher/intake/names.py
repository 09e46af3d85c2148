"""Which names in a hot folder are photos. Pure: looks at names, never at files."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from watcher.config import Folder, excluded
from watcher.litter import FOLDERS

# What common systems, servers, cloud clients and editors leave lying about, and how
# copiers call a file that they are still writing. Names of files and of folders alike.
DEFAULT_IGNORES = (
    ".*",  # hidden: covers ._*, .DS_Store, .nfs0000*, .fuse_hidden*, .smbdelete*, rsync's .NAME.XXXXXX
    "Icon\r",
    *FOLDERS,
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "~$*",
    "~*.tmp",
    "*.tmp",
    "*.temp",
    "*.part",
    "*.partial",
    "*.crdownload",
    "*.download",
    "*.filepart",
    "*.opdownload",
    "~syncthing~*",
    "*.lock",
    "*.swp",
    "*.lrdata",
    "CaptureOne",
    "*.cos",
    "*.xmp",
)
# Ours, whatever the configuration says: `.NAME.<job id>.hotmatte.tmp` of publish, with `.aside`
# or `.copy` in it of retire, `.NAME.<digits>.submit.tmp` of `hotmatte submit`, sidecars, reports and contact sheets.
_OWN = (
    r"\..+\.\d+\.(?:(?:(?:aside|copy)\.)?hotmatte|submit)\.tmp|.+\.(?:matte|error)\.json"
    r"|contact-sheet-.+-\d{4}-\d\d-\d\d(?:\.\d+)?\.html"
)


class Rules:
    """What a hot folder takes. Patterns are shell patterns and ignore case.

    A pattern without `/` is about the name of a file or folder; one with `/` is about
    its path in the hot folder, where `*` also matches `/`. `former`: sub-folders that are not
    entered, since results went there before the configuration was changed.
    """

    def __init__(self, folder: Folder, *, former: Iterable[str] = ()) -> None:
        ignores = (*(DEFAULT_IGNORES if folder.default_ignores else ()), *folder.ignore)
        self._recursive = folder.recursive
        self._included = _either(folder.include)
        self._ignored = _either((p for p in ignores if "/" not in p), _OWN)
        paths = [pattern for pattern in ignores if "/" in pattern]
        self._ignored_path = _either(paths) if paths else None
        own = {os.path.relpath(place, folder.path) for place in excluded(folder)}
        self._excluded = frozenset(own.union(former))
        # The same few folders are asked about for every file in them.
        self._enters = lru_cache(maxsize=4096)(self._decide)

    def wants(self, relpath: str) -> bool:
        """Whether the file `relpath` is work, by its name and its folders' names."""
        folder, _, name = relpath.rpartition("/")
        return (
            self._included(name) is not None
            and self._ignored(name) is None
            and (self._ignored_path is None or self._ignored_path(relpath) is None)
            and self.enters(folder)
        )

    def enters(self, reldir: str) -> bool:
        """Whether files are taken from the folder `reldir`; the hot folder itself is `""`."""
        return not reldir or (self._recursive and self._enters(reldir))

    def _decide(self, reldir: str) -> bool:
        outer, _, name = reldir.rpartition("/")
        return (
            reldir not in self._excluded
            and self._ignored(name) is None
            and (self._ignored_path is None or self._ignored_path(reldir) is None)
            and (not outer or self._enters(outer))
        )


def _either(patterns: Iterable[str], *expressions: str) -> Callable[[str], re.Match[str] | None]:
    """One matcher for all: a bound `match`, which is half the cost of a loop of patterns."""
    parts = [fnmatch.translate(pattern) for pattern in patterns]
    parts += [f"(?s:{expression})\\Z" for expression in expressions]
    return re.compile("|".join(parts), re.IGNORECASE).match
