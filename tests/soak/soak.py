"""A real daemon under random writers and random faults, for hours; then every file is asked for.

    make soak HOURS=1              the fake engine: what is tested is everything around it
    make soak HOURS=1 SOAK="--card modnet --rate 0.3"
    make soak HOURS=0.1 SOAK="--seed 17"

Ends with 0 if every settled file reached exactly one end, no partial output was ever visible, no
temporary was left, sources are what was dropped, and memory stayed flat. The seed repeats the choices,
not the moments. As root it also fills a disk, and takes the share away by unmounting it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import psutil
from aftermath import Onlooker, Versions, check_journal, check_results, check_sources, settled
from daemonrig import CARDS, DaemonRig
from weather import CALM, STORM, Places, Weather, may_mount
from writers import Gate, Writer

FOLDERS: dict[str, dict[str, Any]] = {
    "keep": {"create": False},
    "store": {"source": "archive"},
    "drain": {"source": "delete"},
}
# Slow writers pause for longer than it is quiet, and never as long as a truncated file is waited for.
WAITS = {"quiet_s": 0.2, "incomplete_s": 6, "scan_interval_s": 5}
WRITERS = 3
# Whoever is there at thirty deaths is innocent here: nobody shall be given up for them.
RETRY = {"max_attempts": 30, "base_delay_s": 0.02, "max_delay_s": 0.2}
BETWEEN_S = (0.5, 4.0)
LAST_S = 240.0
# A calm that is shorter says nothing about memory.
MEANINGFUL_S = 120.0
GROWTH, SLACK_MB, SLACK_FILES = 1.10, 8.0, 16


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the daemon and its worker hold at one moment, and the largest reader; MB are 10^6 bytes.

    How many readers there are follows the load: one for each photo that is read at the time, and a minute longer.
    """

    at_s: float
    daemon_mb: float
    worker_mb: float
    reader_mb: float
    files: int
    threads: int


class Soak:
    """One run, everything under `root`."""

    def __init__(self, root: Path, *, seed: int, seconds: float, card: str, rate: float) -> None:
        self.seed, self.seconds = seed, seconds
        cache = root / "cache" if card in ("tiny", "fake") else None
        self.rig = DaemonRig(
            root,
            folders={name: {**WAITS, **own} for name, own in FOLDERS.items()},
            card=card,
            retry=RETRY,
            models={"cards": str(CARDS), "cache": cache and str(cache)},
        )
        self.mounts = may_mount()
        self.places = Places(self.rig, mounts=self.mounts)
        gates = {name: Gate() for name in FOLDERS}
        self.weather = Weather(self.rig, random.Random(f"{seed}/weather"), gates, self.places)
        self.writers = [
            Writer(number, self.rig, random.Random(f"{seed}/{number}"), gates, rate=rate / WRITERS)
            for number in range(WRITERS)
        ]
        self.curve: list[Footprint] = []
        self._began = 0.0

    def run(self) -> dict[str, Any]:
        """Blow, then check. Raises AssertionError for whatever does not hold; returns the figures."""
        self.rig.start()
        self._began = time.monotonic()
        onlooker = Onlooker(self.rig)
        for writer in self.writers:
            writer.start()
        try:
            self._blow(STORM, self.seconds / 2)
            self._blow(CALM, self.seconds / 2, note=self._note)
        finally:
            for writer in self.writers:
                writer.stop()
            seen = onlooker.stop()
        for writer in self.writers:
            writer.check()
        self._check(seen)
        return self._figures(seen)

    def _blow(
        self,
        faults: list[Callable[[Weather], None]],
        seconds: float,
        *,
        note: Callable[[], None] | None = None,
    ) -> None:
        faults = [*faults, Weather.fill_disk] if self.mounts else faults
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.weather.wait(*BETWEEN_S)
            if note is not None:
                note()
            self.weather.strike(faults)
            for writer in self.writers:
                writer.check()
            assert self.rig.is_alive(), self.rig.log()[-4000:]

    def _note(self) -> None:
        daemon = psutil.Process(self.rig.pid)
        at_s = time.monotonic() - self._began
        largest = max((_megabytes([reader]) for reader in self.rig.readers()), default=0.0)
        sizes = [_megabytes([daemon]), _megabytes(self.rig.workers()), largest]
        self.curve.append(Footprint(at_s, *sizes, daemon.num_fds(), daemon.num_threads()))

    # --- Afterwards ------------------------------------------------------------------------

    def _check(self, seen: dict[str, Any]) -> None:
        versions, bad, removed = self._story()
        self.rig.wait(lambda: settled(self.rig, versions, bad=bad), timeout=LAST_S, every=0.5)
        folders = self.rig.status()["folders"]
        assert {folder["state"] for folder in folders.values()} == {"watching"}, folders
        assert self.rig.stop() == 0, self.rig.log()[-4000:]
        for writer in self.writers:
            writer.close()
        assert seen["violations"] == [], seen["violations"]
        assert seen["files"] and seen["sets"]
        history = {key: record for writer in self.writers for key, record in writer.history.items()}
        check_results(self.rig, versions, bad=bad, removed=removed, history=history)
        check_sources(self.rig, versions, bad=bad)
        check_journal(self.rig, bad={("any", "history")})
        assert self.rig.leftovers() == [], self.rig.leftovers()
        if self.seconds / 2 >= MEANINGFUL_S:
            self._check_footprint()

    def _story(self) -> tuple[Versions, set[tuple[str, str]], set[tuple[str, str]]]:
        versions: Versions = {}
        bad: set[tuple[str, str]] = set()
        removed: set[tuple[str, str]] = set()
        for writer in self.writers:
            versions |= writer.versions
            bad |= writer.bad
            removed |= writer.removed
        return versions, bad, removed

    def _fifths(self) -> list[Footprint]:
        """Medians of each fifth of the calm, the first of which warms up; fewer where it was short."""
        size = max(1, -(-len(self.curve) // 5))
        return [_median(self.curve[start : start + size]) for start in range(0, len(self.curve), size)]

    def _check_footprint(self) -> None:
        _, first, *_, last = self._fifths()
        for name in ("daemon_mb", "worker_mb", "reader_mb"):
            most = getattr(first, name) * GROWTH + SLACK_MB
            assert getattr(last, name) <= most, f"{name} grew: {first} -> {last}"
        assert last.files <= first.files + SLACK_FILES, f"open files grew: {first} -> {last}"
        assert last.threads <= first.threads + SLACK_FILES, f"threads grew: {first} -> {last}"

    def _figures(self, seen: dict[str, Any]) -> dict[str, Any]:
        versions, bad, removed = self._story()
        did = sum((writer.did for writer in self.writers), Counter())
        with self.rig.journal() as journal:
            counts = journal.counts()
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "mounts": self.mounts,
            "written": dict(sorted(did.items())),
            "names": len(versions),
            "bad": len(bad),
            "removed": len(removed),
            "struck": dict(sorted(self.weather.struck.items())),
            "journal": {name: dict(states) for name, states in sorted(counts.items())},
            "seen": {"files": seen["files"], "sets": seen["sets"], "violations": len(seen["violations"])},
            "footprint": [asdict(fifth) for fifth in self._fifths()],
        }


def _megabytes(family: list[psutil.Process]) -> float:
    """Resident, 10^6 bytes; of those that are still there."""
    total = 0
    for one in family:
        with suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total / 1e6


def _median(points: list[Footprint]) -> Footprint:
    columns = [statistics.median(column) for column in zip(*map(astuple, points), strict=True)]
    return Footprint(*(round(value, 1) for value in columns[:4]), *(int(value) for value in columns[4:]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument(
        "--card", default="tiny", help="the model: tiny (default, an engine of no cost), modnet"
    )
    parser.add_argument("--rate", type=float, default=12.0, help="drops a second, all writers together")
    args = parser.parse_args()
    print(f"soak: seed {args.seed}, {args.hours:g} h, card {args.card}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hotmatte-soak-", ignore_cleanup_errors=True) as folder:
        soak = Soak(Path(folder), seed=args.seed, seconds=args.hours * 3600, card=args.card, rate=args.rate)
        print(f"soak: in {folder}, {'with' if soak.mounts else 'without'} mounts", flush=True)
        try:
            figures = soak.run()
        except AssertionError:
            traceback.print_exc()
            kept = Path(tempfile.gettempdir(), f"hotmatte-soak-{args.seed}-{os.getpid()}.log")
            kept.write_text(soak.rig.log())
            print(f"soak: FAILED, seed {args.seed}; the daemon's log is {kept}", file=sys.stderr)
            return 1
        finally:
            soak.rig.close()
            soak.places.close()
    print(json.dumps(figures, indent=2))
    print("soak: every invariant held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
