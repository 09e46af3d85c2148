"""How many files the daemon may have open, and whether that is enough."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress

from watcher.errors import OPEN_FILES
from watcher.log import event

# What the unit of the service asks for; more is never needed, and some programs walk through all of them.
WANTED = 65_536
# The journal, the engine and what reads photos take some thirty; a folder that is watched takes five, and each
# photo that is read, shown to the engine or written takes some for the moment.
LEAST, FOR_EACH_FOLDER = 64, 16


def raise_limit(folders: int) -> int:
    """As far as this user may; the number that holds now. Warns where `folders` hot folders may want more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    enough = LEAST + FOR_EACH_FOLDER * folders
    if soft != resource.RLIM_INFINITY and soft < enough:
        words = f"only {soft} files may be open at one time; {folders} hot folders may need {enough}"
        event(logging.WARNING, words, remedy=OPEN_FILES)
    return soft
