"""The weights cache. Nothing leaves it unverified: every look hashes the file (15 ms for 25 MB).

Where the card knows no sha256, the first copy is believed and its sha256 recorded beside it; from then
on that is the one. Weights that were converted are believed only with the record of their conversion.
"""

from __future__ import annotations

import enum
import fcntl
import glob
import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from watcher.cache_settings import root_of
from watcher.engine import fetch, provenance
from watcher.engine.card import Card, ConvertedSource, FileSource, ModelScopeSource, Source, Weights
from watcher.engine.provenance import Provenance
from watcher.errors import EngineUnavailable, HostError, host_error
from watcher.log import event

Progress = Callable[[int, int | None], None]


class State(enum.StrEnum):
    """What lies where the weights should be."""

    OK = "ok"
    MISSING = "missing"
    UNRECORDED = "not recorded yet"
    DAMAGED = "DAMAGED"
    NOT_NEEDED = "not needed"


def cache_folder(chosen: Path | None) -> Path:
    """`models.cache` of the settings, or the user's cache folder (XDG)."""
    return root_of(chosen)


def place(card: Card, cache: Path) -> Path | None:
    """Where the weights of `card` belong, there or not; None where it has none."""
    return cache / card.name / card.weights.file if card.weights else None


def state(card: Card, cache: Path) -> State:
    """Looks, hashes, changes nothing."""
    return looked_up(card, cache)[0]


def looked_up(card: Card, cache: Path) -> tuple[State, Path | None]:
    """The state, and where the weights are or belong. Changes nothing."""
    target = place(card, cache)
    if card.weights is None or target is None:
        return State.NOT_NEEDED, None
    try:
        expected = _expected(card.weights, target)
    except EngineUnavailable:
        return State.DAMAGED, target
    found = _at_hand(card.weights, target, expected)
    if found is not None:
        return State.OK, found
    if expected is None and _lying(card.weights, target) is not None:
        return State.UNRECORDED, target
    return State.DAMAGED if target.exists() else State.MISSING, target


def expected_sha256(card: Card, cache: Path) -> str | None:
    """The sha256 that counts, the card's or the one on record; None where there is neither yet."""
    target = place(card, cache)
    return _expected(card.weights, target) if card.weights and target else None


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
    expected = _expected(card.weights, target)
    found = _at_hand(card.weights, target, expected)
    if found is not None:
        return found
    reasons = [f"{target}: its sha256 is wrong"] if expected and target.exists() else []
    if offline and (expected or _lying(card.weights, target) is None):
        reasons += [f"{source}: {_not_tried(source)}" for source in card.weights.sources]
    else:
        with _locked(target):
            # Another process may have fetched it while we waited.
            found = _believed(card.weights, target)
            if found is None:
                reasons += _fetch(card, target, progress)
                found = _at_hand(card.weights, target, _expected(card.weights, target))
            if found is not None:
                return found
    raise EngineUnavailable(
        f"the weights of {card.name} cannot be had: " + "; ".join(reasons), remedy=_remedy(card, target)
    )


def _remedy(card: Card, target: Path) -> str:
    """How the weights come here by other ways."""
    assert card.weights is not None
    for source in card.weights.sources:
        if isinstance(source, ConvertedSource):
            return f"Run `hotmatte models convert {source.model}`."
    known = f" ({card.weights.size} bytes, sha256 {card.weights.sha256})" if card.weights.sha256 else ""
    hubs = [source for source in card.weights.sources if isinstance(source, ModelScopeSource)]
    by_hand = "".join(f", downloaded from {source.page}," for source in hubs[:1])
    return (
        f"Put the file{by_hand} at {target}{known}, "
        f"or run `hotmatte models pull {card.name}` where the network is reachable."
    )


def sha256_of(path: Path) -> str:
    """Hex digest of the content of `path`. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def matches(path: Path, sha256: str) -> bool:
    """Whether the content of `path` is the one meant. False where it cannot be read."""
    try:
        return sha256_of(path) == sha256
    except OSError:
        return False


def _expected(weights: Weights, target: Path) -> str | None:
    """The sha256 of the card, or else the recorded one. Raises EngineUnavailable where that contradicts."""
    if weights.sha256 is not None:
        return weights.sha256
    record = provenance.read(target)
    if record is None:
        return None
    origin = record.converted_from
    if origin is not None:
        original = provenance.read(target.parent.parent / origin.model / origin.file)
        if original is not None and original.sha256 != origin.sha256:
            raise EngineUnavailable(
                f"{target} was converted from other weights of {origin.model} than those that are here",
                remedy=f"Run `hotmatte models convert {origin.model}` again.",
            )
    return record.sha256


def _places(weights: Weights, target: Path) -> Iterator[Path]:
    """Where a copy may lie on this machine: in the cache, or where a `file` source says."""
    yield target
    yield from (source.path.expanduser() for source in weights.sources if isinstance(source, FileSource))


def _at_hand(weights: Weights, target: Path, expected: str | None) -> Path | None:
    """A verified copy on this machine; None where there is none, or nothing to verify it by."""
    if expected is None:
        return None
    copies = itertools.chain(_places(weights, target), _namesakes(weights, target))
    return next((path for path in copies if matches(path, expected)), None)


def _namesakes(weights: Weights, target: Path) -> Iterator[Path]:
    """What other cards have in the cache under the same name: the same file perhaps, for another engine."""
    for path in sorted(target.parent.parent.glob(f"*/{glob.escape(target.name)}")):
        # By size first: hashing every model.onnx there is would take seconds.
        if path != target and weights.size is not None and _size(path) == weights.size:
            yield path


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _lying(weights: Weights, target: Path) -> Path | None:
    """A copy that may be believed for want of anything to verify it by."""
    if any(isinstance(source, ConvertedSource) for source in weights.sources):
        return None
    return next((path for path in _places(weights, target) if path.is_file()), None)


def _believed(weights: Weights, target: Path) -> Path | None:
    """As `_at_hand`; but where nothing is on record yet, what lies here is recorded and believed."""
    expected = _expected(weights, target)
    lying = _lying(weights, target) if expected is None else None
    if lying is None:
        return _at_hand(weights, target, expected)
    with _writing(target):
        _record(target, lying, source=f"found at {lying}")
    return lying


def _record(target: Path, content: Path, *, source: str) -> None:
    """Remember what `content` is as the weights that belong at `target`."""
    record = Provenance(sha256=sha256_of(content), size=content.stat().st_size, source=source)
    provenance.write(target, record)
    event(
        logging.WARNING,
        f"sha256 {record.sha256} of {target.name} recorded, will be verified from now on",
        source=source,
    )


def _not_tried(source: Source) -> str:
    if isinstance(source, ConvertedSource):
        return "not done yet, or without its record"
    if isinstance(source, FileSource):
        return "its sha256 is wrong" if source.path.expanduser().exists() else "is not there"
    return "not tried, `models.offline` is set"


def _fetch(card: Card, target: Path, progress: Progress) -> list[str]:
    """Try every remote source until `target` is right; the reasons of those that failed."""
    assert card.weights is not None
    reasons = []
    for source in card.weights.sources:
        if isinstance(source, FileSource | ConvertedSource):
            reasons.append(f"{source}: {_not_tried(source)}")
            continue
        try:
            _install(source, card, target, progress)
        except fetch.SourceFailed as error:
            event(logging.INFO, f"weights not had: {error}", source=source)
            reasons.append(f"{source}: {error}")
        else:
            event(logging.INFO, "weights fetched", source=source, path=target)
            break
    return reasons


def _install(source: Source, card: Card, target: Path, progress: Progress) -> None:
    """Fetch to a partial file, verify, and only then give it its name."""
    assert card.weights is not None
    part, size = target.with_name(target.name + ".part"), card.weights.size
    expected = _expected(card.weights, target)
    with _writing(target):
        resumed = fetch.fetch(source, part, size=size, python=card.interpreter, progress=progress)
        if expected and not matches(part, expected) and resumed:
            # What an earlier run left may not belong to what this server has.
            fetch.discard(part)
            fetch.fetch(source, part, size=size, python=card.interpreter, progress=progress)
        if expected and not matches(part, expected):
            fetch.discard(part)
            raise fetch.SourceFailed("what it sent has the wrong sha256 and was deleted")
        if expected is None:
            _record(target, part, source=str(source))
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
