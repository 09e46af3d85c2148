"""Try failed photos again.

hotmatte retry 17 18            jobs by number, as `hotmatte failed` lists them
hotmatte retry inbox/a.jpg      by hot folder and name
hotmatte retry --all [--folder NAME]
"""

from __future__ import annotations

import argparse
import sys

from watcher.bell import ring
from watcher.commands.shared import known_folder, open_journal
from watcher.config import Settings
from watcher.domain import JobState, printable
from watcher.exits import OK, SOME_FAILED, USAGE
from watcher.journal import Journal


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="a number, or FOLDER/FILE")
    parser.add_argument("--all", action="store_true", help="every photo that failed")
    parser.add_argument("--folder", metavar="NAME", help="with --all: only of this hot folder")


def run(args: argparse.Namespace, settings: Settings) -> int:
    if bool(args.jobs) == args.all:
        print("hotmatte retry: name jobs, or say --all", file=sys.stderr)
        return USAGE
    folder = known_folder(settings, args.folder) if args.folder else None
    journal = open_journal(settings)
    if journal is None:
        print("nothing was done here yet")
        return OK
    with journal:
        if args.all:
            wanted = [r.job.id for r in journal.records(JobState.QUARANTINED, folder=folder, limit=1_000_000)]
            unknown: list[str] = []
        else:
            wanted, unknown = _resolve(journal, args.jobs)
        queued = journal.requeue(wanted)
    ring(settings.state_dir)
    for job in queued:
        print(f"queued again: {job.id}  {job.source.folder}/{printable(job.source.relpath)}")
    for name in sorted({job.source.folder for job in queued} - set(settings.folders)):
        print(
            f"hotmatte: no hot folder is called {name!r} any more: its photos wait until one is",
            file=sys.stderr,
        )
    for name in unknown:
        print(f"hotmatte: {name}: no failed photo of that name; see `hotmatte failed`", file=sys.stderr)
    if not queued and not unknown:
        print("nothing to retry")
    return SOME_FAILED if unknown else OK


def _resolve(journal: Journal, names: list[str]) -> tuple[list[int], list[str]]:
    failed = {r.job.id: r for r in journal.records(JobState.QUARANTINED, limit=1_000_000)}
    by_name = {f"{r.job.source.folder}/{printable(r.job.source.relpath)}": id_ for id_, r in failed.items()}
    found, unknown = [], []
    for name in names:
        id_ = int(name) if name.isdecimal() else by_name.get(name)
        if id_ in failed:
            found.append(id_)
        else:
            unknown.append(name)
    return found, unknown
