"""Fetch a photo by URL without being used against the network it stands in.

The host is resolved once, every address is checked, and the connection goes to the very
address that was checked: a name that resolves differently the second time (DNS rebinding)
gains nothing. Each redirect is checked the same way. Bytes and time are bounded throughout.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import ipaddress
import socket
import ssl
import string
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from watcher import __version__
from watcher.domain import printable
from watcher.errors import InputNotReady, InputRejected
from watcher.kept_urls import Kept, KeptUrls


class ServerBusy(InputNotReady):
    """Its server is there, and says that it cannot answer now; `after`: seconds until it may, if it says so."""

    remedy = "Try again later."
    after: float | None = None


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
BUSY = frozenset({429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
CHUNK = 1 << 16
# A share of the whole time for one connection attempt, so that a dead address leaves room for the next.
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class UrlLimits:
    """Bytes, seconds for everything together, and hops."""

    max_mb: float = 100.0
    timeout_s: float = 60.0
    max_redirects: int = 5


@dataclass(frozen=True, slots=True)
class Download:
    """`name`: a file name made from the URL, safe to use; `url`: after all redirects."""

    content: bytes
    name: str
    url: str


class Waiting:
    """Whoever waits for a download. May leave from another thread: then the connection ends at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connected: socket.socket | None = None
        self.left = False

    def leave(self) -> None:
        with self._lock:
            self.left = True
            self._cut()

    def goes_by(self, connected: socket.socket | None) -> None:
        """From now on it is this connection that is waited for; None: it is about to be closed."""
        with self._lock:
            self._connected = connected
            if self.left:
                self._cut()

    def _cut(self) -> None:
        if self._connected is not None:
            with suppress(OSError):
                # Not TLS's own, which would take its state away from whoever reads.
                socket.socket.shutdown(self._connected, socket.SHUT_RDWR)


def is_public(address: Address) -> bool:
    """Whether `address` is one that a stranger may name.

    Not: loopback, private, link-local (cloud metadata lives there), multicast, reserved, and
    IPv4 addresses in an IPv6 disguise (mapped, 6to4, NAT64) unless they are public themselves.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def download(
    url: str,
    *,
    limits: UrlLimits | None = None,
    allowed: Callable[[Address], bool] = is_public,
    kept: KeptUrls | None = None,
    waiting: Waiting | None = None,
) -> Download:
    """The content behind `url`. Where `kept` has it, the server is only asked whether it changed.

    Raises InputRejected for what will never work (refused address, too large, 404) and
    InputNotReady for what may (no network, 503, time-out).
    """
    limits, waiting = limits or UrlLimits(), waiting or Waiting()
    deadline = time.monotonic() + limits.timeout_s
    for _ in range(limits.max_redirects + 1):
        parts = _parse(url)
        known = kept.find(url) if kept else None
        if known is not None and len(known.content) > limits.max_mb * 1e6:
            known = None
        try:
            content, onwards, headers = _get(parts, limits, allowed, deadline, known, waiting)
        except (OSError, http.client.HTTPException) as error:
            raise InputNotReady(
                printable(f"{url} cannot be fetched: {error or type(error).__name__}"),
                remedy="Check the URL and the network, then try again.",
            ) from error
        if onwards is None:
            if kept is not None and headers:
                kept.keep(url, content, headers)
            return Download(content, _name(parts), url)
        url = _onwards(url, onwards)
    raise InputRejected(
        f"{url} is one redirect too many ({limits.max_redirects})", remedy="Give the URL of the photo itself."
    )


def _onwards(url: str, location: str) -> str:
    # Headers come as Latin-1, whatever their bytes mean: sent back as they are, the server knows.
    quoted = quote(location, safe=string.punctuation, encoding="latin-1")
    try:
        return urljoin(url, quoted)
    except ValueError as error:
        raise InputRejected(f"{url} leads to {quoted[:200]}, which is no URL") from error


def _parse(url: str) -> SplitResult:
    try:
        url.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        words = f"{url} is not a URL: it has half a character in it"
        raise InputRejected(printable(words), remedy="Correct it.") from error
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputRejected(printable(f"{url} is not a URL: {error}"), remedy="Correct it.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InputRejected(printable(f"{url} is not an http or https URL"), remedy="Correct it.")
    if parts.username or parts.password:
        raise InputRejected("a URL with a password in it is not fetched", remedy="Download it yourself.")
    return parts


def _get(
    parts: SplitResult,
    limits: UrlLimits,
    allowed: Callable[[Address], bool],
    deadline: float,
    known: Kept | None,
    waiting: Waiting,
) -> tuple[bytes, str | None, dict[str, str | None]]:
    """The body, or where to look instead; the headers of a body that is new."""
    connection = _connect(parts, allowed, deadline)
    try:
        timed: Any = connection.sock
        waiting.goes_by(timed.connected)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(
            "GET",
            quote(target, safe=string.punctuation, errors="surrogateescape"),
            headers={
                "User-Agent": f"hotmatte/{__version__}",
                "Accept": "image/*, */*;q=0.1",
                **(known.conditions if known else {}),
            },
        )
        response = connection.getresponse()
        if response.status in REDIRECTS and (onwards := response.getheader("Location")):
            return b"", onwards, {}
        if response.status == 304 and known is not None:
            return known.content, None, {}
        if response.status != 200:
            words = printable(f"the server answers {response.status} {response.reason}".rstrip())
            if response.status in BUSY:
                busy = ServerBusy(words)
                busy.after = _seconds(response.getheader("Retry-After", ""))
                raise busy
            raise InputRejected(words, remedy="Check the URL.")
        headers = {name.lower(): value for name, value in response.getheaders()}
        return _body(response, limits), None, dict(headers)
    finally:
        waiting.goes_by(None)
        connection.close()


def _connect(
    parts: SplitResult, allowed: Callable[[Address], bool], deadline: float
) -> http.client.HTTPConnection:
    host, secure = str(parts.hostname), parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    addresses = _resolve(host, port)
    for address in addresses:
        # One private address among public ones is how rebinding looks: refuse them all.
        if not allowed(address):
            which = "" if host == str(address) else f"{address}, "
            raise InputRejected(
                f"{host} is {which}an address inside this network",
                remedy="Copy the photo into the hot folder instead.",
            )
    plain = _first_that_answers(addresses, port, deadline)
    connection = http.client.HTTPConnection(host, port)
    try:
        plain.settimeout(_left(deadline))
        secured = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
        connection.sock = _Timed(secured, deadline)
    except BaseException:
        plain.close()
        raise
    return connection


class _Timed:
    """What http.client needs of a connection. Each read, of headers too, gets what is left of the whole."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self.connected = self._socket = connected
        self._deadline = deadline

    def sendall(self, content: bytes) -> None:
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(content)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_Arriving(self._socket, self._deadline))

    def close(self) -> None:
        """Whoever reads has it until the last byte."""
        self._socket.close()


class _Arriving(io.RawIOBase):
    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._deadline = deadline
        self._bytes = connected.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int | None:
        # Dripping bytes do not prolong it, nor do headers or trailers without end.
        self._socket.settimeout(_left(self._deadline))
        return self._bytes.readinto(room)

    def close(self) -> None:
        self._bytes.close()
        super().close()


def _resolve(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise InputRejected(printable(f"{host} is no name of a host"), remedy="Correct the URL.") from error
    # A link-local address carries its interface behind a per cent sign.
    return list(dict.fromkeys(ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found))


def _first_that_answers(addresses: list[Address], port: int, deadline: float) -> socket.socket:
    last: OSError = TimeoutError("timed out")
    for address in addresses:
        try:
            return socket.create_connection((str(address), port), min(CONNECT_S, _left(deadline)))
        except OSError as error:
            last = error
    raise last


def _body(response: http.client.HTTPResponse, limits: UrlLimits) -> bytes:
    most = int(limits.max_mb * 1e6)
    if response.length is not None and response.length > most:
        raise InputRejected(f"it has {response.length / 1e6:.0f} MB; the limit is {limits.max_mb:g}")
    content = bytearray()
    while piece := response.read1(CHUNK):
        content += piece
        if len(content) > most:
            raise InputRejected(f"it has more than {limits.max_mb:g} MB")
    if response.length:
        raise http.client.IncompleteRead(bytes(content), response.length)
    return bytes(content)


def _seconds(after: str) -> float | None:
    """Of a Retry-After: seconds, or a date. None for neither."""
    if after.isdecimal() and len(after) < 10:
        return float(after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left


def _name(parts: SplitResult) -> str:
    """The last part of the path, with nothing in it that a file name should not have."""
    name = PurePosixPath(unquote(parts.path)).name
    kept = "".join(char for char in name if char.isprintable() and char not in '/\\:*?"<>|').strip(" .")
    return kept[-100:] or "photo"
