"""`hotmatte`, doomed: dies by SIGKILL at the n-th time it reaches one durable step.

`python mortal.py publish.rename before 3 run --config FILE`: just before (or `after`) the
third rename of a publication. Everything else is the real program.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from watcher import cli
from watcher.journal import Journal
from watcher.pipeline import publish, retire

STEPS: dict[str, tuple[object, str]] = {
    "publish.fsync": (publish, "fsync"),
    "publish.rename": (publish, "rename"),
    "publish.unlink": (publish, "unlink"),
    "retire.rename": (retire, "rename"),
    "retire.link": (retire, "link"),
    "retire.unlink": (retire, "unlink"),
    # One transaction each: before it, and after it was committed.
    "journal.admit": (Journal, "admit_many"),
    "journal.claim": (Journal, "claim"),
    "journal.finish": (Journal, "finish_many"),
    "journal.mark_gone": (Journal, "mark_gone"),
    "journal.reap": (Journal, "reap"),
}


def doomed(step: Callable[..., Any], *, after: bool, times: int) -> Callable[..., Any]:
    count = itertools.count(1)

    def last(*args: Any, **named: Any) -> Any:
        fatal = next(count) == times
        if fatal and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = step(*args, **named)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return last


def main(step: str, moment: str, times: str, *words: str) -> int:
    owner, name = STEPS[step]
    setattr(owner, name, doomed(getattr(owner, name), after=moment == "after", times=int(times)))
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
