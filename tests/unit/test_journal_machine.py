"""The journal against a model, under lost leases, stale holders, newer versions and restarts.

The model never asks the journal for an answer it is about to check.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from watcher.domain import Job, Source, Stamp
from watcher.journal import Journal

LEASE = 10.0
FOLDERS = ("one", "two")


@dataclass
class Row:
    """What the model believes about one version of one file."""

    state: str = "queued"
    gone: bool = False
    attempts: int = 0
    crashes: int = 0
    not_before: float = 0.0
    until: float = 0.0
    holder: Job | None = None


class JournalMachine(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.path = Path(self.directory.name) / "journal.sqlite"
        self.journal = Journal(self.path)
        self.now = 0.0
        self.rows: dict[Source, Row] = {}

    def versions(self, folder: str, relpath: str) -> dict[Source, Row]:
        return {s: r for s, r in self.rows.items() if (s.folder, s.relpath) == (folder, relpath)}

    @rule(folder=st.sampled_from(FOLDERS), name=st.integers(0, 2), size=st.integers(0, 2))
    def admit(self, folder: str, name: int, size: int) -> None:
        source = Source(folder, f"{name}.jpg", Stamp(size, 0))
        for other, row in self.versions(folder, source.relpath).items():
            if other != source:
                row.gone = True
                if row.state == "queued":
                    del self.rows[other]
        row = self.rows.get(source)
        news = row is None or row.gone
        assert self.journal.admit(source) is news
        if row is None:
            self.rows[source] = Row()
        elif row.gone:
            row.gone = False
            if row.state != "running":
                self.rows[source] = Row()

    @rule(folder=st.sampled_from(FOLDERS), name=st.integers(0, 2))
    def vanish(self, folder: str, name: int) -> None:
        self.journal.mark_gone(folder, [f"{name}.jpg"])
        for source, row in self.versions(folder, f"{name}.jpg").items():
            if row.state == "queued":
                del self.rows[source]
            elif row.state != "running":
                row.gone = True

    @rule(target=jobs, limit=st.integers(1, 3), folders=st.sampled_from([FOLDERS, FOLDERS[::-1], ("two",)]))
    def claim(self, limit: int, folders: tuple[str, ...]):
        busy = {(s.folder, s.relpath) for s, r in self.rows.items() if r.state == "running"}
        due = {
            (s.folder, s.relpath)
            for s, r in self.rows.items()
            if r.state == "queued" and r.not_before <= self.now and (s.folder, s.relpath) not in busy
        }
        files = Counter(folder for folder, _ in due)
        claimed = self.journal.claim(folders, limit=limit, now=self.now, lease=LEASE)
        expected = []
        for folder in folders:
            expected += [folder] * min(files[folder], limit - len(expected))
        assert [job.source.folder for job in claimed] == expected
        for job in claimed:
            row = self.rows[job.source]
            assert row.state == "queued"
            assert row.not_before <= self.now
            row.state, row.attempts, row.holder = "running", row.attempts + 1, job
            row.until = self.now + LEASE
            assert (job.attempts, job.crashes) == (row.attempts, row.crashes)
        return multiple(*claimed)

    @rule(job=jobs)
    def renew(self, job: Job) -> None:
        self.journal.renew([job], until=self.now + LEASE)
        if row := self.held(job):
            row.until = self.now + LEASE

    @rule()
    def reap(self) -> None:
        dead = [r for r in self.rows.values() if r.state == "running" and r.until < self.now]
        assert self.journal.reap(now=self.now) == len(dead)
        for row in dead:
            row.state, row.holder, row.not_before = "queued", None, 0.0
            row.crashes += 1

    @rule(job=jobs, end=st.sampled_from(["done", "quarantined"]))
    def end(self, job: Job, end: str) -> None:
        write = self.journal.finish if end == "done" else self.journal.quarantine
        row = self.held(job)
        assert write(job, "words") is (row is not None)
        if row:
            row.state, row.holder = end, None

    @rule(job=jobs, charge=st.booleans(), delay=st.sampled_from([0.0, 5.0]))
    def retry(self, job: Job, charge: bool, delay: float) -> None:
        row = self.held(job)
        told = self.journal.retry(job, not_before=self.now + delay, charge=charge)
        assert told is (row is not None)
        if row and row.gone:
            del self.rows[job.source]
        elif row:
            row.state, row.holder, row.not_before = "queued", None, self.now + delay
            row.attempts -= not charge

    @rule(job=jobs)
    def forget(self, job: Job) -> None:
        row = self.held(job)
        assert self.journal.forget(job) is (row is not None)
        if row:
            del self.rows[job.source]

    @rule(job=jobs)
    def operator_retries(self, job: Job) -> None:
        row = next((r for s, r in self.rows.items() if s == job.source), None)
        revived = self.journal.requeue([job.id])
        # A forgotten and re-admitted version has another id: nothing may happen then.
        if row and row.state == "quarantined" and revived:
            self.rows[job.source] = Row(gone=row.gone)
        else:
            assert not revived

    @rule(seconds=st.sampled_from([1.0, LEASE + 1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path)

    @rule()
    def prune(self) -> None:
        self.journal.prune(before=float("inf"))
        self.rows = {
            s: r for s, r in self.rows.items() if not (r.gone and r.state in ("done", "quarantined"))
        }

    def held(self, job: Job) -> Row | None:
        row = self.rows.get(job.source)
        return row if row and row.state == "running" and row.holder == job else None

    @invariant()
    def agrees_with_the_model(self) -> None:
        expected = Counter((s.folder, r.state) for s, r in self.rows.items())
        counted = {(f, s): n for f, states in self.journal.counts().items() for s, n in states.items()}
        assert counted == dict(expected)
        for folder in FOLDERS:
            known = {s.relpath for s, r in self.rows.items() if s.folder == folder and not r.gone}
            assert set(self.journal.known(folder)) == known

    @invariant()
    def two_versions_of_one_file_never_run_at_once(self) -> None:
        running = Counter((s.folder, s.relpath) for s, r in self.rows.items() if r.state == "running")
        assert all(count == 1 for count in running.values())

    def teardown(self) -> None:
        self.journal.close()
        self.directory.cleanup()


JournalMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestJournal = JournalMachine.TestCase
