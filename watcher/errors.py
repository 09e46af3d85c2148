"""What can go wrong, and the one function that decides what to do about it.

Exceptions state facts and whom to blame. Policy lives in `disposition` and nowhere else.
"""

from __future__ import annotations

import enum
import errno
import sys
from dataclasses import dataclass

# An OSError with one of these says something about the machine or the share, not the file.
HOST_ERRNOS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ENOLCK,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENXIO,
    }
)


OPEN_FILES = (
    "Raise the limit of open files: LimitNOFILE= of the service, or `ulimit -n`; work resumes by itself."
)


class WatcherError(Exception):
    """Root of every failure we raise on purpose; anything else is a bug.

    `remedy` says, in one sentence, what the reader can do about it.
    """

    remedy = "This is a bug in hotmatte: please report it with the log."
    stage: str | None = None  # where a job was when it was raised; set by the runner

    def __init__(self, reason: str, *, remedy: str | None = None) -> None:
        super().__init__(reason)
        if remedy is not None:
            self.remedy = remedy


class ConfigError(WatcherError):
    """The configuration cannot be run. Carries every problem, not only the first."""

    remedy = "Correct the configuration; `hotmatte check-config` lists every problem."

    def __init__(self, problems: list[str], *, remedy: str | None = None) -> None:
        super().__init__("; ".join(problems), remedy=remedy)
        self.problems = problems


class InputError(WatcherError):
    """Blame: one file."""


class InputNotReady(InputError):
    """Truncated, locked or vanished mid-read; may heal by itself."""

    remedy = "Copy the file again; a new copy is picked up by itself."


class InputChanged(InputError):
    """The source is no longer the file we admitted, or is gone."""

    remedy = "Nothing: the new version is picked up by itself."


class InputRejected(InputError):
    """Will never work: not an image, corrupt, too large, unsupported."""

    remedy = "Export the photo again in a supported format and drop it again."


class EngineError(WatcherError):
    """Blame: the engine, until one file has failed it often enough."""

    remedy = "See the log for what the engine said; `hotmatte retry` tries the file again."


class EngineCrashed(EngineError):
    """The worker died, or answered with a bug of its own."""


class EngineTimeout(EngineError):
    """No answer within the deadline; the worker has been killed."""


class EngineOutOfMemory(EngineError):
    """Even this one frame did not fit on the device."""

    remedy = "Lower `max_side` in the model card or free memory, then `hotmatte retry`."


class EngineUnavailable(EngineError):
    """The worker cannot boot: weights missing, driver broken, asked for a GPU and found none."""

    remedy = "Run `hotmatte doctor` and `hotmatte models verify`."


class HostError(WatcherError):
    """Blame: the machine. Disk full, read-only, share gone, no permission."""

    remedy = "Free space or restore access; work resumes by itself."

    def __init__(self, reason: str, *, remedy: str | None = None) -> None:
        # Raised where an OSError is handled, as a rule, and free space is no remedy for each of them.
        cause = sys.exc_info()[1]
        if remedy is None and isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            remedy = OPEN_FILES
        super().__init__(reason, remedy=remedy)


class SubfolderClosed(HostError):
    """One sub-folder of the results may not be written to, others may: only its photos wait."""

    remedy = "Let the user that hotmatte runs as write there, or rename it; its photos go on within a minute."


class Action(enum.Enum):
    RETRY = "retry"
    QUARANTINE = "quarantine"
    DROP = "drop"
    PAUSE = "pause"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class Disposition:
    """What happens to the job: `delay` in seconds, `charge` whether the attempt counts."""

    action: Action
    delay: float = 0.0
    charge: bool = True


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff, in seconds; `max_attempts` includes the first."""

    max_attempts: int = 4
    base_delay: float = 2.0
    max_delay: float = 300.0

    def backoff(self, attempts: int) -> float:
        return min(self.max_delay, self.base_delay * 2.0 ** min(30, max(0, attempts - 1)))


def disposition(error: BaseException, *, attempts: int, policy: RetryPolicy) -> Disposition:
    """Decide the fate of a job that failed with `error` on attempt `attempts`."""
    delay = policy.backoff(attempts)
    match error:
        case ConfigError():
            return Disposition(Action.HALT, charge=False)
        case HostError() | EngineUnavailable():
            return Disposition(Action.PAUSE, delay, charge=False)
        case InputChanged():
            return Disposition(Action.DROP)
        case InputNotReady() | EngineError() if attempts < policy.max_attempts:
            return Disposition(Action.RETRY, delay)
        case _:  # rejected, worn out, or a bug of ours
            return Disposition(Action.QUARANTINE)


def host_error(error: OSError, doing: str) -> HostError | None:
    """The HostError that `error` stands for, or None where it is about one file.

    `doing` completes "cannot ...": "write /srv/mattes".
    """
    if error.errno not in HOST_ERRNOS:
        return None
    return HostError(f"cannot {doing}: {error.strerror or error}")


def is_about_place(error: WatcherError) -> bool:
    """Whether what failed would fail for every other file in that place, too."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in HOST_ERRNOS
