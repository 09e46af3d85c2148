"""Show or clear the cache: what engines said of photos, and photos that were fetched by URL.

hotmatte cache             how much lies there
hotmatte cache clear       forget it all; also while the daemon runs

The same photo under the same model is computed once, wherever it comes from: hot folders, uploads
and `hotmatte matte`. `cache.size_mb` of the configuration bounds it. See docs/cache.md.
"""

from __future__ import annotations

import argparse
import json

from watcher.cache import Cache, Contents
from watcher.cache_settings import place_of
from watcher.config import Settings
from watcher.domain import printable
from watcher.exits import OK


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("show", "clear"), default="show", help="default: show")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    # Without a bound of its own: to look and to clear must not take anything away by themselves.
    cache, most = Cache(place_of(settings.models.cache), most=0), int(settings.cache.size_mb * 1e6)
    held = cache.clear() if args.action == "clear" else cache.count()
    if args.json:
        print(json.dumps(_facts(cache, held, most, cleared=args.action == "clear")))
    elif args.action == "clear":
        print(f"cleared: {_size(held)} in {printable(str(cache.folder))}")
    else:
        bound = f"at most {most / 1e6:.0f} MB" if most else "off: nothing is kept"
        print(f"{printable(str(cache.folder))}: {_size(held)}; {bound}")
    return OK


def _size(held: Contents) -> str:
    return f"{held.entries} entries, {held.size / 1e6:.1f} MB"


def _facts(cache: Cache, held: Contents, most: int, *, cleared: bool) -> dict[str, object]:
    return {
        "folder": printable(str(cache.folder)),
        "entries": held.entries,
        "bytes": held.size,
        "most_bytes": most,
        "cleared": cleared,
    }
