"""One logger, three shapes: text, JSON, and the fields of systemd's journal.

`event(logging.INFO, "done", job=17, file="a.jpg")` is the only way to log a fact about work:
the fields stay fields wherever they end up. Field names are documented in docs/operating.md.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any, Literal, TextIO

from watcher.domain import printable
from watcher.errors import ConfigError

LOGGER = logging.getLogger("hotmatte")
Shape = Literal["auto", "text", "json", "journal"]

# syslog(3): what journald calls PRIORITY.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def event(level: int, message: str, **fields: object) -> None:
    """Log `message` with its fields; a field that is None is left out."""
    if LOGGER.isEnabledFor(level):
        kept = {name: value for name, value in fields.items() if value is not None}
        LOGGER.log(level, message, extra={"fields": kept})


def set_up(shape: Shape, level: str) -> None:
    """Point the logger at stderr or at the journal. Replaces what was set up before."""
    target = _target(shape)
    # Modules that log by their own name are heard as well.
    for logger in (LOGGER, logging.getLogger("watcher")):
        logger.handlers[:] = [target]
        logger.setLevel(level.upper())
        logger.propagate = False
    adopt("watchdog", logging.WARNING)


def adopt(name: str, level: int) -> None:
    """Have a library's logger speak as ours does: one event is one line, in the shape that is set up."""
    logger = logging.getLogger(name)
    logger.handlers[:] = LOGGER.handlers
    logger.setLevel(level)
    logger.propagate = False


def shape_of(shape: Shape) -> Shape:
    """What `auto` means here: the journal where stderr goes there, text elsewhere."""
    if shape != "auto":
        return shape
    return "journal" if under_journald() and _sender() else "text"


def _target(shape: Shape) -> logging.Handler:
    shape = shape_of(shape)
    if shape == "journal":
        sender = _sender()
        if sender is None:
            raise ConfigError(
                ["log.format is journal, but systemd-python is not installed"],
                remedy="pip install 'hotmatte[systemd]', or set log.format to text or json.",
            )
        return _Journal(sender)
    stream = _Stderr()
    stream.setFormatter(_Json() if shape == "json" else _Text())
    return stream


def under_journald() -> bool:
    """Is stderr connected to the journal? See JOURNAL_STREAM in systemd.exec(5)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def _sender() -> Any:
    try:
        from systemd import journal
    except ImportError:
        return None
    return journal.send


class _Stderr(logging.StreamHandler[TextIO]):
    """Asks for sys.stderr each time: a progress line may have put itself in between."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _plain(value: object) -> object:
    """Names of files come from strangers: nothing they hold may start a new line or move the cursor."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    return printable(str(value))


def _message(record: logging.LogRecord) -> str:
    """On one line. Unlike `printable` it leaves backslashes: names in it may be escaped already."""
    return _one_line(record.getMessage())


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else printable(c) for c in text)


def _traceback(record: logging.LogRecord) -> str:
    """As text that any target can encode; empty without an exception."""
    if not record.exc_info:
        return ""
    lines = logging.Formatter().formatException(record.exc_info).split("\n")
    return "\n".join(_one_line(line) for line in lines)


class _Text(logging.Formatter):
    """`2026-01-31 12:00:00 INFO done job=17 file=a.jpg`, a traceback on the lines below."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        lines = [f"{when} {record.levelname} {_sentence(record)}", _traceback(record)]
        return "\n".join(filter(None, lines))


def _sentence(record: logging.LogRecord) -> str:
    """The message, then `name=value` for each field."""
    words = [f"{name}={_quoted(_plain(value))}" for name, value in _fields(record).items()]
    return " ".join([_message(record), *words])


def _quoted(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text


class _Json(logging.Formatter):
    """One object a line: time (UTC), level, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": _message(record),
        }
        entry |= {name: _plain(value) for name, value in _fields(record).items()}  # type: ignore[misc]
        if traceback := _traceback(record):
            entry["traceback"] = traceback
        return json.dumps(entry, ensure_ascii=False)


class _Journal(logging.Handler):
    """Each field becomes HOTMATTE_NAME: `journalctl HOTMATTE_FOLDER=inbox`."""

    def __init__(self, send: Any) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        message = "\n".join(filter(None, [_sentence(record), _traceback(record)]))
        priority = PRIORITIES.get(record.levelno, 6)
        named = {f"HOTMATTE_{name.upper()}": str(_plain(value)) for name, value in _fields(record).items()}
        try:
            self._send(message, PRIORITY=priority, SYSLOG_IDENTIFIER="hotmatte", **named)
        except OSError:
            # A journal that refuses must not stop the thread that had something to say.
            self.handleError(record)
