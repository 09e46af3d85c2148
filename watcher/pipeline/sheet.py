"""Contact sheets: what a hot folder's day brought, from its sidecars and reports. Needs no daemon.

A page is rewritten only when what it shows has changed, and what it showed before is taken
over as it was. Nothing of a sidecar is believed but places below the folders it is about.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from watcher import __version__
from watcher.config import Folder
from watcher.domain import Stamp, printable
from watcher.errors import HostError, InputRejected
from watcher.litter import is_litter
from watcher.pipeline import publish, thumbnails
from watcher.pipeline.sheet_page import MARK, Heading, Row, Shown, figure, figures_in, link_to, page
from watcher.pipeline.sidecar import REPORT, SIDECAR

# Photos on a page: about 10 MB of HTML, which every browser opens at once.
PER_PAGE = 480
# A sidecar is a few kilobytes; what is larger is not one.
_MOST_BYTES = 1 << 20
_MOST_PAGE = 256 << 20
# What a sheet shows of one; the rest would only take memory.
_KEPT = ("source", "outputs", "review", "coverage", "reason", "remedy")


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose results: `folder` as sidecars name it, None for all. `sources`: where photos may lie."""

    title: str
    folder: str | None
    output: Path
    reports: Path | None = None
    sources: tuple[Path, ...] = ()

    @classmethod
    def of(cls, name: str, folder: Folder) -> Scope:
        places = (folder.path, *((folder.archive,) if folder.archive else ()))
        return cls(name, name, folder.output, folder.quarantine, places)

    def place(self, day: date) -> Path:
        """Where the first page of a day belongs."""
        return self.output / f"contact-sheet-{self.folder or 'all'}-{day.isoformat()}.html"


@dataclass(frozen=True, slots=True)
class Entry:
    """A sidecar or report of ours: when it was written, and what it says."""

    created: datetime
    path: Path
    stamp: tuple[int, int]
    told: Mapping[str, Any] = field(compare=False, repr=False)


def entries(scope: Scope, day: date) -> list[Entry]:
    """The day's results and failures, oldest first. Raises HostError where the folder cannot be listed."""
    found = {}
    for root in filter(None, (scope.output, scope.reports)):
        for path, status in _records(root, day):
            entry = _entry(path, status, scope.folder)
            if entry is not None and entry.created.date() == day:
                found[path] = entry
    return sorted(found.values(), key=lambda entry: (entry.created, str(entry.path)))


def write(scope: Scope, day: date, target: Path) -> list[Path]:
    """The pages of a day at `target` and beside it; empty where the day brought nothing.

    Raises HostError, and InputRejected where somebody else's file has the name.
    """
    found = entries(scope, day)
    starts = range(0, len(found), PER_PAGE)
    paths = [_numbered(target, number) for number in range(1, len(starts) + 1)]
    for path in paths:
        _refuse_strangers(path)
    for number, start in enumerate(starts):
        shown = found[start : start + PER_PAGE]
        heading = Heading(
            folder=printable(scope.title),
            day=day.isoformat(),
            first=start + 1,
            of=len(shown),
            earlier=link_to(paths[number - 1].name) if number else None,
            later=link_to(paths[number + 1].name) if number + 1 < len(paths) else None,
        )
        _refresh(paths[number], heading, shown, scope)
    _drop_later(target, len(paths))
    return paths


def _refresh(path: Path, heading: Heading, shown: Sequence[Entry], scope: Scope) -> None:
    keys = [_key(entry, scope, path.parent) for entry in shown]
    digest = _digest((heading, keys))
    if _digest_in(path) == digest:
        return
    old = figures_in(path.read_bytes()) if path.exists() and path.stat().st_size < _MOST_PAGE else {}
    figures = (
        old.get(key) or figure(_row(entry, scope, path.parent), key=key)
        for key, entry in zip(keys, shown, strict=True)
    )
    flagged, failed = sum(map(_is_flagged, shown)), sum("reason" in entry.told for entry in shown)
    publish.publish_one(path, page(heading, figures, digest=digest, flagged=flagged, failed=failed), job_id=0)


def _key(entry: Entry, scope: Scope, base: Path) -> str:
    """What its figure depends on. The photo may have gone to the archive: another link, and nothing else tells."""
    return _digest((entry.path, entry.stamp, _source_of(entry.told["source"], scope), base))


def _digest(what: object) -> str:
    return hashlib.sha256(repr((__version__, what)).encode("utf-8", "surrogateescape")).hexdigest()


def _is_flagged(entry: Entry) -> bool:
    return bool(_flags(entry.told))


def _flags(told: Mapping[str, Any]) -> list[str]:
    review = told.get("review")
    flags = review.get("flags") if isinstance(review, Mapping) else None
    return [_text(flag) for flag in flags] if isinstance(flags, list) else []


def _numbered(target: Path, number: int) -> Path:
    return target if number == 1 else target.with_name(f"{target.stem}.{number}{target.suffix}")


def _digest_in(path: Path) -> str | None:
    """What a sheet of ours says that it shows; "" for anybody else's file, None for no file."""
    try:
        with path.open("rb") as file:
            head = file.read(1024).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError:
        return ""
    return head.partition(MARK)[2].partition('"')[0]


def _refuse_strangers(path: Path) -> None:
    if _digest_in(path) == "":
        raise InputRejected(f"{path} is no contact sheet of ours", remedy="Move it, or name another file.")


def _drop_later(target: Path, pages: int) -> None:
    """Pages that the day no longer fills: results were removed."""
    number = max(pages, 1) + 1
    while _digest_in(_numbered(target, number)):
        with suppress(OSError):
            _numbered(target, number).unlink()
        number += 1


# --- What the output folder holds ----------------------------------------------------------


def _records(root: Path, day: date) -> Iterator[tuple[Path, os.stat_result]]:
    """Files that may be sidecars or reports of `day`: what was last written before it cannot be one."""
    begin = datetime.combine(day, datetime.min.time()).timestamp()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                inside = list(listing)
        except FileNotFoundError:
            continue  # nothing was ever published here
        except OSError as error:
            if folder != root and isinstance(error, PermissionError):
                continue  # nor here
            raise HostError(f"cannot list {folder}: {error.strerror or error}") from error
        for entry in inside:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    # A snapshot would show everything once more.
                    if not is_litter(entry.name):
                        folders.append(Path(entry.path))
                elif entry.name.endswith((SIDECAR, REPORT)) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_mtime >= begin and status.st_size <= _MOST_BYTES:
                        yield Path(entry.path), status


def _entry(path: Path, status: os.stat_result, folder: str | None) -> Entry | None:
    """None for what is not ours, not whole, or another hot folder's."""
    try:
        told = json.loads(path.read_bytes())
        created = datetime.fromisoformat(told["created"]).astimezone()
        named, ours = told["source"]["folder"], "outputs" in told or "reason" in told
        if not ours or (folder is not None and named != folder):
            return None
    except (OSError, ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None
    kept = {key: told[key] for key in _KEPT if key in told}
    return Entry(created, path, (status.st_mtime_ns, status.st_size), kept)


# --- One photo -----------------------------------------------------------------------------


def _row(entry: Entry, scope: Scope, base: Path) -> Row:
    """What to show; `base` is the sheet's folder."""
    told, name = entry.told, _text(entry.told["source"].get("path"))
    time = entry.created.strftime("%H:%M")
    source = _source_of(told["source"], scope)
    if "reason" in told:
        # Not read again: it may be the very file that brings a decoder down.
        picture = Shown("source", None, _link(source, base))
        return Row(name, time, [picture], reason=_text(told["reason"]), remedy=_text(told.get("remedy")))
    outputs = dict(_outputs(told, scope))
    coverage = told.get("coverage")
    note = f", {coverage:.0%} person" if isinstance(coverage, int | float) else ""
    files = [(path.name, link) for path in outputs.values() if (link := _link(path, base))]
    return Row(
        name,
        time,
        _pictures(source, outputs, base),
        [(printable(label), link) for label, link in files],
        _flags(told),
        note,
    )


def _pictures(source: Path | None, outputs: Mapping[str, Path], base: Path) -> list[Shown]:
    """Source, matte and cutout; what was not published is made up from what was."""
    photo = thumbnails.small(source) if source else None
    cutout_path = outputs.get("cutout") or outputs.get("composite")
    cutout = thumbnails.small(cutout_path) if cutout_path else None
    matte = thumbnails.small(outputs["matte"]) if "matte" in outputs else None
    grey = matte[0] if matte else None
    if grey is None and cutout and cutout[1] is not None:
        grey = thumbnails.grey(cutout[1])
    final = cutout[0] if cutout else None
    if cutout and cutout[1] is not None:
        final = thumbnails.over_board(*cutout)  # type: ignore[arg-type]
    elif final is None and photo and grey is not None and photo[0].shape == grey.shape:
        final = thumbnails.over_board(photo[0], (grey[..., 0] / 255).astype("float32"))
    pairs = (
        ("source", photo[0] if photo else None, source),
        ("matte", grey, outputs.get("matte")),
        ("cutout", final, cutout_path),
    )
    return [
        Shown(what, None if picture is None else thumbnails.jpeg(picture), _link(path, base))
        for what, picture, path in pairs
    ]


def _outputs(told: Mapping[str, Any], scope: Scope) -> Iterator[tuple[str, Path]]:
    """(kind, path) of each output that lies where it should; the first of its kind counts."""
    seen = set()
    for output in told["outputs"] if isinstance(told["outputs"], list) else ():
        path = _below(scope.output, output) if isinstance(output, Mapping) else None
        kind = _text(output.get("kind")) if path else ""
        if path is not None and kind not in seen and path.is_file():
            seen.add(kind)
            yield kind, path


def _source_of(source: Mapping[str, Any], scope: Scope) -> Path | None:
    """Where the photo lies now: in the hot folder, in the archive, or nowhere."""
    named = source.get("folder")
    roots = scope.sources
    if not roots and isinstance(named, str) and named.startswith("/"):
        roots = (Path(named),)  # `hotmatte matte` calls a folder by its path
    places = [_below(root, source) for root in roots]
    return next((path for path in places if path is not None and _is_version(path, source)), None)


def _is_version(path: Path, source: Mapping[str, Any]) -> bool:
    """Whether it is the very photo: another one of that name was not decoded yet, and may be anything."""
    try:
        status = path.lstat()
    except (OSError, ValueError):
        return False
    found = Stamp.of(status)
    said = Stamp(source.get("size", found.size), source.get("mtime_ns", found.mtime_ns))
    return stat.S_ISREG(status.st_mode) and said == found


def _below(root: Path, said: Mapping[str, Any]) -> Path | None:
    """The path that a record names below `root`; None if it leads elsewhere."""
    try:
        raw = said.get("path_bytes")
        relative = Path(said["path"] if raw is None else os.fsdecode(bytes.fromhex(raw)))
        path = root / relative
    except (TypeError, ValueError, LookupError):
        return None
    inside = not relative.is_absolute() and ".." not in relative.parts and "\0" not in str(relative)
    return path if inside and relative.parts else None


def _link(path: Path | None, base: Path) -> str | None:
    return None if path is None else link_to(os.path.relpath(path, base))


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str) else ""
