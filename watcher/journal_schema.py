"""What the journal's file looks like. How it is used is journal.py's affair."""

from __future__ import annotations

VERSION = 2

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
"""
