"""Work for watchers on other hosts: take their jobs from the broker, put results on the shares.

hotmatte node                  under the name of this host
hotmatte node --name gpu1-b    a second one on this host

Reads the same configuration as the watcher: `queue`, `shares` (where this host mounts them),
`profiles`, `limits`, `models`. The models of all hot folders with `where: fleet` are kept warm.
SIGTERM finishes what is in hand, a second one leaves at once: nothing is lost either way.
"""

from __future__ import annotations

import argparse

from watcher.config import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default=None, metavar="NAME", help="what to be called; default: the host")


def run(args: argparse.Namespace, settings: Settings) -> int:
    from watcher import hosting, log
    from watcher.commands.models import pull_missing

    log.set_up(settings.log.format, settings.log.level)
    return hosting.run(args.name, settings, pull=pull_missing)
