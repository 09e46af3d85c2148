"""What was published for a job, as its sidecar tells; and the photo, where it still is. Reads only."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watcher.config import Folder
from watcher.domain import Source, Stamp
from watcher.journal import Record

MEDIA = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "tiff": "image/tiff",
    "avif": "image/avif",
    "jxl": "image/jxl",
    "psd": "image/vnd.adobe.photoshop",
}
# What can be opened again here, the best first.
OPENED = ("png", "webp", "tiff", "avif", "jpeg")
# Photos of which the page can show something; camera RAW and JPEG XL are only matted.
SHOWN = frozenset(
    ["jpg", "jpeg", "jpe", "png", "tif", "tiff", "webp", "bmp", "gif", "heic", "heif", "avif", "psd"]
)
_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt])")


@dataclass(frozen=True, slots=True)
class Output:
    """One published file. `path` is where it lies, inside the hot folder's output."""

    kind: str
    path: Path
    format: str
    width: int
    height: int
    size: int
    sha256: str

    @property
    def media_type(self) -> str:
        return MEDIA.get(self.format, "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Result:
    """`sidecar` is the JSON beside the outputs, as it was read."""

    outputs: tuple[Output, ...]
    sidecar: dict[str, Any] = field(repr=False)

    def one(self, kind: str) -> Output | None:
        """The output of that kind that is best opened again; None if there is none."""
        fit = [output for output in self.outputs if output.kind == kind and output.format in OPENED]
        return min(fit, key=lambda output: OPENED.index(output.format), default=None)


def words_of(record: Record) -> dict[str, Any]:
    """The outcome in the journal; empty where there is none."""
    try:
        words = json.loads(record.outcome or "{}")
    except ValueError:
        return {"reason": record.outcome}
    return words if isinstance(words, dict) else {}


def result_of(record: Record, folder: Folder | None) -> Result | None:
    """None where nothing was published, or it has been taken away or replaced since."""
    told = words_of(record).get("sidecar")
    if folder is None or not isinstance(told, str):
        return None
    try:
        sidecar = json.loads(_inside(Path(unprinted(told)), folder.output).read_bytes())
        source = sidecar["source"]
        stamp = record.job.source.stamp
        if (source["size"], source["mtime_ns"]) != (stamp.size, stamp.mtime_ns):
            return None
        outputs = tuple(_output(item, folder.output) for item in sidecar["outputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Result(outputs, sidecar)


def photo_of(source: Source, folder: Folder | None) -> Path | None:
    """Where this very version of the photo lies: in the hot folder, or archived."""
    if folder is None:
        return None
    roots = [folder.path] if folder.archive is None else [folder.path, folder.archive]
    for root in roots:
        path = root / source.relpath
        try:
            if Stamp.of(_inside(path, root).stat()) == source.stamp:
                return path
        except (OSError, ValueError):
            continue
    return None


def unprinted(text: str) -> str:
    """The name that `domain.printable` has escaped."""
    return _ESCAPE.sub(_meant, text)


def _meant(match: re.Match[str]) -> str:
    word = match[1]
    if word == "\\":
        return "\\"
    if word in "nrt":
        return {"n": "\n", "r": "\r", "t": "\t"}[word]
    code = int(word[1:], 16)
    # Above ASCII, \xNN stands for a byte that is not UTF-8.
    return chr(0xDC00 + code) if word[0] == "x" and code >= 0x80 else chr(code)


def _output(item: dict[str, Any], root: Path) -> Output:
    raw = item.get("path_bytes")
    relpath = item["path"] if raw is None else os.fsdecode(bytes.fromhex(raw))
    return Output(
        str(item["kind"]),
        _inside(root / relpath, root),
        str(item["format"]),
        int(item["width"]),
        int(item["height"]),
        int(item["size"]),
        str(item["sha256"]),
    )


def _inside(path: Path, root: Path) -> Path:
    """`path`, links followed. Raises ValueError where that leads out of `root`."""
    real, top = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    if top not in real.parents:
        raise ValueError("leads out of the folder")
    return real
