"""What the journal knows of RAW and JPEG of one shot: who was passed over, and for which version of which half."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable

from watcher.domain import Source, Stamp
from watcher.journal_file import JournalFile
from watcher.journal_schema import COMPANIONS, FREE, OUTDATE, PASS_OVER, SUPERSEDE, VERSIONS, WAS_DONE


class PairedJournal(JournalFile):
    """A name alone is no shot: cameras begin again at 0001, and what was done under it before counts for nothing."""

    def pass_over(self, source: Source, companion_of: str, half: Stamp | None = None) -> None:
        """Enter `source` as done with nothing to show: it belongs to another source, which is work.

        `half`: the version of that other source which is there now, if any.
        """
        outcome: dict[str, object] = {"companion_of": companion_of}
        with self._write() as db:
            there = (half.size, half.mtime_ns) if half is not None else (None, None)
            asked = (source.folder, os.fsencode(companion_of), *there, source.stamp.mtime_ns)
            if db.execute(WAS_DONE, asked).fetchone() is not None:
                outcome["done"] = True  # whatever becomes of its name afterwards
            key = (source.folder, os.fsencode(source.relpath), source.stamp.size, source.stamp.mtime_ns)
            db.execute(SUPERSEDE, key)
            db.execute(OUTDATE, key)
            db.execute(PASS_OVER, (*key, time.time(), json.dumps(outcome)))

    def halves_waited_for(self, folder: str) -> list[str]:
        """The paths for which others that are still there were passed over."""
        found = (json.loads(outcome)["companion_of"] for (outcome,) in self._read(COMPANIONS, (folder,)))
        return list(dict.fromkeys(found))

    def free_companions(self, folder: str, relpaths: Iterable[str]) -> list[str]:
        """Forget what was passed over for these paths, which failed or are gone without a result; its paths."""
        freed = []
        with self._write() as db:
            for relpath in relpaths:
                key = (folder, os.fsencode(relpath), json.dumps({"companion_of": relpath}))
                freed += [os.fsdecode(row[0]) for row in db.execute(FREE, key).fetchall()]
        return freed

    def failed(self, folder: str, relpath: str) -> bool:
        """Whether the present version of this path is in quarantine."""
        sql = "SELECT 1 FROM job WHERE folder = ? AND relpath = ? AND +state = 'quarantined' AND gone = 0"
        return bool(self._read(sql, (folder, os.fsencode(relpath))))

    def versions(self, folder: str, relpaths: Iterable[str]) -> list[tuple[str, Stamp]]:
        """Every version of these paths that was done and not passed over, gone ones included."""
        return [
            (relpath, Stamp(*row))
            for relpath in relpaths
            for row in self._read(VERSIONS, (folder, os.fsencode(relpath)))
        ]
