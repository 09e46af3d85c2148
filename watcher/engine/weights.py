"""The weights cache. Nothing leaves it unverified: every look hashes the file (15 ms for 25 MB)."""

from __future__ import annotations

import enum
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from watcher.engine import fetch
from watcher.engine.card import Card, FileSource, Source, Weights
from watcher.errors import EngineUnavailable, HostError, host_error
from watcher.log import event

Progress = Callable[[int, int | None], None]


class State(enum.StrEnum):
    """What lies where the weights should be."""

    OK = "ok"
    MISSING = "missing"
    DAMAGED = "DAMAGED"
    NOT_NEEDED = "not needed"


def cache_folder(chosen: Path | None) -> Path:
    """`models.cache` of the settings, or the user's cache folder (XDG)."""
    if chosen is not None:
        return chosen
    root = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if root.startswith("/") else Path.home() / ".cache"
    return base / "hotmatte"


def place(card: Card, cache: Path) -> Path | None:
    """Where the weights of `card` belong, there or not; None where it has none."""
    return cache / card.name / card.weights.file if card.weights else None


def state(card: Card, cache: Path) -> State:
    """Looks, hashes, changes nothing."""
    target = place(card, cache)
    if card.weights is None or target is None:
        return State.NOT_NEEDED
    if _at_hand(card.weights, target) is not None:
        return State.OK
    return State.DAMAGED if target.exists() else State.MISSING


def ensure(
    card: Card, cache: Path, *, offline: bool = False, progress: Progress = fetch.silent
) -> Path | None:
    """The verified weights of `card`, fetched if need be; None where it has none.

    `progress(done, total)` in bytes, total None where unknown. Sources are tried in order.
    Raises EngineUnavailable with the reason of every source, HostError where the cache cannot be written.
    """
    target = place(card, cache)
    if card.weights is None or target is None:
        return None
    found = _at_hand(card.weights, target)
    if found is not None:
        return found
    reasons = [f"{target}: its sha256 is wrong"] if target.exists() else []
    if not offline:
        with _locked(target):
            # Another process may have fetched it while we waited.
            found = _at_hand(card.weights, target)
            if found is not None:
                return found
            reasons += _fetch(card.weights, target, progress)
            if target.exists() and matches(target, card.weights.sha256):
                return target
    else:
        reasons += [f"{source}: {_not_tried(source)}" for source in card.weights.sources]
    raise EngineUnavailable(
        f"the weights of {card.name} cannot be had: " + "; ".join(reasons),
        remedy=f"Put the file at {target} ({card.weights.size} bytes, sha256 {card.weights.sha256}), "
        f"or run `hotmatte models pull {card.name}` where the network is reachable.",
    )


def matches(path: Path, sha256: str) -> bool:
    """Whether the content of `path` is the one meant. False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _at_hand(weights: Weights, target: Path) -> Path | None:
    """A verified copy on this machine, in the cache or where a `file` source says."""
    local = (source.path.expanduser() for source in weights.sources if isinstance(source, FileSource))
    return next((path for path in (target, *local) if matches(path, weights.sha256)), None)


def _not_tried(source: Source) -> str:
    if isinstance(source, FileSource):
        return "its sha256 is wrong" if source.path.expanduser().exists() else "is not there"
    return "not tried, `models.offline` is set"


def _fetch(weights: Weights, target: Path, progress: Progress) -> list[str]:
    """Try every remote source until `target` is right; the reasons of those that failed."""
    reasons = []
    for source in weights.sources:
        if isinstance(source, FileSource):
            reasons.append(f"{source}: {_not_tried(source)}")
            continue
        try:
            _install(source, weights, target, progress)
        except fetch.SourceFailed as error:
            event(logging.INFO, f"weights not had: {error}", source=source)
            reasons.append(f"{source}: {error}")
        else:
            event(logging.INFO, "weights fetched", source=source, path=target)
            break
    return reasons


def _install(source: Source, weights: Weights, target: Path, progress: Progress) -> None:
    """Fetch to a partial file, verify, and only then give it its name."""
    part = target.with_name(target.name + ".part")
    with _writing(target):
        resumed = fetch.fetch(source, part, size=weights.size, progress=progress)
        if not matches(part, weights.sha256) and resumed:
            # What an earlier run left may not belong to what this server has.
            fetch.discard(part)
            fetch.fetch(source, part, size=weights.size, progress=progress)
        if not matches(part, weights.sha256):
            fetch.discard(part)
            raise fetch.SourceFailed("what it sent has the wrong sha256 and was deleted")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
        fetch.discard(part)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One fetcher at a time, over all processes; the lock goes with the process."""
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """What goes wrong with the cache is the machine's fault, not a source's."""
    try:
        yield
    except OSError as error:
        doing = f"write the weights to {target}"
        raise host_error(error, doing) or HostError(
            f"cannot {doing}: {error.strerror or error}",
            remedy="Make the folder writable, or name another one as `models.cache`.",
        ) from error
