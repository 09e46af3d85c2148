"""Under which names results go. Looks at the output folder; writes nothing.

A sidecar, and before its rename its temporary, tells whom a name belongs to. A file that
none of ours names is somebody's own, and only `duplicates: replace` overwrites it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from watcher import templates
from watcher.errors import InputRejected
from watcher.pipeline import publish, sidecar
from watcher.pipeline.sidecar import REPORT, SIDECAR

# What every Linux file system allows for one name.
_NAME_BYTES = 255
# "." and ".<job id>.hotmatte.tmp" around a temporary's name, and "_9999" in it.
_ROOM = 1 + len(".999999999999.hotmatte.tmp") + len("_9999")
# Suffixes are counted as one of these lengths, so that hardly a change of the outputs cuts a name elsewhere.
_SUFFIX_BYTES = (32, templates.MOST_BYTES)
# Numbers of results, and of reports, of one name.
_MOST = 10_000
# A name is a stranger's if so many looks, one after the other, find no sidecar and no record of a publication.
_LOOKS = 8

_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

Duplicates = Literal["number", "replace", "skip", "quarantine"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose result it is: one source, in any of its versions."""

    folder: str
    relpath: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where one job's results go: `folder`/`base` plus a suffix. `taken`: leave it to its owner.

    `free`: nothing is there. `former`: other bases, under which results of the same source lie. They were made with other outputs, for
    which there was room, and are no longer true once these are there.
    """

    folder: Path
    base: str
    taken: bool = False
    former: tuple[str, ...] = ()
    free: bool = False

    def path(self, suffix: str) -> Path:
        return self.folder / (self.base + suffix)

    @property
    def sidecar(self) -> Path:
        return self.path(SIDECAR)


class Names:
    """The names that jobs in flight are about to write. Thread-safe.

    Compared as a case-insensitive, Unicode-normalising client of the share would: two
    results that differ in less must not be under way at the same time.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reserved: dict[str, Owner] = {}

    def reserve(self, paths: Iterable[Path | str], owner: Owner, *, wait: bool) -> bool:
        """Reserve all of `paths`, or none and return False.

        Waits for them if `wait` says so, or if they are in the hands of another version of
        the same source.
        """
        keys = {_folded(path) for path in paths}
        with self._changed:
            while holders := {self._reserved[key] for key in keys if key in self._reserved}:
                if not wait and holders != {owner}:
                    return False
                self._changed.wait()
            self._reserved.update(dict.fromkeys(keys, owner))
        return True

    def release(self, paths: Iterable[Path | str]) -> None:
        with self._changed:
            for path in paths:
                self._reserved.pop(_folded(path), None)
            self._changed.notify_all()


def _folded(path: Path | str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


@contextmanager
def claimed(
    names: Names,
    owner: Owner,
    *,
    output: Path,
    tree: Literal["mirror", "flatten"],
    suffixes: tuple[str, ...],
    duplicates: Duplicates,
    reserved: tuple[str, ...] | None = None,
) -> Iterator[Place]:
    """The place for the results of `owner`, held until the block ends.

    `suffixes` are those of the outputs; the sidecar's is added. Where they differ from photo
    to photo, `reserved` has some as long as they can get. Raises InputRejected where
    the name is another's and `duplicates` is "quarantine".
    """
    folder, (first, *others) = _places_of(
        owner.relpath, output=output, tree=tree, suffixes=reserved or suffixes
    )
    all_suffixes = (*suffixes, SIDECAR)
    vary = reserved is not None
    held: list[str] = []
    mixed: list[str] = []
    try:
        if duplicates == "number" and names.reserve(
            paths := _paths(folder, first, all_suffixes), owner, wait=False
        ):
            # As a rule nobody else wants it: then to look once is enough.
            held = paths
            whose = holder(folder, first, all_suffixes, vary=vary)
            second = None if whose == owner else holder(folder, f"{first}_2", all_suffixes, vary=vary)
            if second is None and whose in (owner, None):
                former = _former(owner, folder, mixed, others, all_suffixes, duplicates)
                yield Place(folder, first, former=former, free=whose is None and not vary)
                return
            names.release(held)
            held = []
        for base, own in _candidates(owner, folder, first, all_suffixes, duplicates, vary=vary, mixed=mixed):
            paths = _paths(folder, base, all_suffixes)
            # Its own name may be in the hands of a neighbour that differs in case only: it comes back.
            if not names.reserve(paths, owner, wait=own or duplicates != "number"):
                continue
            held = paths
            whose = holder(folder, base, all_suffixes, vary=vary)
            if whose in (owner, None) or duplicates == "replace":
                yield Place(
                    folder, base, former=_former(owner, folder, mixed, others, all_suffixes, duplicates)
                )
                return
            if duplicates == "skip":
                yield Place(folder, base, taken=True)
                return
            if duplicates == "quarantine":
                raise InputRejected(
                    f"its result would overwrite {base + SIDECAR}, which belongs to {_named(whose)}",
                    remedy="Rename one of the two photos, or set `duplicates` for this hot folder.",
                )
            names.release(held)
            held = []
        raise InputRejected(
            f"there are {_MOST - 1} results named {first} already",
            remedy="Rename the photo, or clear the output folder.",
        )
    finally:
        names.release(held)


def _paths(folder: Path, base: str, suffixes: Iterable[str]) -> list[str]:
    """Text takes a fraction of the time that paths take to be put together and read again."""
    return [f"{folder}/{base}{suffix}" for suffix in suffixes]


def _former(
    owner: Owner,
    folder: Path,
    mixed: Iterable[str],
    others: Iterable[str],
    suffixes: tuple[str, ...],
    duplicates: Duplicates,
) -> tuple[str, ...]:
    """See Place."""
    former = (*mixed, *_elsewhere(folder, others, suffixes, duplicates))
    return tuple(base for base in former if _is_of(owner, folder, base))


def _named(whose: Owner | Stranger | None) -> str:
    return f"{whose.relpath} in hot folder {whose.folder}" if isinstance(whose, Owner) else "somebody else"


def _elsewhere(
    folder: Path, firsts: Iterable[str], suffixes: tuple[str, ...], duplicates: Duplicates
) -> Iterator[str]:
    """Bases in use that begin with these."""
    for first in firsts:
        for number in range(1, _MOST if duplicates == "number" else 2):
            base = first if number == 1 else f"{first}_{number}"
            if not any(exists(f"{folder}/{base}{suffix}") for suffix in suffixes):
                break
            yield base


def _is_of(owner: Owner, folder: Path, base: str) -> bool:
    told = _content(folder / (base + SIDECAR))
    return told is not None and sidecar.owner_in(told) == (owner.folder, owner.relpath)


@dataclass(frozen=True, slots=True)
class Stranger:
    """Whoever put a file there that no sidecar of ours names; `named`: there is one, and it names others."""

    named: bool = False


def holder(
    folder: Path, base: str, suffixes: Iterable[str], *, vary: bool = False
) -> Owner | Stranger | None:
    """Whose the name is; None if it is free.

    `vary`: suffixes differ from photo to photo, so that none of these need be there.
    """
    suffixes = tuple(suffixes)
    # Somebody may be publishing there: his record becomes the sidecar, or an older sidecar goes, between two looks.
    for _ in range(_LOOKS):
        found = _look(folder, base, suffixes, vary=vary)
        if not isinstance(found, Stranger) or found.named:
            break
    return found


def _look(folder: Path, base: str, suffixes: tuple[str, ...], *, vary: bool) -> Owner | Stranger | None:
    there = [suffix for suffix in suffixes if exists(f"{folder}/{base}{suffix}")]
    told = _content(folder / (base + SIDECAR)) if SIDECAR in there else None
    if told is not None and (record := sidecar.record_in(told)) is not None:
        known = {SIDECAR, *(output.suffix for output in record.outputs)}
        # A new output of an old owner must not take what lies there by another's hand.
        return Owner(*record.owner) if known.issuperset(there) else Stranger(named=True)
    if not there and not (vary and folder.is_dir()):
        return None
    # Outputs without a sidecar: somebody's own, or ours from a publication that was cut short.
    for _, _, record in publish.records(folder, base):
        # The older sidecar may have been there a moment ago: it goes before the outputs are replaced.
        gone = () if told is not None else (SIDECAR,)
        listed = {*gone, *record.supersedes, *(output.suffix for output in record.outputs)}
        return Owner(*record.owner) if listed.issuperset(there) or not vary else Stranger(named=True)
    return Stranger() if there else None


def _content(path: Path) -> bytes | None:
    """None where there is no file, or none any more, or one that we may not read: then it is not ours."""
    try:
        return path.read_bytes() if path.is_file() else None
    except (FileNotFoundError, PermissionError):
        return None


def exists(path: str | Path) -> bool:
    """Whether the name is taken, be it by a link that leads nowhere."""
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return False
        raise
    return True


def _candidates(
    owner: Owner,
    folder: Path,
    first: str,
    suffixes: tuple[str, ...],
    duplicates: Duplicates,
    *,
    vary: bool,
    mixed: list[str],
) -> Iterator[tuple[str, bool]]:
    """The owner's own name, if it has one, then each free one, in order; and whether it is its own.

    `mixed` gets the names under which there are results with a sidecar, and a file that it does not name.
    """
    if duplicates != "number":
        yield first, False
        return
    free = []
    for number in range(1, _MOST):
        base = first if number == 1 else f"{first}_{number}"
        whose = holder(folder, base, suffixes, vary=vary)
        if whose == owner:
            yield base, True
            break  # and on, should it have been taken away meanwhile
        if isinstance(whose, Stranger) and whose.named:
            mixed.append(base)
        if whose is None:
            free.append(base)
        # One gap may be where a neighbour's results were removed; two are the end.
        if len(free) == 2:
            break
    yield from ((base, False) for base in free)
    start = number + 1
    yield from ((f"{first}_{number}", False) for number in range(start, _MOST))


def place_of(
    relpath: str, *, output: Path, tree: Literal["mirror", "flatten"], suffixes: Iterable[str]
) -> tuple[Path, str]:
    """(folder, base) that a source's results would have if nobody else wanted them."""
    folder, bases = _places_of(relpath, output=output, tree=tree, suffixes=suffixes)
    return folder, bases[0]


def _places_of(
    relpath: str, *, output: Path, tree: Literal["mirror", "flatten"], suffixes: Iterable[str]
) -> tuple[Path, list[str]]:
    """The same, and behind that base those that it would have had with shorter or longer suffixes."""
    path = PurePosixPath(relpath)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise InputRejected(f"{relpath} does not lie in its hot folder")
    folder = output if tree == "flatten" else output / path.parent
    longest = max(len(_bytes(suffix)) for suffix in (*suffixes, SIDECAR, REPORT))
    counted = [length for length in _SUFFIX_BYTES if length >= longest] or [longest]
    lengths = dict.fromkeys((counted[0], *_SUFFIX_BYTES))
    bases = [shortened(path.stem, relpath, room=_NAME_BYTES - _ROOM - length) for length in lengths]
    return folder, list(dict.fromkeys(bases))


def shortened(base: str, relpath: str, *, room: int) -> str:
    """`base` if it fits into `room` bytes, else its beginning, `~` and 8 hex digits of `relpath`'s SHA-1."""
    if len(_bytes(base)) <= room:
        return base
    mark = "~" + hashlib.sha1(_bytes(relpath), usedforsecurity=False).hexdigest()[:8]
    kept = ""
    left = room - len(mark)
    for char in base:
        left -= len(_bytes(char))
        if left < 0:
            break
        kept += char
    return kept + mark


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def report_of(folder: Path, base: str, owner: Owner) -> Path:
    """The report that is `owner`'s, or where it may go without touching anybody else's."""
    for number in range(1, _MOST):
        path = folder / ((base if number == 1 else f"{base}_{number}") + REPORT)
        if not exists(path):
            return path
        told = _content(path)
        if told is not None and sidecar.owner_in(told) == (owner.folder, owner.relpath):
            return path
    raise InputRejected(f"there are {_MOST - 1} reports named {base} already")
