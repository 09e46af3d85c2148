"""Who may do what: API keys, the page's session, and no foreign web site at all.

Without a key somebody may do everything where `web` listens on loopback or a Unix socket (unless
`keys: always`), and nothing elsewhere. A browser is asked where a request comes from: what
another site makes it send is refused, and so is a host name that is not ours, or a name that is
made to resolve to this machine (DNS rebinding) would count as the same site.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request

from watcher.web.keys import SCOPES, Key, KeyRing, Scope
from watcher.web.refusal import Refused
from watcher.web_settings import Web, is_loopback

COOKIE = "hotmatte"
SESSION_S = 30 * 86_400
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """`id` counts requests and keeps idempotency keys apart; `key` is None for one without."""

    id: str
    scopes: tuple[str, ...]
    key: Key | None = None


class Access:
    def __init__(self, web: Web, keys: KeyRing, secret: bytes) -> None:
        self._web = web
        self._keys = keys
        self._secret = secret
        own = () if web.socket_path else (web.address[0].lower(),)
        self._hosts = {"localhost", *own, *(host.lower() for host in web.hosts)}

    def caller(self, request: Request) -> Caller:
        """Who asks. Raises Refused for a wrong key, a foreign site, or nobody where that is too little."""
        self._check_host(request)
        word = _presented(request)
        if word is not None:
            key = self._keys.find(word)
            if key is not None:
                return Caller(key.id, key.scopes, key)
            if self._web.needs_keys or self._keys.all():
                raise _unknown_key()
            # A client that cannot do without one, where none has ever been made.
        self._check_site(request)
        session = self._session(request.cookies.get(COOKIE, ""))
        if session is not None:
            return Caller(session.id, session.scopes, session)
        if self._web.needs_keys:
            raise _unknown_key()
        return Caller(request.client.host if request.client else "local", SCOPES)

    # --- The page's session ----------------------------------------------------------------

    def log_in(self, word: str) -> str | None:
        """The content of a cookie for the key `word`; None if it is none."""
        key = self._keys.find(word.strip())
        if key is None:
            return None
        content = f"{key.id}.{int(time.time() + SESSION_S)}"
        return f"{content}.{self._signature(content, key)}"

    def _session(self, cookie: str) -> Key | None:
        """The key somebody logged in with, as long as it is not revoked."""
        content, _, signature = cookie.rpartition(".")
        id_, _, until = content.partition(".")
        key = self._keys.get(id_)
        if key is None or not until.isdecimal() or len(until) > 12 or int(until) < time.time():
            return None
        expected = self._signature(content, key).encode()
        return key if hmac.compare_digest(signature.encode(), expected) else None

    def _signature(self, content: str, key: Key) -> str:
        return hmac.new(self._secret, f"{content}.{key.digest}".encode(), hashlib.sha256).hexdigest()

    # --- Where it comes from ---------------------------------------------------------------

    def check_origin(self, request: Request) -> None:
        """Raises Refused for another host name than ours, and for what another site makes a browser send."""
        self._check_host(request)
        self._check_site(request)

    def _check_host(self, request: Request) -> None:
        if self._web.needs_keys and not self._web.hosts:
            return
        host = _hostname(request.headers.get("host", ""))
        if host not in self._hosts and not (host and is_loopback(host)):
            raise Refused(
                421,
                "unknown_host",
                "This service is not known by that host name",
                detail="Add the name to `web.hosts` in the configuration if it is right.",
            )

    def _check_site(self, request: Request) -> None:
        """Browsers say where a request comes from; programs say nothing, and are no danger."""
        site = request.headers.get("sec-fetch-site")
        if request.method in SAFE or site in ("same-origin", "none"):
            return
        origin = request.headers.get("origin")
        if not (site is None if origin is None else _is_at(origin, request.headers.get("host", ""))):
            raise Refused(403, "foreign_site", "Another web site may not do this")


def _presented(request: Request) -> str | None:
    word = request.headers.get("x-api-key")
    if word is not None:
        return word
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _is_at(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _unknown_key() -> Refused:
    return Refused(
        403, "auth_failed", "API Key invalid", detail="Send a key as X-Api-Key: `hotmatte keys add`."
    )


class Allowed:
    """A dependency: the caller, if `scope` is among what they may do; counted, if `counted`."""

    def __init__(self, scope: Scope, *, counted: bool = True) -> None:
        self.scope = scope
        self.counted = counted

    async def __call__(self, request: Request) -> Caller:
        """On the loop: a hop to a thread and back costs more than all that is asked here."""
        site = request.app.state.site
        caller: Caller = site.access.caller(request)
        if self.scope not in caller.scopes:
            raise Refused(
                403, "not_permitted", f"This key may not do that: it lacks the scope `{self.scope}`"
            )
        if self.counted:
            request.state.rate = site.rate.take(caller.id)
        return caller


def allowed(scope: Scope, *, counted: bool = True) -> Any:
    return Depends(Allowed(scope, counted=counted))


Reader = Annotated[Caller, allowed("read")]
Looker = Annotated[Caller, allowed("read", counted=False)]
Uploader = Annotated[Caller, allowed("upload")]
Operator = Annotated[Caller, allowed("operate")]
Scraper = Annotated[Caller, allowed("metrics", counted=False)]
