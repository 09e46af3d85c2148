"""Send a test message to everybody whom the configuration's `notify` section names.

hotmatte notify

Says for each of them whether it arrived. The messages themselves are sent by `hotmatte web`:
see docs/notifications.md. The exit status is 0 if all arrived and 74 if one did not.
"""

from __future__ import annotations

import argparse
import uuid

from watcher.config import Settings
from watcher.digest import Notice
from watcher.errors import ConfigError
from watcher.exits import IO, OK
from watcher.receivers import receivers_of
from watcher.webhook import NotSent


def configure(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace, settings: Settings) -> int:
    del args
    if not settings.notify.wanted:
        raise ConfigError(["nobody is to be told anything"], remedy="Set notify.webhook or notify.apprise.")
    status = OK
    for name, send in receivers_of(settings.notify).items():
        try:
            send(Notice("test", "message", ()), f"msg_{uuid.uuid4().hex}")
        except NotSent as error:
            print(f"{name}: NOT SENT: {error}")
            status = IO
        else:
            print(f"{name}: sent")
    return status
