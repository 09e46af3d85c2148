"""What `hotmatte doctor` found, and how to look at things that may never answer."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from watcher.domain import printable
from watcher.exits import CONFIG, IO, OK, UNAVAILABLE

OFFLINE = "Bring the file server back, or unmount the share; the other folders are not affected."


class Verdict(enum.StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One look at one thing. `status` is the exit status that a FAIL calls for."""

    subject: str
    verdict: Verdict
    words: str
    remedy: str = ""
    status: int = OK

    def lines(self) -> str:
        head = f"{self.verdict:4}  {printable(self.subject)}: {_shown(self.words)}"
        return f"{head}\n      {_shown(self.remedy)}" if self.remedy else head


def _shown(words: str) -> str:
    return words if words.isprintable() else printable(words)


def ok(subject: str, words: str) -> Finding:
    return Finding(subject, Verdict.OK, words)


def warn(subject: str, words: str, remedy: str) -> Finding:
    return Finding(subject, Verdict.WARN, words, remedy)


def fail(subject: str, words: str, remedy: str, *, status: int = IO) -> Finding:
    return Finding(subject, Verdict.FAIL, words, remedy, status)


def exit_of(findings: Iterable[Finding]) -> int:
    """0 without a FAIL; else what keeps `run` from starting comes before what only pauses it."""
    statuses = {finding.status for finding in findings if finding.verdict is Verdict.FAIL}
    return next((status for status in (CONFIG, UNAVAILABLE, IO) if status in statuses), OK)


def answered(
    subject: str, look: Callable[[], list[Finding]], *, timeout: float, remedy: str = OFFLINE
) -> list[Finding]:
    """What `look` finds, in a thread one can afford to lose: a dead share holds it for ever."""
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(look())
        except OSError as error:
            found.append(fail(subject, f"cannot be examined: {error}", "See whether the share is mounted."))

    thread = threading.Thread(target=run, name=f"doctor-{subject}", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        return [fail(subject, f"does not answer within {timeout:g} s", remedy)]
    return found
