"""What the daemon is doing: folders, engines, work, and what is wrong.

hotmatte status            once
hotmatte status --watch    until Ctrl-C
hotmatte status --json     for programs
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from watcher.commands.shared import ago, open_journal
from watcher.config import Settings
from watcher.domain import printable
from watcher.exits import OK, UNAVAILABLE
from watcher.health import holder, read_snapshot


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--watch", action="store_true", help="again every second")


def run(args: argparse.Namespace, settings: Settings) -> int:
    if args.watch and not args.json:
        return _watch(settings)
    facts = gather(settings)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if args.json else words(facts))
    return OK if facts["running_pid"] else UNAVAILABLE


def _watch(settings: Settings) -> int:
    from rich.live import Live
    from rich.text import Text

    if not sys.stdout.isatty():
        # `... --watch | tee log`: what a terminal shows in place, one after the other.
        while True:
            print(words(gather(settings)), end="\n\n", flush=True)
            time.sleep(1.0)
    with Live(refresh_per_second=2) as live:
        while True:
            live.update(Text(words(gather(settings))))
            time.sleep(1.0)


def gather(settings: Settings) -> dict[str, Any]:
    """The daemon's own words if it runs, and what the journal holds either way."""
    pid = holder(settings.state_dir)
    facts = read_snapshot(settings.state_dir) if pid else {}
    counts: dict[str, dict[str, int]] = {}
    held: list[str] = []
    failed: dict[str, int] = {}
    if journal := open_journal(settings):
        with journal:
            counts, held, failed = journal.counts(), sorted(journal.held()), journal.in_quarantine()
    return {
        **facts,
        "running_pid": pid,
        "state_dir": str(settings.state_dir),
        "counts": counts,
        "in_quarantine": failed,
        "paused_by_hand": held,
        "configured": {name: printable(str(folder.path)) for name, folder in settings.folders.items()},
    }


def words(facts: dict[str, Any]) -> str:
    """The same for people."""
    lines = [_headline(facts)]
    if facts.get("refused"):
        lines.append(f"CONFIGURATION REFUSED, the old one is in force: {facts['refused']}")
    folders = facts.get("folders", {})
    for name, path in facts["configured"].items():
        # What `hotmatte failed` lists: photos that were replaced or taken away since are history.
        counts = {**facts["counts"].get(name, {}), "quarantined": facts["in_quarantine"].get(name, 0)}
        lines += ["", *_folder(name, path, folders.get(name), counts)]
        if name in facts["paused_by_hand"] and not facts["running_pid"]:
            lines.append(f"  paused by hand: `hotmatte resume {name}` lets its photos go on")
    for name in facts["counts"].keys() - facts["configured"].keys():
        waiting = facts["counts"][name].get("queued", 0)
        if waiting:
            lines += ["", f"{name}: no longer configured, {waiting} photos wait for it to come back"]
    lines += [""] * bool(facts.get("engines"))
    lines += [_engine(engine) for engine in facts.get("engines", [])]
    for fleet in facts.get("fleet", []):
        lines += ["", *_fleet(fleet)]
    lines += _cache(facts.get("cache", {}))
    for item in facts.get("running", []):
        lines.append(f"  running {item['folder']}/{item['file']} for {ago(time.time() - item['since'])}")
    return "\n".join(lines)


def _headline(facts: dict[str, Any]) -> str:
    if not facts["running_pid"]:
        return f"hotmatte is not running (state: {facts['state_dir']})"
    if "started_at" not in facts:
        return f"hotmatte is starting (process {facts['running_pid']})"
    up = ago(time.time() - facts["started_at"])
    ready = "" if facts["ready"] else ", not ready yet"
    return f"hotmatte {facts['version']} runs as process {facts['running_pid']} for {up}{ready}"


def _folder(name: str, path: str, folder: dict[str, Any] | None, counts: dict[str, int]) -> list[str]:
    state = folder["state"] if folder else "not watched"
    lines = [f"{name}: {state}  {path}"]
    if folder:
        if folder["reason"]:
            lines.append(f"  {'NOTE' if state == 'watching' else state.upper()}: {folder['reason']}")
        if folder["remedy"]:
            lines.append(f"  {folder['remedy']}")
        why = f" ({folder['observer_reason']})" if folder["observer_reason"] else ""
        lines.append(f"  observer: {folder['observer']}{why}; results in {folder['output']}")
        files = _count(folder["files"], "file")
        since = "; since then the observer tells" if folder["observer"] == "native" else ""
        lines.append(f"  {files} at the last full listing, which took {folder['listing_s']:.2f} s{since}")
        if folder["unsettled"]:
            oldest = (
                f", {folder['oldest']} for {ago(time.time() - folder['oldest_since'])}"
                if folder["oldest"]
                else ""
            )
            why = f": {folder['oldest_why']}" if oldest and folder.get("oldest_why") else ""
            lines.append(f"  {folder['unsettled']} unsettled{oldest}{why}")
        if folder["symlinks_ignored"]:
            lines.append(f"  {_count(folder['symlinks_ignored'], 'symbolic link')} ignored")
        if folder.get("others_ignored"):
            others = _count(folder["others_ignored"], "other file")
            lines.append(f"  {others} ignored: by name (see include and ignore), or no regular files")
        lines += [f"  cannot read {_shown(relpath)}" for relpath in folder["unreadable"][:5]]
    numbers = [f"{counts.get(state, 0)} {word}" for state, word in STATES]
    return [*lines, "  " + ", ".join(numbers)]


def _shown(relpath: str) -> str:
    """A path that is too long for the system is too long for people."""
    return relpath if len(relpath) <= 200 else f"{relpath[:150]} ... ({len(relpath)} characters)"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


STATES = (("queued", "waiting"), ("running", "running"), ("done", "done"), ("quarantined", "in quarantine"))


def _engine(engine: dict[str, Any]) -> str:
    line = f"engine {engine['model']} on {engine['device']} ({engine['framework']})"
    if engine["restarts"]:
        line += f", {engine['restarts']} restarts"
    return line + (f", PAUSED: {engine['paused']}" if engine["paused"] else "")


def _fleet(fleet: dict[str, Any]) -> list[str]:
    """The nodes for one model: what each holds, how fast it is, since when it is silent."""
    lines = [f"fleet {fleet['model']} by {fleet['broker']}: {fleet['in_flight']} photos out"]
    if fleet["resent"]:
        lines[0] += f", {fleet['resent']} sent again"
    if fleet["broker_lost"]:
        lines.append(
            f"  BROKER LOST: {fleet['broker_lost'].rstrip('.')}. Photos are still taken in; it goes on by itself"
        )
    if not fleet["nodes"]:
        lines.append("  NO NODE is there: start `hotmatte node` on another host")
    for node in fleet["nodes"]:
        if node["state"] == "silent":
            lines.append(f"  {node['node']}: SILENT for {ago(node['silent_s'])}")
            continue
        lines.append(
            f"  {node['node']}: {node['state']}, holds {node['holds']} of {node['capacity']}, "
            f"{node['per_minute']} a minute, {node['done']} done, {node['failed']} failed"
        )
        if node["reason"]:
            lines.append(f"    GETS NO WORK: {node['reason']}")
    return lines


def _cache(cache: dict[str, Any]) -> list[str]:
    if not cache.get("most_bytes"):
        return []
    known = f"{cache['found']} of {cache['asked']} photos were known" if cache["asked"] else "no photo yet"
    size = f"{cache['bytes'] / 1e6:.0f} of {cache['most_bytes'] / 1e6:.0f} MB"
    return [f"cache: {cache['entries']} entries, {size}; {known}"]
