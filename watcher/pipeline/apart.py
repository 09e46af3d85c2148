"""What the processes have in common that work for the daemon in our own Python: how they are started, and how they begin."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path

import watcher

_ROOT = Path(watcher.__file__).parents[1]
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def environment(**more: str) -> dict[str, str]:
    """That of a process which is to find this very package; `more` differs from ours."""
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **more, "PYTHONPATH": path}


def begin() -> None:
    """To be called first: it dies with the thread that started it, may become nobody else, leaves no core, and heeds no Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
