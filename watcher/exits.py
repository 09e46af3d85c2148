"""Exit statuses, after sysexits.h: an interface for scripts and for systemd."""

from __future__ import annotations

import logging
import os

from watcher.errors import ConfigError, EngineUnavailable, HostError, InputError

OK = 0
USAGE = 64
SOME_FAILED = 65  # EX_DATAERR: the command worked, some photo did not
UNAVAILABLE = 69
BUG = 70
IO = 74
NOT_YET = 75  # EX_TEMPFAIL: asked for, and not known to have happened
CONFIG = 78
INTERRUPTED = 130


def exit_status(error: BaseException) -> int:
    """The number for an error that ends a command."""
    match error:
        case ConfigError():
            return CONFIG
        case EngineUnavailable():
            return UNAVAILABLE
        case HostError():
            return IO
        case InputError():
            return SOME_FAILED
        case _:
            return BUG


def leave(status: int) -> None:
    """Exit now, whatever hangs. Safe: leases and idempotent publishing were made for it."""
    logging.shutdown()
    os._exit(status)
