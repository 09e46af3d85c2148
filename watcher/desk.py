"""What people ask of the journal and decide: lists, figures, pauses by hand, verdicts on mattes.

Beside journal.py the only SQL; the queue itself is not touched here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from watcher.domain import JobState
from watcher.journal import Journal, Record, record_of
from watcher.journal_schema import RECORD

Verdict = Literal["accepted", "redone"]
# The very condition of the index job_flagged: SQLite uses it for nothing else.
_FLAGGED = """state = 'done' AND instr(outcome, '"flags": ["') > 0"""
# A verdict is about the matte that was there; a newer one needs a new look.
_OPEN = "NOT EXISTS (SELECT 1 FROM verdict WHERE verdict.job = job.id AND verdict.at >= job.ended_at)"


@dataclass(frozen=True, slots=True)
class Bucket:
    """What ended in one step of time from `start` (seconds since 1970) on."""

    start: float
    done: int
    failed: int


class Desk:
    """Each method is one transaction. Raises HostError as the journal does."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    # --- Decisions -------------------------------------------------------------------------

    def hold(self, folder: str) -> None:
        """Claim nothing from `folder` until it is released. Outlives every restart."""
        with self._journal.writing() as db:
            db.execute("INSERT INTO hold VALUES (?, ?) ON CONFLICT DO NOTHING", (folder, time.time()))

    def release(self, folder: str) -> bool:
        """False where it was not held."""
        with self._journal.writing() as db:
            return db.execute("DELETE FROM hold WHERE folder = ?", (folder,)).rowcount == 1

    def judge(self, job: int, word: Verdict) -> bool:
        """Somebody has looked at a flagged matte; False where there is none to judge."""
        with self._journal.writing() as db:
            db.execute("DELETE FROM verdict WHERE job NOT IN (SELECT id FROM job)")
            return (
                db.execute(
                    f"INSERT INTO verdict SELECT id, ?, ? FROM job WHERE id = ? AND {_FLAGGED}"
                    " ON CONFLICT DO UPDATE SET word = excluded.word, at = excluded.at",
                    (word, time.time(), job),
                ).rowcount
                == 1
            )

    # --- Questions -------------------------------------------------------------------------

    def changes(self) -> int:
        """Differs from the last answer when another connection has written since. Next to free."""
        return int(self._journal.rows("PRAGMA data_version")[0][0])

    def counts(self) -> dict[str, dict[str, int]]:
        return self._journal.counts()

    def verdicts(self, jobs: Iterable[int]) -> dict[int, str]:
        """What was said of the mattes that these jobs have now, where anything was; 500 jobs at most."""
        wanted = list(jobs)
        places = ",".join("?" * len(wanted))
        return dict(
            self._journal.rows(
                "SELECT job.id, word FROM verdict JOIN job ON job.id = verdict.job"
                f" WHERE job.id IN ({places}) AND at >= ended_at",
                wanted,
            )
        )

    def listed(
        self,
        *,
        folder: str | None = None,
        state: JobState | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Record]:
        """Jobs with numbers below `before`, the latest first."""
        where: list[str] = []
        args: list[object] = []
        for condition, value in (("folder = ?", folder), ("state = ?", state), ("id < ?", before)):
            if value is not None:
                where.append(condition)
                args.append(value)
        clause = f"WHERE {' AND '.join(where)}" if where else ""
        return self._records(f"{clause} ORDER BY id DESC LIMIT {limit:d}", args)

    def next_done(self, number: int) -> int | None:
        """The done job that follows `number`."""
        rows = self._journal.rows(
            "SELECT id FROM job WHERE id > ? AND +state = 'done' ORDER BY id LIMIT 1", (number,)
        )
        return int(rows[0][0]) if rows else None

    def by_number(self, ids: Iterable[int]) -> list[Record]:
        found: list[Record] = []
        wanted = list(ids)
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            found += self._records(f"WHERE id IN ({','.join('?' * len(part))})", part)
        return found

    def named(self, folder: str, stem: str) -> Record | None:
        """The latest job whose photo lies right in `folder` under a name that begins with `stem`."""
        start, end = stem.encode("ascii"), stem.encode("ascii") + b"\xff"
        found = self._records(
            "WHERE folder = ? AND relpath >= ? AND relpath < ? ORDER BY gone, id DESC LIMIT 1",
            (folder, start, end),
        )
        return found[0] if found else None

    def ended(self, *, since: float, limit: int = 1000) -> list[Record]:
        """What ended at or after `since`, the oldest first."""
        return self._records(f"WHERE ended_at >= ? ORDER BY ended_at, id LIMIT {limit:d}", [since])

    def latest(self, state: JobState, *, folder: str | None = None, limit: int = 24) -> list[Record]:
        return self._journal.records(state, folder=folder, limit=limit)

    def to_review(self, *, limit: int = 100) -> list[Record]:
        """Flagged mattes that nobody has judged, the newest first."""
        return self._records(f"WHERE {_FLAGGED} AND {_OPEN} ORDER BY ended_at DESC LIMIT {limit:d}")

    def waiting(self, folder: str) -> int:
        """Jobs of `folder` that are not ended."""
        sql = "SELECT count(*) FROM job WHERE state IN ('queued', 'running') AND folder = ?"
        return int(self._journal.rows(sql, (folder,))[0][0])

    def oldest_waiting(self) -> dict[str, float]:
        """When the oldest waiting job of each folder was admitted."""
        return dict(
            self._journal.rows("SELECT folder, min(admitted_at) FROM job WHERE state = 'queued' GROUP BY 1")
        )

    def throughput(self, *, since: float, step: float) -> list[Bucket]:
        """Steps of `step` seconds in which something ended."""
        rows = self._journal.rows(
            "SELECT CAST(ended_at / ?1 AS INTEGER) * ?1, sum(state = 'done'), sum(state = 'quarantined')"
            " FROM job WHERE ended_at >= ?2 GROUP BY 1 ORDER BY 1",
            (step, since),
        )
        return [Bucket(*row) for row in rows]

    def _records(self, rest: str, args: Sequence[object] = ()) -> list[Record]:
        return [record_of(row) for row in self._journal.rows(f"{RECORD} {rest}", args)]
