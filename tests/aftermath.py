"""What must hold after a storm of drops and faults, and the client that watches while it blows.

The kill storm (tests/faults) and the soak (tests/soak) both end here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from daemonrig import DaemonRig, check_set, sha256

from watcher.domain import JobState

READER = Path(__file__).with_name("reader.py")
# A name in a hot folder: (folder, path in it).
Key = tuple[str, str]
# The sha256 of everything that was ever dropped under a name, oldest first.
Versions = dict[Key, list[str]]
NONE: frozenset[Key] = frozenset()


class Onlooker:
    """A client in a process of its own that reads every result the moment it has its final name."""

    def __init__(self, rig: DaemonRig) -> None:
        outputs = [str(rig.out(name)) for name in rig.settings["folders"]]
        self._child = subprocess.Popen(
            [sys.executable, str(READER), *outputs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def stop(self) -> dict[str, Any]:
        """How many `files` and `sets` it read whole, and the `violations`: all it must never have seen."""
        said, _ = self._child.communicate(timeout=60)
        result: dict[str, Any] = json.loads(said)
        return result


def final(versions: Versions) -> dict[Key, str]:
    return {key: digests[-1] for key, digests in versions.items()}


def settled(rig: DaemonRig, versions: Versions, *, bad: AbstractSet[Key] = NONE) -> bool:
    """Everything has its end, and whatever was to be retired is gone from its hot folder."""
    counts = rig.counts()
    if not rig.is_ready() or counts.get("queued") or counts.get("running"):
        return False
    for name, relpath in versions:
        ended = JobState.QUARANTINED if (name, relpath) in bad else JobState.DONE
        if rig.state_of(relpath, name) is not ended:
            return False
        if ended is JobState.DONE and _retires(rig, name) and (rig.hot(name) / relpath).exists():
            return False
    return True


def _retires(rig: DaemonRig, name: str) -> bool:
    return rig.settings["folders"][name].get("source", "leave") != "leave"


def check_results(
    rig: DaemonRig,
    versions: Versions,
    *,
    bad: AbstractSet[Key] = NONE,
    removed: AbstractSet[Key] = NONE,
    history: Versions | None = None,
) -> None:
    """Exactly one set for each name, of its last version, whole, and nothing else.

    A name in `bad` has exactly one report instead; results of an earlier, good version may
    stay beside it. A name in `removed` was taken away by its owner: what was done by then stays.
    `history` tells of what lay under names before they were removed and used again.
    """
    history = history or versions
    found: dict[Key, str] = {}
    reported: Counter[Key] = Counter()
    for name in rig.settings["folders"]:
        sidecars = rig.sidecars(name)
        for path, content in sidecars.items():
            check_set(path, content, rig.out(name))
            key = name, content["source"]["path"]
            assert key not in found, f"{key} has two sidecars"
            found[key] = content["source"]["sha256"]
        reports = rig.reports(name)
        reported.update((name, content["source"]["path"]) for content in reports.values())
        files = [path for path in rig.out(name).rglob("*") if path.is_file()]
        listed = sum(1 + len(content["outputs"]) for content in sidecars.values())
        assert len(files) == listed + len(reports), files
    for key in bad:
        if key in found:
            assert found.pop(key) in history[key][:-1], f"{key} is bad and has results"
    for key in set(removed) - set(versions):
        found.pop(key, None)
        reported.pop(key, None)
    wanted = {key: digest for key, digest in final(versions).items() if key not in bad}
    assert found == wanted, _difference(found, wanted)
    assert reported == dict.fromkeys(bad, 1), _difference(reported, dict.fromkeys(bad, 1))


def _difference(found: Mapping[Key, object], wanted: Mapping[Key, object]) -> str:
    keys = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    return ", ".join(f"{key}: {found.get(key)}, not {wanted.get(key)}" for key in keys)


def check_sources(rig: DaemonRig, versions: Versions, *, bad: AbstractSet[Key] = NONE) -> None:
    """Left as they were; archived once each, the last version among them; deleted. Bad ones stay."""
    for (name, relpath), digest in final(versions).items():
        path = rig.hot(name) / relpath
        stays = not _retires(rig, name) or (name, relpath) in bad
        assert path.exists() == stays, path
        assert not stays or sha256(path.read_bytes()) == digest, f"{path} is not what was dropped"
    for name, folder in rig.settings["folders"].items():
        if folder.get("source") == "archive":
            _check_archive(
                rig, name, {key: digests for key, digests in versions.items() if key[0] == name}, bad
            )


def _check_archive(rig: DaemonRig, name: str, versions: Versions, bad: AbstractSet[Key]) -> None:
    stored = Counter(sha256(path.read_bytes()) for path in rig.archive(name).rglob("*") if path.is_file())
    assert set(stored.values()) <= {1}, "archived twice"
    assert set(stored) <= {digest for digests in versions.values() for digest in digests}
    assert {digests[-1] for key, digests in versions.items() if key not in bad} <= set(stored)


def check_journal(rig: DaemonRig, *, bad: AbstractSet[Key] = NONE) -> None:
    """Nothing waits and nothing runs; failures are those of `bad` names, or history."""
    with rig.journal() as journal:
        counts = journal.counts()
    states = {state for states in counts.values() for state in states}
    assert states <= ({"done", "quarantined"} if bad else {"done"}), counts
