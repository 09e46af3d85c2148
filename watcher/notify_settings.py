"""The `notify` section of the configuration: whom to tell what, and how often at most."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Annotated, Literal

from pydantic import Field

from watcher.errors import ConfigError
from watcher.strict import Place, Strict

Event = Literal["done", "failed", "offline", "paused", "engine", "daemon"]
EVENTS: tuple[Event, ...] = ("done", "failed", "offline", "paused", "engine", "daemon")
SECRET = "HOTMATTE_WEBHOOK_SECRET"
PREFIX = "whsec_"
# What the specification of Standard Webhooks asks for.
LEAST_BYTES, MOST_BYTES = 24, 64


class Notify(Strict):
    """Who is told what happened. Sent by `hotmatte web`, never by the daemon."""

    webhook: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = Field(
        None, description="URL that messages are posted to, signed (Standard Webhooks)"
    )
    secret_file: Place | None = Field(
        None, description=f"file with the webhook's secret; the environment's {SECRET} if unset"
    )
    apprise: tuple[str, ...] = Field(
        (), description="URLs of mail, chat and the like for Apprise: pip install 'hotmatte[notify]'"
    )
    events: tuple[Event, ...] = Field(
        EVENTS,
        description="which: a queue is done, photos failed, a folder is away or paused, an engine or the daemon is away",
    )
    digest_s: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = Field(
        300.0, description="at most one message for each hot folder in this time"
    )

    @property
    def wanted(self) -> bool:
        return self.webhook is not None or bool(self.apprise)


def secret_of(settings: Notify) -> bytes:
    """The webhook's key. Raises ConfigError where there is none, or none that would do."""
    if settings.secret_file is not None:
        try:
            text = settings.secret_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise _no_secret(f"notify.secret_file: {settings.secret_file} cannot be read: {error}") from error
    else:
        text = os.environ.get(SECRET, "")
        if not text:
            raise _no_secret(f"notify.webhook: neither notify.secret_file nor {SECRET} is set")
    try:
        key = base64.b64decode(text.strip().removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise _no_secret("the webhook's secret is not base64") from error
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise _no_secret(
            f"the webhook's secret has {len(key)} bytes; {LEAST_BYTES} to {MOST_BYTES} are asked for"
        )
    return key


def _no_secret(problem: str) -> ConfigError:
    return ConfigError(
        [problem], remedy="Make one: (umask 077; head -c 32 /dev/urandom | base64 > webhook.secret)"
    )
