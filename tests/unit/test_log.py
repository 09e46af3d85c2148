from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from watcher import log
from watcher.errors import ConfigError
from watcher.intake import observer  # noqa: F401  (keeps to itself what is no error)
from watcher.log import event, set_up

try:
    from systemd import journal
except ImportError:
    journal = None

# A new line, an escape that clears the screen, a carriage return, a byte that is not UTF-8, a
# right-to-left override and Unicode's own end of a line.
NASTY = "a\nERROR forged\x1b[2J\rb\udcff\u202e\u2028.jpg"


def logged(shape: log.Shape, *args: Any, level: str = "debug", **fields: Any) -> str:
    """What `event` writes to a real, strict UTF-8 stream."""
    binary = io.BytesIO()
    stream = io.TextIOWrapper(binary, encoding="utf-8", errors="strict", newline="")
    with contextlib.redirect_stderr(stream):
        set_up(shape, level)
        event(*args, **fields)
        stream.flush()
    return binary.getvalue().decode()


def test_what_the_observer_says_of_its_own_has_the_shape_of_the_log() -> None:
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        set_up("json", "info")
        library = logging.getLogger("watchdog.observers.inotify")
        library.warning("Inotify queue overflowed below %r", "/srv/hot")
        library.error("InotifyEmitter.queue_events() called when the thread is inactive")
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == "Inotify queue overflowed below '/srv/hot'"


class Sent(list[tuple[str, dict[str, Any]]]):
    """The shape of `systemd.journal.send`; encodes as strictly as that does."""

    def __call__(self, message: str, **fields: Any) -> None:
        message.encode()
        for value in fields.values():
            str(value).encode()
        self.append((message, fields))


# --- Text ----------------------------------------------------------------------------------


def test_text_has_the_time_the_level_the_message_and_the_fields() -> None:
    line = logged("text", logging.INFO, "done", job=17, file="a.jpg", ms=184.0, review=None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO done job=17 file=a\.jpg ms=184\n", line)


def test_text_quotes_what_would_be_taken_for_two_fields() -> None:
    line = logged("text", logging.INFO, "done", file="a job=1.jpg", empty="")
    assert 'file="a job=1.jpg" empty=""' in line


@pytest.mark.parametrize("shape", ["text", "json"])
def test_no_name_breaks_a_line(shape: log.Shape) -> None:
    said = logged(shape, logging.WARNING, f"quarantined: cannot read {NASTY}", file=NASTY, reason=NASTY)
    assert said.endswith("\n")
    line = said[:-1]
    assert line.isprintable()
    assert "\\xff" in line
    assert "\\u202e" in line


def test_a_backslash_in_a_message_stays_single() -> None:
    # Names in messages have been made printable already.
    assert r"cannot read a\x0ab" in logged("text", logging.INFO, r"cannot read a\x0ab")


def test_a_traceback_stands_below_its_line_and_cannot_forge_one() -> None:
    binary = io.BytesIO()
    stream = io.TextIOWrapper(binary, encoding="utf-8", errors="strict", newline="")
    with contextlib.redirect_stderr(stream):
        set_up("text", "info")
        try:
            raise OSError(2, "gone", NASTY)
        except OSError:
            logging.getLogger("hotmatte").exception("bug")
        stream.flush()
    lines = binary.getvalue().decode().splitlines()
    assert lines[0].endswith(" ERROR bug")
    assert lines[1].startswith("Traceback")
    assert not any(line.startswith("ERROR forged") for line in lines)


def test_what_is_below_the_level_is_not_written() -> None:
    assert logged("text", logging.DEBUG, "claimed", job=1, level="info") == ""
    assert "claimed" in logged("text", logging.DEBUG, "claimed", job=1, level="debug")


def test_modules_that_log_by_their_own_name_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("text", "info")
    logging.getLogger("watcher.intake.watch").info("watching")
    logging.getLogger("hotmatte.engine").info("booted")
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert "INFO watching" in said
    assert "INFO booted" in said


def test_setting_up_again_replaces_what_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("text", "info")
    set_up("json", "info")
    event(logging.INFO, "once")
    said = capsys.readouterr().err
    assert json.loads(said)["message"] == "once"


# --- JSON ----------------------------------------------------------------------------------


def test_json_is_one_object_a_line_and_keeps_the_types_of_fields() -> None:
    entry = json.loads(logged("json", logging.INFO, "done", job=17, ms=184.5, ok=True, file="ü.jpg"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert entry == {"level": "info", "message": "done", "job": 17, "ms": 184.5, "ok": True, "file": "ü.jpg"}


# --- The journal of systemd ----------------------------------------------------------------

Speaker = Callable[[Callable[..., object]], logging.Logger]


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    """A logger that sends to the journal by the function it is given."""
    logger = logging.getLogger("hotmatte.test")
    logger.propagate = False

    def of(send: Callable[..., object]) -> logging.Logger:
        logger.handlers[:] = [log._Journal(send)]
        return logger

    yield of
    logger.handlers.clear()


def test_the_journal_gets_each_field_under_a_name_of_its_own(speaker: Speaker) -> None:
    sent = Sent()
    logger = speaker(sent)
    logger.warning("done", extra={"fields": {"job": 17, "folder": "in", "file": NASTY}})
    ((message, fields),) = sent
    assert message.startswith("done job=17 folder=in file=")
    assert message.isprintable()
    assert fields["PRIORITY"] == 4
    assert fields["SYSLOG_IDENTIFIER"] == "hotmatte"
    assert (fields["HOTMATTE_JOB"], fields["HOTMATTE_FOLDER"]) == ("17", "in")
    assert fields["HOTMATTE_FILE"].isprintable()


def test_a_journal_gets_tracebacks_it_can_encode(speaker: Speaker) -> None:
    sent = Sent()
    logger = speaker(sent)
    try:
        raise OSError(2, "gone", NASTY)
    except OSError as error:
        logger.error("traceback", exc_info=error)
    ((message, fields),) = sent
    assert "FileNotFoundError" in message
    assert fields["PRIORITY"] == 3


def test_a_journal_that_refuses_does_not_stop_the_work(
    speaker: Speaker, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_message: str, **_fields: Any) -> None:
        raise OSError(5, "journal gone")

    logger = speaker(refuse)
    logger.warning("done")
    assert "journal gone" in capsys.readouterr().err


def test_systemd_python_takes_what_is_sent(speaker: Speaker, real_part: Callable[..., None]) -> None:
    real_part("systemd-python", journal, "pip install 'hotmatte[systemd]'")
    logger = speaker(journal.send)
    logger.warning("hotmatte's own test", extra={"fields": {"job": 17, "file": NASTY}})


def test_the_journal_without_systemd_python_is_a_problem_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "systemd", None)
    with pytest.raises(ConfigError) as caught:
        set_up("journal", "info")
    assert "hotmatte[systemd]" in caught.value.remedy


def test_auto_is_text_unless_stderr_leads_to_the_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert log.shape_of("auto") == "text"
    with (tmp_path / "stderr").open("w") as stderr:
        status = os.fstat(stderr.fileno())
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        assert not log.under_journald()
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert log.under_journald()
        monkeypatch.setitem(sys.modules, "systemd", None)
        assert log.shape_of("auto") == "text"
