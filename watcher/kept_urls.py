"""Photos that were fetched by URL: kept with what their server calls this version (RFC 9111, RFC 9110 13).

The server is asked every time whether it has another; what is saved is the transfer. Only what
carries a validator is kept, and nothing that says `no-store`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from watcher.cache import Cache

# No real validator is longer.
MOST_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """What lay behind a URL, and the headers that ask whether it still does."""

    content: bytes
    etag: str | None
    modified: str | None

    @property
    def conditions(self) -> dict[str, str]:
        asked = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in asked.items() if value}


class KeptUrls:
    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def find(self, url: str) -> Kept | None:
        body = self._cache.find(_key(url))
        return None if body is None else _read(body)

    def keep(self, url: str, content: bytes, headers: Mapping[str, str | None]) -> None:
        """`headers` by their names in lower case."""
        etag, modified = _plain(headers.get("etag")), _plain(headers.get("last-modified"))
        if not etag and not modified:
            return
        if "no-store" in (headers.get("cache-control") or "").lower():
            return
        head = {"etag": etag, "modified": modified}
        self._cache.keep(_key(url), json.dumps(head).encode() + b"\n" + content)


def _key(url: str) -> str:
    # A URL may be as good as a password: only its hash is written down.
    return "url-" + hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()


def _read(body: bytes) -> Kept | None:
    first, _, content = body.partition(b"\n")
    try:
        head = json.loads(first)
        return Kept(content, head["etag"], head["modified"])
    except (ValueError, TypeError, LookupError):
        return None


def _plain(value: str | None) -> str | None:
    """A header that can be sent back as it is."""
    if value is None or not value.isprintable() or not value.isascii() or len(value) > MOST_CHARS:
        return None
    return value
