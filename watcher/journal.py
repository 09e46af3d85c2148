"""The durable queue: one SQLite file, one table of jobs, four states. The only SQL about jobs.

Every public method is one transaction, so a crash leaves a job either before or after it,
never between. Decides nothing: who fails, waits or is given up is `errors.disposition`'s word.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from watcher.domain import Ended, Job, JobState, Source, Stamp
from watcher.journal_pairs import PairedJournal
from watcher.journal_schema import (
    ADMIT,
    ADMIT_PLACED,
    ADOPT,
    CLAIM,
    OTHER_HALF,
    OUTDATE,
    POSTPONE,
    RECORD,
    SUPERSEDE,
)


@dataclass(frozen=True, slots=True)
class Record:
    """A job as the journal holds it, for people to look at. Times are seconds since 1970."""

    job: Job
    state: JobState
    not_before: float
    outcome: str | None
    gone: bool
    admitted_at: float
    ended_at: float | None


class Journal(PairedJournal):
    """Thread-safe. Raises HostError where the disk refuses, ConfigError for a newer version's file."""

    # --- In place of a lost one -------------------------------------------------------------

    def begin_anew(self, first: int) -> None:
        """Take the place of a lost journal: job numbers up to `first` may live on in names of files."""
        with self._write() as db:
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('job', ?)", (first,))
            db.execute("INSERT INTO folder VALUES ('* begun anew', ?)", (str(first),))

    def lacks(self, folder: str) -> bool:
        """Whether the jobs of `folder` that ended before this journal began are still to be adopted."""
        return (
            self.folder_identity("* begun anew") is not None
            and self.folder_identity(f"{folder} adopted") is None
        )

    def adopt(self, folder: str, jobs: Iterable[Ended]) -> int:
        """Enter jobs of `folder` that ended before this journal began; how many were not known."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO folder VALUES (?, '')", (f"{folder} adopted",))
            return sum(
                db.execute(
                    ADOPT,
                    (
                        ended.source.folder,
                        os.fsencode(ended.source.relpath),
                        ended.source.stamp.size,
                        ended.source.stamp.mtime_ns,
                        ended.state.value,
                        ended.outcome,
                        ended.at,
                        ended.at,
                    ),
                ).rowcount
                for ended in jobs
            )

    # --- Intake ----------------------------------------------------------------------------

    def admit(self, source: Source) -> bool:
        """Queue `source`; False if this very version is known already."""
        return self.admit_many([source])[0]

    def admit_many(self, sources: Sequence[Source]) -> list[bool]:
        """Queue each source that is not known; one transaction for all of them."""
        now = time.time()
        with self._write() as db:
            return [_admit(db, source, now, ADMIT) for source in sources]

    def admit_placed(self, sources: Sequence[Source]) -> list[bool]:
        """The same for files that the caller has just put there, under names that were free.

        The daemon may have found one meanwhile, and have done and retired it: then it stays done.
        """
        now = time.time()
        with self._write() as db:
            return [_admit(db, source, now, ADMIT_PLACED) for source in sources]

    def known(self, folder: str) -> dict[str, tuple[Stamp, JobState]]:
        """The version of each path that is, as far as we know, on disk now."""
        rows = self._read(
            "SELECT relpath, size, mtime_ns, state FROM job WHERE folder = ? AND gone = 0 ORDER BY id",
            (folder,),
        )
        return {
            os.fsdecode(relpath): (Stamp(size, mtime_ns), JobState(state))
            for relpath, size, mtime_ns, state in rows
        }

    def mark_gone(self, folder: str, relpaths: Iterable[str]) -> int:
        """Sources that are no longer there: waiting ones are dropped, ended ones become history.

        A running one is left to its holder, which will find out. Returns how many rows changed.
        """
        changed = 0
        with self._write() as db:
            for relpath in relpaths:
                key = (folder, os.fsencode(relpath))
                changed += db.execute(
                    "DELETE FROM job WHERE folder = ? AND relpath = ? AND +state = 'queued'", key
                ).rowcount
                changed += db.execute(
                    "UPDATE job SET gone = 1 WHERE folder = ? AND relpath = ? AND gone = 0"
                    " AND +state <> 'running'",
                    key,
                ).rowcount
        return changed

    def folder_identity(self, folder: str) -> str | None:
        """What lay under the hot folder when it was last watched."""
        rows = self._read("SELECT identity FROM folder WHERE name = ?", (folder,))
        return str(rows[0][0]) if rows else None

    def remember_folder(self, folder: str, identity: str) -> None:
        with self._write() as db:
            db.execute(
                "INSERT INTO folder (name, identity) VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET identity = excluded.identity",
                (folder, identity),
            )

    def places(self, folder: str) -> list[tuple[str, str]]:
        """(setting, path) of every place that results of `folder` ever went to, until it was accepted last."""
        names = self._read(
            "SELECT name FROM folder WHERE substr(name, 1, ?) = ?", (len(folder) + 1, folder + " ")
        )
        parts = [name.split(" ", 2)[1:] for (name,) in names]
        return [(setting, path) for setting, path in filter(lambda two: len(two) == 2, parts)]

    def forget_folder(self, folder: str) -> None:
        """Accept whatever lies under the hot folder, and its places, next time as the right thing."""
        with self._write() as db:
            # What is remembered of its places is under its name, a space, and more.
            db.execute(
                "DELETE FROM folder WHERE name = ? OR substr(name, 1, ?) = ?",
                (folder, len(folder) + 1, folder + " "),
            )

    # --- Holders ---------------------------------------------------------------------------

    def held(self) -> dict[str, float]:
        """Folders that were paused by hand, and since when: nothing is claimed from them."""
        return dict(self._read("SELECT folder, since FROM hold"))

    def claim(self, folders: Sequence[str], *, limit: int, now: float, lease: float) -> list[Job]:
        """Take up to `limit` due jobs, from the first folder on; oldest first within a folder."""
        claimed: list[Job] = []
        with self._write() as db:
            for folder in folders:
                room = limit - len(claimed)
                rows = db.execute(CLAIM, (now + lease, folder, now, room)).fetchall() if room else []
                # RETURNING promises no order.
                claimed += [_job(row) for row in sorted(rows)]
        return claimed

    def next_due(self, folders: Sequence[str]) -> float | None:
        """When the next waiting job may be claimed (wall clock), None if none waits."""
        due = [
            row[0]
            for folder in folders
            for row in self._read(
                "SELECT not_before FROM job WHERE state = 'queued' AND folder = ?1"
                " AND NOT EXISTS (SELECT 1 FROM hold WHERE hold.folder = ?1)"
                " ORDER BY not_before, id LIMIT 1",
                (folder,),
            )
        ]
        return min(due, default=None)

    def waiting(self, folders: Sequence[str]) -> int:
        """How many jobs nobody has claimed yet, but for those of folders that are held."""
        sql = (
            "SELECT count(*) FROM job WHERE state = 'queued' AND folder = ?1"
            " AND NOT EXISTS (SELECT 1 FROM hold WHERE hold.folder = ?1)"
        )
        return sum(count for folder in folders for (count,) in self._read(sql, (folder,)))

    def renew(self, jobs: Iterable[Job], *, until: float) -> None:
        """Lengthen the lease of jobs that are still being worked on."""
        with self._write() as db:
            for job in jobs:
                db.execute(
                    "UPDATE job SET lease_until = ? WHERE id = ? AND state = 'running' AND fence = ?",
                    (until, job.id, job.fence),
                )

    def reap(self, *, now: float) -> int:
        """Put back jobs whose holder died; returns how many."""
        with self._write() as db:
            return db.execute(
                "UPDATE job SET state = 'queued', not_before = 0, lease_until = NULL,"
                " crashes = crashes + 1 WHERE state = 'running' AND lease_until < ?",
                (now,),
            ).rowcount

    def mend_clock(self, *, now: float, longest: float) -> int:
        """Shorten waits that only a clock set back can explain; returns how many."""
        with self._write() as db:
            return db.execute(
                "UPDATE job SET not_before = ? WHERE state = 'queued' AND not_before > ?",
                (now + longest, now + longest),
            ).rowcount

    def finish(self, job: Job, outcome: str) -> bool:
        """Done. False if the claim was lost meanwhile: then someone else answers for the job."""
        return self.finish_many([(job, outcome)])[0]

    def finish_many(self, ended: Sequence[tuple[Job, str]]) -> list[bool]:
        """As `finish`, each job with its outcome; one transaction for all of them, so one wait for the disk."""
        with self._write() as db:
            return [_moved(db, job, JobState.DONE, outcome=outcome) for job, outcome in ended]

    def quarantine(self, job: Job, outcome: str) -> bool:
        with self._write() as db:
            return _moved(db, job, JobState.QUARANTINED, outcome=outcome)

    def retry(self, job: Job, *, not_before: float, charge: bool) -> bool:
        """Back to the queue; without `charge` as if it had never been claimed."""
        with self._write() as db:
            moved = _moved(db, job, JobState.QUEUED, not_before=not_before, refund=not charge)
            if moved:
                # Overwritten or deleted while it ran: nothing is left to try again.
                db.execute("DELETE FROM job WHERE id = ? AND gone = 1", (job.id,))
            return moved

    def postpone(self, source: Source, *, until: float) -> None:
        """Jobs of the very sub-folder that `source` lies in wait at least so long (wall clock)."""
        with self._write() as db:
            db.execute(POSTPONE, (source.folder, os.fsencode(source.relpath.rpartition("/")[0]), until))

    def forget(self, job: Job) -> bool:
        """Drop a job whose source is gone or different; a scan may admit it anew."""
        with self._write() as db:
            cursor = db.execute(
                "DELETE FROM job WHERE id = ? AND state = 'running' AND fence = ?", (job.id, job.fence)
            )
            return cursor.rowcount == 1

    # --- People ----------------------------------------------------------------------------

    def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs of each folder are in each state, the history included."""
        found: dict[str, dict[str, int]] = {}
        for folder, state, count in self._read("SELECT folder, state, count(*) FROM job GROUP BY 2, 1"):
            found.setdefault(folder, {})[state] = count
        return found

    def in_quarantine(self) -> dict[str, int]:
        """How many photos of each folder failed and are still there: those that `records` lists."""
        sql = "SELECT folder, count(*) FROM job WHERE state = 'quarantined' AND gone = 0 GROUP BY folder"
        return dict(self._read(sql))

    def records(self, state: JobState, *, folder: str | None = None, limit: int = 100) -> list[Record]:
        """The latest jobs in `state`, newest first; quarantined ones only while their source is there."""
        where, args = "WHERE state = ?", [state.value]
        if folder is not None:
            where, args = where + " AND folder = ?", [*args, folder]
        if state is JobState.QUARANTINED:
            where += " AND gone = 0"
        order = "ended_at DESC, id DESC" if state in (JobState.DONE, JobState.QUARANTINED) else "id"
        return [
            record_of(row) for row in self._read(f"{RECORD} {where} ORDER BY {order} LIMIT {limit:d}", args)
        ]

    def find(self, folder: str, relpath: str) -> Record | None:
        """The present version of one path."""
        sql = f"{RECORD} WHERE folder = ? AND relpath = ? ORDER BY gone, id DESC LIMIT 1"
        return next(map(record_of, self._read(sql, (folder, os.fsencode(relpath)))), None)

    def other_half(self, companion: Record) -> Record | None:
        """The version for which `companion` was passed over; None before it has settled."""
        about = json.loads(companion.outcome or "{}")
        half = (companion.job.id, os.fsencode(about["companion_of"]), "done" in about)
        return next(map(record_of, self._read(f"{RECORD} WHERE id = ({OTHER_HALF})", half)), None)

    def job(self, id_: int) -> Record | None:
        """One job by its number."""
        return next(map(record_of, self._read(f"{RECORD} WHERE id = ?", (id_,))), None)

    def requeue(self, ids: Iterable[int]) -> list[Job]:
        """An operator's retry: quarantined jobs start over with no attempt charged."""
        with self._write() as db:
            rows = [
                row
                for id_ in ids
                for row in db.execute(
                    "UPDATE job SET state = 'queued', attempts = 0, crashes = 0, not_before = 0,"
                    " outcome = NULL, ended_at = NULL WHERE id = ? AND state = 'quarantined'"
                    " RETURNING id, folder, relpath, size, mtime_ns, attempts, fence, crashes",
                    (id_,),
                ).fetchall()
            ]
        return [_job(row) for row in rows]

    def prune(self, *, before: float) -> int:
        """Forget ended jobs whose source is gone and which ended before `before`.

        A job whose source is still there is never pruned, or it would be done again.
        """
        with self._write() as db:
            return db.execute(
                "DELETE FROM job WHERE gone = 1 AND state IN ('done', 'quarantined') AND ended_at < ?",
                (before,),
            ).rowcount


def _admit(db: sqlite3.Connection, source: Source, now: float, sql: str) -> bool:
    key = (source.folder, os.fsencode(source.relpath), source.stamp.size, source.stamp.mtime_ns)
    db.execute(SUPERSEDE, key)
    db.execute(OUTDATE, key)
    return db.execute(sql, (*key, now)).rowcount == 1


def _moved(
    db: sqlite3.Connection,
    job: Job,
    state: JobState,
    *,
    outcome: str | None = None,
    not_before: float = 0.0,
    refund: bool = False,
) -> bool:
    ended = None if state is JobState.QUEUED else time.time()
    # A holder that outlived its lease finds a newer fence, and changes nothing.
    cursor = db.execute(
        "UPDATE job SET state = ?, outcome = ?, not_before = ?, attempts = attempts - ?,"
        " lease_until = NULL, ended_at = ? WHERE id = ? AND state = 'running' AND fence = ?",
        (state.value, outcome, not_before, int(refund), ended, job.id, job.fence),
    )
    return cursor.rowcount == 1


def _job(row: Sequence[Any]) -> Job:
    id_, folder, relpath, size, mtime_ns, attempts, fence, crashes = row
    source = Source(folder, os.fsdecode(relpath), Stamp(size, mtime_ns))
    return Job(id_, source, attempts, fence, crashes)


def record_of(row: Sequence[Any]) -> Record:
    state, not_before, outcome, gone, admitted_at, ended_at = row[8:]
    return Record(_job(row[:8]), JobState(state), not_before, outcome, bool(gone), admitted_at, ended_at)
