"""Whoever is to be told, as the `notify` section names them: a webhook, and what Apprise knows."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from watcher.digest import Notice
from watcher.errors import ConfigError
from watcher.messenger import Send
from watcher.notify_settings import Notify, secret_of
from watcher.webhook import NotSent, post

TITLE = "Hotmatte"


def receivers_of(settings: Notify, *, clock: Callable[[], float] = time.time) -> dict[str, Send]:
    """By what the log calls them: an address may hold a password. Raises ConfigError."""
    found: dict[str, Send] = {}
    if settings.webhook is not None:
        found["webhook"] = partial(_post, settings.webhook, secret_of(settings), clock)
    if settings.apprise:
        apprise = _apprise()
        for number, url in enumerate(settings.apprise, 1):
            target = apprise.Apprise()
            if not target.add(url):
                problem = f"notify.apprise: the {number}. address is none that Apprise understands"
                raise ConfigError([problem], remedy="See https://github.com/caronc/apprise/wiki.")
            found[f"{url.partition(':')[0]} ({number})"] = partial(_tell, target)
    return found


def _post(url: str, key: bytes, clock: Callable[[], float], notice: Notice, message_id: str) -> None:
    # The time of this very try: receivers refuse old ones.
    post(url, notice.as_json(), key=key, message_id=message_id, now=clock())


def _tell(target: Any, notice: Notice, message_id: str) -> None:
    del message_id
    # Text as it is: a file's name must not become markup in somebody's mail.
    if not target.notify(title=TITLE, body=notice.text, body_format="text"):
        raise NotSent("Apprise could not deliver it")


def _apprise() -> Any:
    try:
        return importlib.import_module("apprise")
    except ImportError as error:
        raise ConfigError(
            ["notify.apprise is set, but Apprise is not installed"], remedy="pip install 'hotmatte[notify]'."
        ) from error
