"""List the photos that failed, newest first: why, and what to do. The photos are still there."""

from __future__ import annotations

import argparse
import json

from watcher.commands.shared import failure_words, known_folder, open_journal, row, since
from watcher.config import Settings
from watcher.domain import JobState, printable
from watcher.exits import OK


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", metavar="NAME", help="only of this hot folder")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (100)")
    parser.add_argument("--json", action="store_true", help="one JSON array")


def run(args: argparse.Namespace, settings: Settings) -> int:
    folder = known_folder(settings, args.folder) if args.folder else None
    records, there = [], 0
    if journal := open_journal(settings):
        with journal:
            records = journal.records(JobState.QUARANTINED, folder=folder, limit=max(0, args.limit))
            counts = journal.in_quarantine()
            there = sum(counts.values()) if folder is None else counts.get(folder, 0)
    if args.json:
        print(json.dumps([row(record) for record in records], indent=2, ensure_ascii=False))
        return OK
    for record in records:
        job, words = record.job, failure_words(record)
        name = printable(job.source.relpath)
        tries = "1 try" if job.attempts == 1 else f"{job.attempts} tries"
        print(f"{job.id}  {job.source.folder}/{name}  ({tries}, {since(record.ended_at)})")
        print(f"    {words.get('reason')}")
        print(f"    {words.get('remedy', '')}")
    if there > len(records):
        print(f"and {there - len(records)} more: `hotmatte failed --limit {there}`")
    elif not records:
        print("nothing failed")
    return OK
