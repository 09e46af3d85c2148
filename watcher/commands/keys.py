"""API keys for `hotmatte web`: make, list, revoke.

hotmatte keys add studio --scope upload --scope read
hotmatte keys list
hotmatte keys revoke studio

The key is shown once, when it is made; only its hash is kept. Scopes: read (jobs, results, the
page), upload (photos), operate (retry, pause, resume, judge), metrics (/metrics). Changes hold
at once, also for a service that runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from watcher.commands.shared import ago
from watcher.config import Settings
from watcher.exits import OK, SOME_FAILED, USAGE
from watcher.web.keys import SCOPES, KeyRing


def configure(parser: argparse.ArgumentParser) -> None:
    # Also behind the action, where people write it.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make a key and show it, once", parents=[common])
    add.add_argument("name", metavar="NAME", help="whose it is; shown in lists")
    add.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        metavar="SCOPE",
        help=f"what it may do ({', '.join(SCOPES)}); may be repeated; all if left out",
    )
    actions.add_parser("list", help="the keys there are, without their secrets", parents=[common])
    revoke = actions.add_parser("revoke", help="end a key at once", parents=[common])
    revoke.add_argument("name", metavar="NAME", help="its name, or its number from the list")


def run(args: argparse.Namespace, settings: Settings) -> int:
    ring = KeyRing(settings.state_dir)
    match args.action:
        case "add":
            return _add(ring, args.name, tuple(dict.fromkeys(args.scope or SCOPES)))
        case "revoke":
            return _revoke(ring, args.name)
    for key in ring.all():
        print(f"{key.id}  {key.name}  {','.join(key.scopes)}  {ago(time.time() - key.created)} ago")
    return OK


def _add(ring: KeyRing, name: str, scopes: tuple[str, ...]) -> int:
    if not name.isprintable() or not name.strip():
        print("hotmatte keys: a name must have printable characters", file=sys.stderr)
        return USAGE
    if any(key.name == name for key in ring.all()):
        print(f"hotmatte keys: there is a key of the name {name!r} already; revoke it first", file=sys.stderr)
        return USAGE
    _, word = ring.add(name, scopes)
    print(word)
    print("Keep it: it is not shown again. Sent as the header X-Api-Key.", file=sys.stderr)
    return OK


def _revoke(ring: KeyRing, name: str) -> int:
    key = ring.revoke(name)
    if key is None:
        print(f"hotmatte keys: there is no key {name!r}; see `hotmatte keys list`", file=sys.stderr)
        return SOME_FAILED
    print(f"revoked: {key.id}  {key.name}")
    return OK
