"""Make the daemon list its folders now, and try paused folders and engines again at once."""

from __future__ import annotations

import argparse
import os
import signal

from watcher.commands.reload import running
from watcher.config import Settings
from watcher.exits import OK


def configure(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace, settings: Settings) -> int:
    del args
    os.kill(running(settings), signal.SIGUSR1)
    return OK
