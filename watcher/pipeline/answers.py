"""What an engine said of a photo, kept for the next time the same photo comes. See docs/cache.md.

An answer counts for the same bytes, decoded to the same proxy, by the same model, engine and
framework on the same kind of device, looked at as often. Outputs may differ: they are made anew.
"""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from isal import isal_zlib

import watcher.worker
from watcher.cache import Cache
from watcher.domain import EngineAbout, Frame, as_json
from watcher.pipeline import amounts, looks, review, scale, shrink
from watcher.pipeline.looks import Answer

# Of what an entry holds. Whatever else changes an answer counts by itself: see `code_of`.
VERSION = 1
# The size of proxies bounds it: no card asks for more.
MOST_PIXELS = 16_384**2

Trip = TypeVar("Trip")


@dataclass(slots=True)
class Tally:
    """Photos asked about since the start: `found` of them needed no engine."""

    asked: int = 0
    found: int = 0


def code_of(engine_file: Path) -> str:
    """A digest of the code that answers depend on: no upgrade has to think of the cache."""
    island = Path(watcher.worker.__file__).parent.glob("*.py")
    ours = [Path(str(module.__file__)) for module in (amounts, looks, review, scale, shrink)]
    digest = hashlib.sha256()
    for path in [engine_file, *sorted(island), *ours]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class Answers:
    """Those of one engine. `identity`: what else they depend on; `about` is asked when it has computed."""

    def __init__(
        self, cache: Cache, *, identity: Mapping[str, str], about: Callable[[], EngineAbout], tally: Tally
    ) -> None:
        self._cache = cache
        self._identity = dict(identity)
        self._about = about
        self._tally = tally
        self._lock = threading.Lock()
        self._known: tuple[EngineAbout, str] | None = None

    def key(self, frame: Frame, policy: str) -> str | None:
        """Equal keys: equal answers. None where nothing is kept."""
        if not self._cache.most:
            return None
        words = {
            "version": VERSION,
            "source": frame.sha256,
            "size": [frame.width, frame.height],
            # Another decoder, or another version of one, makes other pixels of the same bytes.
            "proxy": [
                *frame.proxy.shape,
                hashlib.sha256(np.ascontiguousarray(frame.proxy).ravel().data).hexdigest(),
            ],
            "looks": policy,
            "engine": self._who(self._about()),
        }
        return "alpha-" + hashlib.sha256(json.dumps(words).encode()).hexdigest()

    def _who(self, about: EngineAbout) -> str:
        """A digest of all that is said of who computes: the same for photo after photo."""
        known = self._known
        if known is None or known[0] != about:
            words = json.dumps({"about": as_json(about), **self._identity}, sort_keys=True)
            known = self._known = (about, hashlib.sha256(words.encode()).hexdigest())
        return known[1]

    def find(self, key: str) -> Answer | None:
        body = self._cache.find(key)
        answer = None if body is None else unpacked(body)
        with self._lock:
            self._tally.asked += 1
            self._tally.found += answer is not None
        return answer

    def shared(self) -> None:
        """An answer was taken over from the same photo, which was under way."""
        with self._lock:
            self._tally.asked += 1
            self._tally.found += 1

    def keep(self, key: str, answer: Answer) -> None:
        self._cache.keep(key, packed(answer))


def packed(answer: Answer) -> bytes:
    """Every bit of it: results must not depend on whether an answer was kept."""
    alpha = np.ascontiguousarray(answer.alpha, "<f4")
    head = {"shape": alpha.shape, "disagree": answer.disagree}
    # The high bytes of neighbours are alike, the low ones are not: apart they take less room.
    planes = alpha.view(np.uint8).reshape(-1, 4).T
    body = isal_zlib.compress(np.ascontiguousarray(planes), 1)
    return json.dumps(head).encode() + b"\n" + body


def unpacked(body: bytes) -> Answer | None:
    """None where this is no answer."""
    first, _, rest = body.partition(b"\n")
    try:
        head = json.loads(first)
        height, width = (int(side) for side in head["shape"])
        if not 0 < height * width <= MOST_PIXELS:
            return None
        planes = zlib.decompressobj().decompress(rest, 4 * height * width)
        levels = np.frombuffer(planes, np.uint8).reshape(4, height * width).T
        alpha = np.ascontiguousarray(levels).view("<f4").reshape(height, width).astype(np.float32)
        return Answer(alpha, bool(head["disagree"]), cached=True)
    except (ValueError, TypeError, LookupError, zlib.error):
        return None


class Sharing(Generic[Trip]):
    """Photos under way by key: the first is computed, the others wait for what comes of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Trip]] = {}

    def leads(self, key: str, trip: Trip) -> bool:
        """Whether `trip` is the first; if not, it is given back by `release`."""
        with self._lock:
            if key in self._waiting:
                self._waiting[key].append(trip)
                return False
            self._waiting[key] = []
            return True

    def release(self, key: str) -> list[Trip]:
        """Whoever waited for the first."""
        with self._lock:
            return self._waiting.pop(key, [])
