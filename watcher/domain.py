"""The nouns. Frozen, comparable, free of I/O."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # `hotmatte status` needs the nouns, not the arrays
    import numpy as np
    from numpy.typing import NDArray

# A camera writes both halves of a pair at once. A name that comes back much later is another shot: cameras
# count to 9999 and begin again.
SAME_SHOT_S = 60.0

Pixels: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What stat() said. Equal stamps: same bytes, as far as anyone can tell cheaply."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_size, max(_FIRST_NS, min(_LAST_NS, status.st_mtime_ns)))


# 1677 to 2262: what the journal's numbers hold. File systems hold more, and broken clients write it.
_FIRST_NS, _LAST_NS = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Source:
    """One version of one file: the identity of a job.

    `relpath` is relative to the hot folder, with `/` between its parts; bytes that
    are not UTF-8 are held as surrogates, as `os.fsdecode` makes them.
    """

    folder: str
    relpath: str
    stamp: Stamp


class JobState(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that came to its end `at` (wall clock), as it stands in the journal."""

    source: Source
    state: JobState
    outcome: str
    at: float


@dataclass(frozen=True, slots=True)
class Job:
    """One version of one source, on its way.

    `attempts` counts claims, this one included; `crashes` counts holders that died
    with it; `fence` numbers the claim, so that a stale holder can be told apart.
    """

    id: int
    source: Source
    attempts: int
    fence: int
    crashes: int = 0

    @property
    def suspect(self) -> bool:
        """Has failed before, so it must not share a batch with innocents."""
        return self.attempts > 1


@dataclass(frozen=True, slots=True)
class Metadata:
    """What travels from the source file to its outputs unchanged.

    `exif` is a TIFF block without the `Exif\\0\\0` prefix, orientation already reset to 1;
    `dpi` is (x, y) in pixels per inch; `iptc` is an IIM record, beginning with 0x1C.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded, upright image at its native depth.

    `pixels`: HxWx3 RGB in the colour space of `profile` (ICC bytes; None means sRGB).
    `opacity`: HxW of the same dtype, the alpha the source brought along, or None.
    `proxy`: hxwx3 sRGB, the reduced copy an engine sees.
    `sha256`: hex digest of the very bytes that were decoded.
    """

    job: Job
    path: Path
    pixels: Pixels
    opacity: Pixels | None
    profile: bytes | None
    metadata: Metadata
    proxy: NDArray[np.uint8]
    sha256: str
    format: str
    warnings: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class Published:
    """One output as it lies on disk. `path` is relative to the output folder."""

    kind: str
    path: str
    format: str
    width: int
    height: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class EngineAbout:
    """Who computed the alpha. `device` is the one actually used, not the one asked for."""

    model: str
    engine: str
    framework: str
    device: str
    weights_sha256: str | None


@dataclass(frozen=True, slots=True)
class Review:
    """Something a person should look at. `flags` are stable words, `coverage` is mean alpha 0..1."""

    coverage: float
    uncertain: float
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job ended in quarantine: the class of error, plain words, and what to do."""

    error: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job that was worked on; becomes its sidecar."""

    job: Job
    files: tuple[Published, ...]
    sidecar: Path
    review: Review
    timings: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds
    warnings: tuple[str, ...] = ()
    cached: bool = False  # the engine had answered about this photo before

    @property
    def skipped(self) -> str | None:
        """Why nothing was published, in words; `duplicates: skip` left the name to another photo."""
        return next(reversed(self.warnings), None) if not self.files else None


def printable(name: str) -> str:
    """`name` for people and JSON: one line, no control characters, no lone surrogates.

    Backslashes are doubled, so that the result is unambiguous.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(_shown(char) for char in name)


def _shown(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if char == "\\":
        return "\\\\"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def as_json(value: Any) -> Any:
    """Nested dataclasses, tuples and paths as what `json.dumps` understands."""
    match value:
        # Most of what there is, and sooner told than the abstract classes below.
        case None | str() | int() | float():
            return value
        case Path():
            return printable(str(value))
        case Mapping():
            return {str(key): as_json(item) for key, item in value.items()}
        case list() | tuple():
            return [as_json(item) for item in value]
        case _ if hasattr(value, "__dataclass_fields__"):
            return {name: as_json(getattr(value, name)) for name in value.__dataclass_fields__}
        case _:
            return value
