"""What the journal's file looks like, and its longer statements. How they are used is journal.py's affair."""

from __future__ import annotations

from watcher.domain import SAME_SHOT_S

VERSION = 3

# `gone`: this version of the source is no longer there (deleted, archived, or overwritten by a
# newer one). The row stays for the history, and no longer stands in the way of the same name.
SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: a stale holder must not match
    folder      TEXT    NOT NULL,
    relpath     BLOB    NOT NULL,                   -- os.fsencode: names need not be UTF-8
    size        INTEGER NOT NULL,
    mtime_ns    INTEGER NOT NULL,
    state       TEXT    NOT NULL DEFAULT 'queued'
                CHECK (state IN ('queued', 'running', 'done', 'quarantined')),
    attempts    INTEGER NOT NULL DEFAULT 0,         -- charged at claim, not at failure
    crashes     INTEGER NOT NULL DEFAULT 0,         -- holders that died with it
    fence       INTEGER NOT NULL DEFAULT 0,         -- +1 per claim; every later write must match it
    not_before  REAL    NOT NULL DEFAULT 0,
    lease_until REAL,
    outcome     TEXT,
    gone        INTEGER NOT NULL DEFAULT 0,
    admitted_at REAL    NOT NULL,
    ended_at    REAL,
    UNIQUE (folder, relpath, size, mtime_ns)
) STRICT;
CREATE INDEX IF NOT EXISTS job_queued ON job (folder, not_before, id) WHERE state = 'queued';
CREATE INDEX IF NOT EXISTS job_running ON job (id) WHERE state = 'running';
CREATE INDEX IF NOT EXISTS job_state ON job (state, folder, ended_at);
CREATE TABLE IF NOT EXISTS folder (
    name     TEXT PRIMARY KEY,
    identity TEXT NOT NULL
) STRICT;
-- Since version 2: what people say. A folder in `hold` is paused by hand; a verdict ends a review,
-- as long as it is newer than the matte it is about.
CREATE TABLE IF NOT EXISTS hold (
    folder TEXT PRIMARY KEY,
    since  REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS verdict (
    job  INTEGER PRIMARY KEY,
    word TEXT NOT NULL CHECK (word IN ('accepted', 'redone')),
    at   REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS job_ended ON job (ended_at, id) WHERE ended_at IS NOT NULL;
-- As json.dumps writes a list that is not empty.
CREATE INDEX IF NOT EXISTS job_flagged ON job (ended_at)
    WHERE state = 'done' AND instr(outcome, '"flags": ["') > 0;
-- Since version 3: what was passed over for the other half of its pair, and for which.
CREATE INDEX IF NOT EXISTS job_companion ON job (folder, outcome) WHERE substr(outcome, 1, 15) = '{"companion_of"';
"""

# A newer version of a file makes the waiting ones of the same file pointless ...
# The unary plus keeps SQLite from walking the queue's index, which is as long as the queue.
SUPERSEDE = """
DELETE FROM job WHERE folder = ? AND relpath = ? AND +state = 'queued' AND (size, mtime_ns) <> (?, ?)
"""
# ... and the finished ones history.
OUTDATE = """
UPDATE job SET gone = 1 WHERE folder = ? AND relpath = ? AND gone = 0 AND (size, mtime_ns) <> (?, ?)
"""
_INSERT = (
    "INSERT INTO job (folder, relpath, size, mtime_ns, admitted_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO"
)
# A version that went away and came back is new work; one that is known is not.
ADMIT = f"""
{_INSERT} UPDATE SET
    gone = 0,
    state = iif(state = 'running', state, 'queued'),
    attempts = iif(state = 'running', attempts, 0),
    crashes = iif(state = 'running', crashes, 0),
    not_before = 0, outcome = NULL, ended_at = NULL, admitted_at = excluded.admitted_at
WHERE gone = 1
"""

# By whoever has just put it there: if it is known it was found meanwhile, and may be done and gone by now.
ADMIT_PLACED = f"{_INSERT} NOTHING"

# The other half of a pair: ended as soon as it is known, with nothing done.
PASS_OVER = """
INSERT INTO job (folder, relpath, size, mtime_ns, admitted_at, state, outcome, ended_at)
VALUES (?1, ?2, ?3, ?4, ?5, 'done', ?6, ?5)
ON CONFLICT DO UPDATE SET gone = 0, state = 'done', outcome = ?6, ended_at = ?5 WHERE gone = 1
"""

# Of all versions of a half's name, those that are of one shot with `job`, which was passed over for it: what is
# there, what was done later, and what has nearly the same time of change. Others are shots of another day.
_OF_THE_SHOT = f"""
(half.gone = 0 OR half.ended_at >= job.ended_at OR abs(half.mtime_ns - job.mtime_ns) <= {SAME_SHOT_S:.0f}000000000)
"""
_IS_WORK = """substr(coalesce(half.outcome, ''), 1, 15) <> '{"companion_of"'"""

# Of its other half nothing was, is or will be made: it is to be looked at anew.
FREE = f"""
DELETE FROM job
WHERE folder = ?1 AND outcome = ?3 AND substr(outcome, 1, 15) = '{{"companion_of"' AND +state = 'done' AND gone = 0
  AND NOT EXISTS (SELECT 1 FROM job AS half
                  WHERE half.folder = ?1 AND half.relpath = ?2 AND {_IS_WORK}
                    AND (half.state IN ('queued', 'running') OR half.state = 'done' AND {_OF_THE_SHOT}))
RETURNING relpath
"""
# What follows its half: that of its own shot, or any if that was done before it was passed over (?3).
OTHER_HALF = f"""
SELECT half.id FROM job AS half JOIN job ON job.id = ?1
WHERE half.folder = job.folder AND half.relpath = ?2 AND (?3 OR {_OF_THE_SHOT})
ORDER BY half.gone, half.id DESC LIMIT 1
"""
# Is there a result of this version of a half (folder, path, stamp) already, or of one of nearly this time of change?
WAS_DONE = f"""
SELECT 1 FROM job AS half
WHERE folder = ?1 AND relpath = ?2 AND +state = 'done' AND {_IS_WORK}
  AND (gone = 0 AND size = ?3 AND mtime_ns = ?4 OR abs(mtime_ns - ?5) <= {SAME_SHOT_S:.0f}000000000)
"""
VERSIONS = f"""
SELECT size, mtime_ns FROM job AS half WHERE folder = ? AND relpath = ? AND +state = 'done' AND {_IS_WORK}
"""
COMPANIONS = """
SELECT DISTINCT outcome FROM job
WHERE folder = ? AND substr(outcome, 1, 15) = '{"companion_of"' AND +state = 'done' AND gone = 0
"""

# The attempt is charged here, before the work, so that a file which kills the whole daemon
# still runs out of attempts. Two versions of one file never run at once: the older one could
# publish last. Where both wait, since the older one came back from a dead holder, the newer one goes first.
CLAIM = """
UPDATE job SET state = 'running', attempts = attempts + 1, fence = fence + 1, lease_until = ?1
WHERE id IN (SELECT id FROM job AS waiting
             WHERE state = 'queued' AND folder = ?2 AND not_before <= ?3
               AND NOT EXISTS (SELECT 1 FROM hold WHERE hold.folder = ?2)
               AND NOT EXISTS (SELECT 1 FROM job AS other
                               WHERE other.folder = waiting.folder AND other.relpath = waiting.relpath
                                 AND (other.state = 'running' OR other.state = 'queued'
                                      AND other.id > waiting.id AND other.not_before <= ?3))
             ORDER BY not_before, id LIMIT ?4)
RETURNING id, folder, relpath, size, mtime_ns, attempts, fence, crashes
"""

# In this sub-folder itself, not in one below: between its name with "/" and with what follows "/".
POSTPONE = """
UPDATE job SET not_before = max(not_before, ?3)
WHERE folder = ?1 AND relpath > CAST(?2 || X'2F' AS BLOB) AND relpath < CAST(?2 || X'30' AS BLOB)
  AND +state = 'queued' AND instr(substr(relpath, length(?2) + 2), X'2F') = 0
"""

ADOPT = """
INSERT INTO job (folder, relpath, size, mtime_ns, state, attempts, outcome, admitted_at, ended_at)
VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT DO NOTHING
"""
CHECKS = (
    "PRAGMA integrity_check(1)",
    """
    SELECT iif(count(*) = 2, 'ok', 'a table is missing') FROM sqlite_master
    WHERE type = 'table' AND name IN ('job', 'folder')
    """,
)
RECORD = """
SELECT id, folder, relpath, size, mtime_ns, attempts, fence, crashes,
       state, not_before, outcome, gone, admitted_at, ended_at FROM job
"""
