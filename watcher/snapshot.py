"""What the daemon is doing, as one JSON object: for `hotmatte status`, the page and systemd."""

from __future__ import annotations

import time
from typing import Any

from watcher.assembly import Assembly, Lane
from watcher.domain import printable
from watcher.tally import ENGINE, Pause

BY_HAND = "paused by hand: photos are noted and wait"


def snapshot(assembly: Assembly) -> dict[str, Any]:
    """Equal snapshots mean that nothing happened in between: no ages, no clocks."""
    pauses: dict[str, Pause] = {}
    shut: dict[str, list[Pause]] = {}
    for lane in assembly.lanes:
        status = lane.dispatcher.status()
        pauses |= status.pauses
        shut |= status.shut
    for name in assembly.held():
        pauses[name] = Pause(BY_HAND, f"`hotmatte resume {name}` goes on.", 0.0, 0)
    return {
        "folders": {name: _folder(assembly, name, pauses, shut.get(name, [])) for name in assembly.watches},
        "engines": [_engine(lane) for lane in assembly.lanes],
        "running": [
            {
                "job": job.id,
                "folder": job.source.folder,
                "file": printable(job.source.relpath),
                "since": round(time.time() - (time.monotonic() - since)),
            }
            for lane in assembly.lanes
            for job, since in lane.dispatcher.status().running
        ],
        "done": sum(lane.dispatcher.status().done for lane in assembly.lanes),
        "quarantined": sum(lane.dispatcher.status().quarantined for lane in assembly.lanes),
        "admitted": assembly.admitted,
        **_fleets(assembly),
        "cache": _cache(assembly),
    }


def _cache(assembly: Assembly) -> dict[str, Any]:
    """`asked` and `found` count photos since the configuration came into force."""
    held, tally = assembly.cache.contents, assembly.tally
    return {
        "folder": printable(str(assembly.cache.folder)),
        "entries": held.entries,
        "bytes": held.size,
        "most_bytes": assembly.cache.most,
        "asked": tally.asked,
        "found": tally.found,
    }


def _fleets(assembly: Assembly) -> dict[str, Any]:
    fleets = [lane.fleet.snapshot() for lane in assembly.lanes if lane.fleet is not None]
    return {"fleet": fleets} if fleets else {}


def _folder(assembly: Assembly, name: str, pauses: dict[str, Pause], shut: list[Pause]) -> dict[str, Any]:
    folder, status = assembly.settings.folders[name], assembly.watches[name].status()
    pause = pauses.get(name)
    reason, remedy = status.reason, None
    if pause and status.state == "offline":
        # Why it is away comes first: nobody's `resume` brings it back.
        if pause.reason == BY_HAND:
            reason, remedy = f"{reason} Also {BY_HAND}.", pause.remedy
    elif pause:
        reason, remedy = pause.reason, pause.remedy
    elif not reason:
        # Nothing is wrong with a folder in which some files may not be read, or written; but somebody should know.
        notes = [(one.reason, one.remedy) for one in shut]
        notes += [(status.refused, status.remedy)] * bool(status.refused)
        reason = "; ".join(words for words, _ in notes[:3]) + f" and {len(notes) - 3} more" * (len(notes) > 3)
        remedy = notes[0][1] if notes else None
    return {
        "path": printable(str(folder.path)),
        "output": printable(str(folder.output)),
        "profile": folder.profile,
        "state": "paused" if pause and status.state == "watching" else status.state,
        "reason": printable(reason),
        "remedy": remedy,
        "observer": status.observer,
        "observer_reason": status.observer_reason,
        "files": status.scan_files,
        "listing_s": round(status.scan_s, 3),
        "unsettled": status.waiting,
        "oldest": None if status.oldest is None else printable(status.oldest),
        "oldest_since": None if status.oldest is None else round(time.time() - status.oldest_s),
        "oldest_why": status.oldest_why or None,
        "symlinks_ignored": status.symlinks,
        "others_ignored": status.ignored,
        "unreadable": [printable(relpath) for relpath in status.unreadable],
    }


def _engine(lane: Lane) -> dict[str, Any]:
    about, pause = lane.supervisor.about, lane.dispatcher.status().pauses.get(ENGINE)
    return {
        "model": about.model if about else None,
        "device": about.device if about else None,
        "framework": about.framework if about else None,
        "restarts": lane.supervisor.restarts,
        "paused": printable(pause.reason) if pause else None,
    }


def sentence(full: dict[str, Any]) -> str:
    """One line for `systemctl status`: how many folders, how much work, what is wrong."""
    waiting = sum(states.get("queued", 0) for states in full["counts"].values())
    failed = sum(states.get("quarantined", 0) for states in full["counts"].values())
    watched = [f for f in full["folders"].values() if f["state"] == "watching"]
    words = [
        f"{len(watched)} of {len(full['folders'])} folders watched",
        f"{waiting} waiting",
        f"{len(full['running'])} running",
        f"{full['done']} done since start",
        f"{failed} in quarantine",
    ]
    wrong = [f"{name} {f['state']}: {f['reason']}" for name, f in full["folders"].items() if f["reason"]]
    for fleet in full.get("fleet", ()):
        there = [node for node in fleet["nodes"] if node["state"] != "silent"]
        if fleet["broker_lost"] or not there:
            wrong.append(fleet["broker_lost"] or f"no node is there for {fleet['model']}")
    if full["refused"]:
        wrong.append(f"configuration refused: {full['refused']}")
    return "; ".join([", ".join(words), *wrong])
