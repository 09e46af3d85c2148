"""Posts a message to a URL, signed as Standard Webhooks says (https://www.standardwebhooks.com, 1.0).

The signature covers id, time and body, so that nobody can change or replay it. The URL is the
administrator's: unlike a photo's, it may lie inside the network.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from watcher import __version__

# For connecting and for each silence; for everything together, however slowly bytes drip.
TIMEOUT_S, WHOLE_S = 10.0, 30.0


class NotSent(Exception):
    """`final`: another try would end alike."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode("ascii")


def post(url: str, content: Mapping[str, Any], *, key: bytes, message_id: str, now: float) -> None:
    """`now`: wall clock, of this try. Raises NotSent."""
    body, timestamp = json.dumps(content).encode(), int(now)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"hotmatte/{__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(key, message_id, timestamp, body),
    }
    try:
        status = _posted(url, body, headers)
    except http.client.BadStatusLine as error:
        # Not in its own words: they may be as long as it likes.
        raise NotSent("what answers there does not speak HTTP, or closed the connection") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotSent(f"{error or type(error).__name__}") from error
    if 300 <= status < 400:  # the message was signed for this address
        words = (
            f"the server answers {status}, a redirect, which is not followed: name the address it leads to"
        )
        raise NotSent(words, final=True)
    if not 200 <= status < 300:
        raise NotSent(f"the server answers {status}", final=status < 500 and status not in (408, 425, 429))


def _posted(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    parts = urlsplit(url)
    host, target = str(parts.hostname), (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    ended = threading.Timer(WHOLE_S, _cut, [connection])
    ended.daemon = True
    try:
        ended.start()
        connection.request("POST", target, body, dict(headers))
        return connection.getresponse().status
    finally:
        ended.cancel()
        connection.close()


def _cut(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(2)
