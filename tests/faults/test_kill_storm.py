"""SIGKILL at any moment, many times over: nothing is lost, torn, doubled or left behind.

`HOTMATTE_FAULTS=full` (which `make faults` sets) makes it 200 kills; `HOTMATTE_SEED` repeats
a run as far as processes can be made to repeat themselves.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from aftermath import Onlooker, Versions, check_journal, check_results, check_sources, settled
from daemonrig import DaemonRig, drop, jpeg, sha256
from mortal import STEPS

FULL = os.environ.get("HOTMATTE_FAULTS") == "full"
KILLS = 200 if FULL else 15
SEED = int(os.environ.get("HOTMATTE_SEED") or random.SystemRandom().randrange(10**6))
HERE = Path(__file__).parent

FOLDERS: dict[str, dict[str, object]] = {
    "keep": {"quiet_s": 0.05},
    "store": {"quiet_s": 0.05, "source": "archive"},
    "drain": {"quiet_s": 0.05, "source": "delete"},
}
NAMES = [f"{place}IMG_{number:02d}.jpg" for place in ("", "day 1/", "day 2/a/") for number in range(8)]
# A named step that is not reached in this time is not on the way today.
REACHED_S = 5.0
# Half of all deaths come at a named step, half at any moment.
DEATHS = [(step, moment) for step in STEPS for moment in ("before", "after")]


class Dropper:
    """Drops photos without end: new ones, and other content under names that were used before."""

    def __init__(self, storm: DaemonRig, chance: random.Random) -> None:
        self._storm = storm
        self._chance = chance
        self._over = threading.Event()
        self._seeds = itertools.count(1)
        self.versions: Versions = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.drop()

    def drop(self) -> None:
        key = name, relpath = self._chance.choice(list(FOLDERS)), self._chance.choice(NAMES)
        content = jpeg(next(self._seeds))
        self.versions.setdefault(key, []).append(sha256(content))
        drop(self._storm.hot(name) / relpath, content, how=self._chance.choice(["rename", "write"]))


@pytest.mark.timeout(3600)
def test_nothing_is_lost_torn_doubled_or_left_behind_by_kills(rig: Callable[..., DaemonRig]) -> None:
    print(f"\nkill storm: seed {SEED}, {KILLS} kills")
    chance = random.Random(SEED)
    # Whoever is there at a hundred deaths is innocent here: nobody shall be given up.
    retry = {"max_attempts": 100, "base_delay_s": 0.02, "max_delay_s": 0.2}
    storm = rig(folders=FOLDERS, card="tiny", retry=retry)
    onlooker = Onlooker(storm)
    dropper = Dropper(storm, random.Random(SEED + 1))
    began = time.monotonic()
    try:
        _begin_well(storm)
        deaths = _kill_again_and_again(storm, chance)
    finally:
        dropper.stop()
        seen = onlooker.stop()
    seconds = time.monotonic() - began
    storm.start()
    storm.wait(lambda: settled(storm, dropper.versions), timeout=120, every=0.2)
    assert storm.stop() == 0
    drops = sum(len(digests) for digests in dropper.versions.values())
    print(
        f"kill storm: {sum(deaths.values())} kills in {seconds:.0f} s, {drops} drops of "
        f"{len(dropper.versions)} names, {seen['files']} files and {seen['sets']} sets read meanwhile"
    )
    print("kill storm:", ", ".join(f"{what} {count}" for what, count in sorted(deaths.items())))
    assert seen["violations"] == []
    assert seen["files"] and seen["sets"]
    check_results(storm, dropper.versions)
    check_sources(storm, dropper.versions)
    check_journal(storm)
    assert storm.leftovers() == []


# --- The storm -----------------------------------------------------------------------------


def _begin_well(storm: DaemonRig) -> None:
    """Live until photos are done: whatever is only done once, such as compiling, is done then."""
    storm.start()
    for name in FOLDERS:
        storm.wait(lambda name=name: storm.sidecars(name), timeout=30)
    storm.kill()


def _kill_again_and_again(storm: DaemonRig, chance: random.Random) -> Counter[str]:
    deaths: Counter[str] = Counter()
    named = itertools.cycle(chance.sample(DEATHS, len(DEATHS)))
    while sum(deaths.values()) < KILLS:
        if chance.random() < 0.5:
            step, moment = next(named)
            deaths[_die_at(storm, step, moment, times=chance.choice([1, 1, 2, 5]))] += 1
        else:
            storm.start(ready=False)
            if chance.random() < 0.3:
                deaths["worker"] += _kill_worker(storm, chance)
            _live_for(storm, chance.uniform(0.0, 1.2))
            deaths["daemon"] += 1
        storm.kill()
    return deaths


def _die_at(storm: DaemonRig, step: str, moment: str, *, times: int) -> str:
    """Let it run into its doom; where it does not in time, kill it all the same."""
    run = [sys.executable, str(HERE / "mortal.py"), step, moment, str(times), *storm.command("run")[3:]]
    child = storm.start(ready=False, command=run)
    try:
        assert child.wait(REACHED_S) == -signal.SIGKILL, storm.log()[-4000:]
    except subprocess.TimeoutExpired:
        return "daemon"
    return step


def _kill_worker(storm: DaemonRig, chance: random.Random) -> int:
    """Kill the engine while the daemon lives on; how many died."""
    workers = storm.wait(storm.workers, timeout=20)
    _live_for(storm, chance.uniform(0.0, 0.6))
    for worker in workers:
        worker.kill()
    return len(workers)


def _live_for(storm: DaemonRig, seconds: float) -> None:
    """From the first sign of life on: much of a start is imports, and nothing dies in those."""
    storm.wait(lambda: storm.workers() or storm.status().get("pid") == storm.pid, timeout=20)
    with pytest.raises(subprocess.TimeoutExpired):
        assert storm.child is not None
        storm.child.wait(seconds)
