"""What people see on a terminal while work goes on."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text


class RunLine:
    """One line at the bottom of the terminal: waiting, running, done, failed, and the rate."""

    def __init__(self) -> None:
        self._live = Live(
            Text("starting"), console=Console(stderr=True), refresh_per_second=4, transient=True
        )
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
