"""What people see on a terminal while work goes on."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from watcher.domain import Failure, Outcome, printable


class _Words(Console):
    """On stderr. Goes silent where its reader has gone (`... 2>&1 | head`): the work is what was asked for."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # Whatever else is said, such as at the end, must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class RunLine:
    """One line at the bottom of the terminal: waiting, running, done, failed, and the rate."""

    def __init__(self) -> None:
        self._live = Live(Text("starting"), console=_Words(), refresh_per_second=4, transient=True)
        self._marks: list[tuple[float, int]] = []

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def update(self, snapshot: dict[str, Any]) -> None:
        """Show what the daemon's snapshot says."""
        waiting = sum(states.get("queued", 0) for states in snapshot["counts"].values())
        unsettled = sum(folder["unsettled"] for folder in snapshot["folders"].values())
        running = [item["file"] for item in snapshot["running"]]
        words = [
            ("waiting", waiting + unsettled),
            ("running", len(running)),
            ("done", snapshot["done"]),
            ("failed", snapshot["quarantined"]),
        ]
        line = Text("  ").join(
            Text(f"{count} {word}", style="bold" if count else "dim") for word, count in words
        )
        if rate := self._rate(snapshot["done"]):
            line.append(f"  {rate:.1f} photos/s")
        if running:
            line.append(f"  {running[0]}", style="dim")
        for name, folder in snapshot["folders"].items():
            if folder["reason"]:
                line.append(f"\n{name} {folder['state']}: {folder['reason']}", style="yellow")
        self._live.update(line)

    def _rate(self, done: int) -> float:
        """Photos a second over the last ten seconds."""
        now = time.monotonic()
        self._marks = [mark for mark in self._marks if now - mark[0] < 10.0] + [(now, done)]
        (then, before) = self._marks[0]
        return (done - before) / (now - then) if now > then else 0.0


class Bar:
    """A progress bar on a terminal, a line a photo elsewhere; failures are always said."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._console = _Words()
        self._quiet = quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("mattes", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def done(self, name: str, outcome: Outcome) -> None:
        self._bar.advance(self._task)
        if self._quiet:
            return
        words = [printable(file.path) for file in outcome.files]
        flags = f"  ({', '.join(outcome.review.flags)})" if outcome.review.flags else ""
        warnings = "".join(f"\n    {warning}" for warning in outcome.warnings)
        self._say(f"{name} -> {', '.join(words) or 'nothing'}{flags}{warnings}")

    def failed(self, name: str, failure: Failure) -> None:
        self._bar.advance(self._task)
        self._say(f"FAILED {name}: {failure.reason}. {failure.remedy}")

    def _say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
