"""What may not be read is said once, and all of it whenever somebody asks."""

from __future__ import annotations

import os
import pwd

import pytest

from watcher.intake.refused import MOST_NAMED, Refused


@pytest.fixture
def refused(tmp_path) -> Refused:
    return Refused("in", str(tmp_path))


def said(caplog) -> list[str]:
    return [record.fields.get("file", record.getMessage()) for record in caplog.records]


def test_a_file_is_told_once_with_its_owner_and_mode_and_what_to_do(refused, tmp_path, caplog):
    (tmp_path / "a.jpg").touch(mode=0o600)
    refused.note("a.jpg")
    assert refused.report() == ("", "")  # not before the log has it
    for _ in range(3):
        refused.note("a.jpg")
        refused.tell()
    [record] = caplog.records
    me = pwd.getpwuid(os.geteuid()).pw_name
    words = f"it is {me}'s with mode 0600, and hotmatte runs as {me}"
    assert record.getMessage() == f"no permission to read: {words}"
    assert refused.report()[0] == f"no permission to read a.jpg ({words})"
    assert record.fields["remedy"] == refused.report()[1]
    assert f"Give {me} read access" in refused.report()[1]


def test_of_many_at_once_a_few_are_named_and_all_are_counted(refused, caplog):
    for number in range(40):
        refused.note(f"{number}.jpg")
    refused.tell()
    assert said(caplog) == [
        *(f"{number}.jpg" for number in range(MOST_NAMED)),
        f"no permission to read {40 - MOST_NAMED} more files and folders",
    ]
    assert "40 files and folders, such as 0.jpg" in refused.report()[0]


def test_what_was_given_access_and_lost_it_again_is_news(refused, caplog):
    refused.listed(["sub"])
    refused.note("a.jpg")
    refused.tell()
    refused.forget("never.jpg")
    refused.forget("a.jpg")
    refused.listed([])
    assert refused.report() == ("", "")
    refused.note("a.jpg")
    refused.listed(["sub"])
    refused.tell()
    assert said(caplog) == ["a.jpg", "sub", "a.jpg", "sub"]
