"""TLS to a broker: whose word counts, who we are, and why a connection was not made, in plain words."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from watcher.errors import ConfigError
from watcher.fleet_settings import Queue

SECURE = ("rediss:", "amqps:")
LET_IN = "Correct user and password in queue.url (or $HOTMATTE_QUEUE_URL)."


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. `ca`: who may have signed the broker's certificate, None for whom this host trusts anyway.

    `cert`, `key`: our own certificate for a broker that asks for one; both may be in one file.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def of(cls, queue: Queue) -> Tls:
        return cls(queue.ca_file, queue.cert_file, queue.key_file)

    def context(self) -> ssl.SSLContext:
        """Name and signature of the broker are checked. Raises ConfigError for files that cannot be used."""
        context = ssl.create_default_context()
        if self.ca is not None:
            with _Read("ca_file", self.ca):
                context.load_verify_locations(self.ca)
        if self.cert is not None:
            with _Read("cert_file", self.cert):
                context.load_cert_chain(self.cert, self.key, password=_ask_nobody)
        return context


def _ask_nobody() -> str:
    """OpenSSL would ask at the terminal, which a service has not."""
    raise ValueError("its key is locked by a passphrase")


class _Read:
    """Whatever is wrong with a file, as ConfigError with the setting that names it."""

    def __init__(self, setting: str, path: Path) -> None:
        self._setting, self._path = setting, path

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ssl.SSLError):
            words = "holds no certificate, or its key is missing or another one"
        elif isinstance(error, OSError):
            words = f"cannot be read: {error.strerror or error}"
        elif isinstance(error, ValueError):
            words = f"cannot be used: {error}"
        else:
            return
        raise ConfigError([f"queue.{self._setting}: {self._path} {words}"]) from error


def explained(said: str) -> tuple[str, str] | None:
    """What `said`, the words of a client library, means, and what to do; None where they do for themselves."""
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return _unverified(said)
    if "WRONG_VERSION_NUMBER" in said or "RECORD_LAYER_FAILURE" in said:
        return (
            "what answers does not speak TLS",
            "Name the port on which it does, or begin queue.url with redis:// or amqp://.",
        )
    if "EOF occurred in violation of protocol" in said or "CERTIFICATE_REQUIRED" in said:
        return (
            "it broke off while TLS was agreed upon",
            "If it asks its clients for a certificate, name ours as queue.cert_file and queue.key_file; else see its log.",
        )
    refused = ("Authentication required", "invalid username-password", "ACCESS_REFUSED", "WRONGPASS")
    if any(word in said for word in refused):
        return f"it does not let us in: {said}", LET_IN
    if "NOT_ALLOWED" in said and "vhost" in said:
        return (
            f"it does not let us into the virtual host that queue.url ends with: {said}",
            "Correct queue.url, or on the broker's host: rabbitmqctl add_vhost, set_permissions.",
        )
    if "DB index is out of range" in said:
        return (
            "it has no database of the number that queue.url ends with",
            "Correct queue.url: Redis has 0 to 15, unless `databases` in redis.conf says otherwise.",
        )
    return None


def _unverified(said: str) -> tuple[str, str]:
    if "has expired" in said:
        return "its certificate has expired", "Renew it on the broker's host; work goes on by itself."
    if "not yet valid" in said:
        return "its certificate is not valid yet", "Correct the clock of this host, or of the broker's."
    if "not valid for" in said or "ostname mismatch" in said:
        return (
            "its certificate was made for another name",
            "Name the host in queue.url as its certificate does, or have one made that holds this name.",
        )
    return (
        "its certificate is signed by nobody whom this host trusts",
        "Name the certificate of whoever signed it as queue.ca_file.",
    )
