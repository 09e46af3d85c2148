"""Make the daemon read its configuration again, and wait until it has.

A broken file is refused, here with every problem, and the old one stays in force. No
job is lost: running photos finish, waiting ones wait.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from watcher import config
from watcher.commands.shared import is_there
from watcher.engine.card import cards_of
from watcher.errors import ConfigError, EngineUnavailable
from watcher.exits import NOT_YET, OK
from watcher.health import LOCK, holder, read_snapshot

NEEDS_SETTINGS = True


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait; then it ends with 75",
    )


def running(settings: config.Settings) -> int:
    """The process id of the daemon. Raises EngineUnavailable where none runs."""
    is_there(settings.state_dir / LOCK)  # who may not look is not told that nobody runs
    pid = holder(settings.state_dir)
    if not pid:
        raise EngineUnavailable(
            f"no daemon runs on {settings.state_dir}",
            remedy="Start it with `hotmatte run`, or name its configuration with --config.",
        )
    return pid


def run(args: argparse.Namespace, settings: config.Settings) -> int:
    cards_of(settings)
    pid = running(settings)
    before = read_snapshot(settings.state_dir)
    os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + args.timeout
    while time.monotonic() < deadline:
        now = read_snapshot(settings.state_dir)
        if now.get("generation", 0) > before.get("generation", 0) and now.get("ready"):
            print(f"reloaded: {len(now['folders'])} folders watched")
            return OK
        # Not by its age: other news may have been written with the refusal of an earlier reload.
        if now.get("refused") and now.get("refusals", 0) > before.get("refusals", 0):
            raise ConfigError([str(now["refused"])], remedy="The old configuration stays in force.")
        if holder(settings.state_dir) != pid:
            raise EngineUnavailable("the daemon went away while reloading", remedy="See its log.")
        time.sleep(0.1)
    print(
        f"hotmatte: the daemon has not answered within {args.timeout:g} s. It has been asked, and reloads once running"
        " photos are finished and engines warm; `hotmatte status` and its log say how far it is.",
        file=sys.stderr,
    )
    return NOT_YET
