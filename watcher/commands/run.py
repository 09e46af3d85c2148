"""Watch the hot folders and publish a matte of every photo, until told to stop.

Ctrl-C (or SIGTERM) finishes the photos that are running, a second one leaves at once:
nothing is lost either way. SIGHUP, or `hotmatte reload`, reads the configuration again.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from watcher import __version__, log, memory
from watcher.config import Settings
from watcher.domain import printable
from watcher.health import JOURNAL

if TYPE_CHECKING:  # imported by what needs it: `hotmatte run --help` is to be quick
    from watcher.daemon import Show


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-progress", action="store_true", help="no progress line on a terminal")


def run(args: argparse.Namespace, settings: Settings) -> int:
    memory.limit_arenas()
    from watcher import descriptors
    from watcher.daemon import Daemon
    from watcher.engine.card import cards_of
    from watcher.exits import leave
    from watcher.pipeline.compiled import compilers_at_work

    log.set_up(settings.log.format, settings.log.level)
    descriptors.raise_limit(len(settings.folders))
    cards_of(settings)
    cards = cards_of(settings, "here")
    plain = log.shape_of(settings.log.format) == "text"
    if plain:
        print(banner(args, settings), file=sys.stderr)
    if not settings.models.offline:
        from watcher.commands.models import pull_missing

        pull_missing(list(cards.values()), settings)
    with _display(plain and not args.no_progress and sys.stderr.isatty()) as show:
        status = Daemon(args.config, settings, show=show).run()
    if compilers_at_work():  # journal closed, terminal as it was: nothing is left to be done
        leave(status)
    return status


def banner(args: argparse.Namespace, settings: Settings) -> str:
    """Where to drop files and what happens to them."""
    lines = [f"hotmatte {__version__}, configuration: {args.config or 'embedded default'}"]
    for name, folder in settings.folders.items():
        results = ", ".join(output.shown for output in settings.profile_of(folder).outputs)
        fate = {
            "leave": "stay where they are",
            "archive": f"move to {folder.archive} when their matte is safe",
            "delete": "are deleted when their matte is safe",
        }[folder.source]
        lines += [
            f"  [{name}]",
            f"    drop photos into   {printable(str(folder.path))}",
            f"    results appear in  {printable(str(folder.output))}: {results}, then NAME.matte.json",
            f"    failures write     NAME.error.json into {printable(str(folder.quarantine or folder.output))}",
            f"    originals          {fate}",
        ]
    lines.append(f"  journal: {settings.state_dir / JOURNAL}. Ctrl-C stops; nothing is lost.")
    return "\n".join(lines)


@contextlib.contextmanager
def _display(wanted: bool) -> Iterator[Show]:
    if not wanted:
        yield lambda _: None
        return
    from watcher.commands.progress import RunLine

    with RunLine() as line:

        def show(snapshot: dict[str, Any]) -> None:
            line.update(snapshot)

        yield show
