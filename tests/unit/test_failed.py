"""`hotmatte failed` lists so many, and says how many more there are."""

from __future__ import annotations

import pytest
from written import written

from watcher import cli
from watcher.domain import Source, Stamp
from watcher.health import JOURNAL
from watcher.journal import Journal


@pytest.fixture
def configured(tmp_path, monkeypatch) -> None:
    file = written(tmp_path, "folders: {in: {path: in, output: out}, other: {path: other, output: out2}}")
    monkeypatch.setenv("HOTMATTE_CONFIG", str(file))
    (tmp_path / ".hotmatte").mkdir()
    with Journal(tmp_path / ".hotmatte" / JOURNAL) as journal:
        for number in range(5):
            journal.admit(Source("in" if number else "other", f"{number}.jpg", Stamp(1, 1)))
        for job in journal.claim(["in", "other"], limit=9, now=2e9, lease=9):
            journal.quarantine(job, '{"reason": "no photo"}')


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ([], None),
        (["--limit", "2"], "and 3 more: `hotmatte failed --limit 5`"),
        (["--limit", "1", "--folder", "in"], "and 3 more: `hotmatte failed --limit 4`"),
        (["--limit", "1", "--folder", "other"], None),
        (["--limit", "0"], "and 5 more: `hotmatte failed --limit 5`"),
    ],
)
def test_what_is_not_listed_is_counted(configured, capsys, words, more):
    assert cli.main(["failed", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("and ") or line == "nothing failed"] == (
        [more] if more else []
    )
