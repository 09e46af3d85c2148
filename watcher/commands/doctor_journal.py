"""`hotmatte doctor`, on the journal: can it be read, and are the hot folders those that it knows?"""

from __future__ import annotations

import os
from pathlib import Path

from watcher.commands.findings import Finding, fail, ok
from watcher.commands.shared import open_journal
from watcher.config import Settings
from watcher.errors import ConfigError, HostError
from watcher.exits import CONFIG, IO
from watcher.intake.root import stranger
from watcher.journal import Journal
from watcher.mounts import identity, is_same


def journal(settings: Settings) -> list[Finding]:
    """Nothing where nothing was ever done. May hang on a dead share."""
    try:
        opened = open_journal(settings)
        if opened is None:
            return []
        with opened as found:
            return [ok("journal", "can be read"), *_strangers(settings, found)]
    except (ConfigError, HostError) as error:
        status = CONFIG if isinstance(error, ConfigError) else IO
        return [fail("journal", str(error), error.remedy, status=status)]


def _strangers(settings: Settings, journal: Journal) -> list[Finding]:
    """Hot folders that a daemon would take for others than before: an empty mount point, above all."""
    found = []
    for name, folder in settings.folders.items():
        here = identity(Path(os.path.realpath(folder.path)))
        before = journal.folder_identity(name)
        if before is not None and not is_same(before, here) and folder.path.is_dir() and journal.known(name):
            error = stranger(folder.path, name, expected=before, found=here)
            found.append(fail(name, str(error), error.remedy))
    return found
