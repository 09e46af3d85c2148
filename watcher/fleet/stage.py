"""Where nodes put what they made, until the watcher publishes it: folders on the share.

    STATE/stage/WATCHER/JOB/            there as long as the watcher wants the job done
        FENCE-NODE-NONCE/               one attempt of one node, nobody else writes there
            claim.json                  what was asked; an attempt without results was cut short
            a.cutout.png a.matte.json   a whole set: the sidecar comes last

So a result survives the loss of the broker, of its reply and of the watcher, and an attempt that
nobody waits for any more is only a folder to be removed.
"""

from __future__ import annotations

import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from watcher.errors import ConfigError, HostError
from watcher.fleet.messages import JobMessage, Unreadable, job_in, pack
from watcher.pipeline.obstacles import translated
from watcher.pipeline.sidecar import SIDECAR, Record, record_in

CLAIM = "claim.json"


@dataclass(frozen=True, slots=True)
class Staged:
    """A whole set of results, and the claim it was made for."""

    place: Path
    sidecar: Path
    record: Record
    claim: JobMessage


# --- The watcher's side --------------------------------------------------------------------


def open_job(place: Path) -> None:
    """From now on nodes may work on the job whose attempts go below `place`. Raises HostError."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise translated(error, place.parent) from error


def close_job(place: Path) -> None:
    """Nobody waits for the job any more; what its attempts left goes."""
    shutil.rmtree(place, ignore_errors=True)


def sweep_jobs(root: Path, *, wanted: Callable[[int], bool]) -> int:
    """Close all jobs of one watcher that are not `wanted`: what late nodes leave. How many."""
    count = 0
    with suppress(OSError):
        for place in list(root.iterdir()):
            if place.name.isdigit() and not wanted(int(place.name)):
                close_job(place)
                count += 1
    return count


def find(place: Path, message: JobMessage) -> Staged | None:
    """A whole set for the same work below `place`, by whichever node, for whichever claim. Raises HostError."""
    for attempt in _attempts(place):
        staged = staged_in(attempt)
        if staged is not None and staged.claim.same_work(message):
            return staged
    return None


def staged_in(attempt: Path) -> Staged | None:
    """The set in the folder of one attempt, if it is whole."""
    with suppress(OSError):  # the job may end, and its folders go, at any moment
        claim = _claim(attempt)
        sidecars = [path for path in attempt.glob("*" + SIDECAR) if not path.name.startswith(".")]
        if claim is None or len(sidecars) != 1:
            return None
        record = record_in(sidecars[0].read_bytes())
        base = sidecars[0].name.removesuffix(SIDECAR)
        if record and all(_is_file(attempt / (base + one.suffix), one.size) for one in record.outputs):
            return Staged(attempt, sidecars[0], record, claim)
    return None


def sweep_watchers(root: Path, own: str, *, before: float) -> int:
    """Remove the folders of other watchers that nothing has been put into since `before` (wall clock). How many."""
    count = 0
    with suppress(OSError):
        for place in list(root.iterdir()):
            if place.name != own and place.stat().st_mtime < before:
                close_job(place)
                count += 1
    return count


# --- The node's side -----------------------------------------------------------------------


def is_wanted(place: Path) -> bool:
    """Whether the watcher still waits for the job. Raises HostError where the share does not say."""
    try:
        return place.is_dir()
    except OSError as error:
        raise translated(error, place) from error


def begin(place: Path, message: JobMessage, node: str) -> Path:
    """A folder for one attempt. Raises HostError."""
    attempt = place / f"{message.fence}-{node}-{secrets.token_hex(4)}"
    try:
        attempt.mkdir()
        (attempt / CLAIM).write_text(pack(message), encoding="utf-8")
    except OSError as error:
        raise translated(error, place) from error
    return attempt


def give_up(attempt: Path) -> None:
    """An attempt that ended without results, and not by the death of its node."""
    shutil.rmtree(attempt, ignore_errors=True)


def cut_short(place: Path) -> int:
    """How many attempts began and never ended: their nodes died, or are slow. Raises HostError."""
    return sum(1 for attempt in _attempts(place) if _claim(attempt) and staged_in(attempt) is None)


def _is_file(path: Path, size: int) -> bool:
    """A link would be published as one."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def _attempts(place: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in place.iterdir() if path.is_dir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"cannot look into {place}: {error.strerror or error}") from error


def _claim(attempt: Path) -> JobMessage | None:
    try:
        return job_in((attempt / CLAIM).read_text(encoding="utf-8"))
    except (OSError, ValueError, Unreadable, ConfigError):  # another version's is not ours to publish
        return None
