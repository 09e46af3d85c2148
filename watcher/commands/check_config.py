"""Report every problem of the configuration at once, each with its line.

hotmatte check-config                  the file that `run` would use
hotmatte check-config --config FILE
hotmatte check-config --schema         JSON Schema, for editors
"""

from __future__ import annotations

import argparse
import json

from watcher import config
from watcher.engine.card import cards_of
from watcher.exits import OK

NEEDS_SETTINGS = False


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema and exit")


def schema() -> str:
    """What config/hotmatte.schema.json holds."""
    described = config.Settings.model_json_schema()
    described["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    described["title"] = "hotmatte.yaml"
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


def run(args: argparse.Namespace) -> int:
    if args.schema:
        print(schema(), end="")
        return OK
    settings = config.load(args.config)
    cards_of(settings)
    where = args.config or "embedded default"
    print(f"{where}: fine")
    for name, folder in settings.folders.items():
        print(f"  {name}: {folder.path} -> {folder.output} ({folder.profile}, source: {folder.source})")
    return OK
