"""Serve the page, the API and the numbers.

hotmatte web                              on 127.0.0.1:8410, for this machine only
hotmatte web --listen unix:/run/hotmatte/web.sock
hotmatte web --listen 0.0.0.0:8410        for others: needs an API key (`hotmatte keys add`)

SIGHUP reads the configuration again, but for web.listen and state_dir. A process of its own beside `hotmatte run`: either may stop or start without the other. Reads
the same configuration; see its `web` section, docs/page.md and docs/http-api.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import dataclass

from pydantic import ValidationError

from watcher import log
from watcher.commands.shared import known_folder
from watcher.config import Settings, load
from watcher.errors import ConfigError
from watcher.exits import UNAVAILABLE
from watcher.intake.names import Rules
from watcher.web_settings import Web

NEEDED = ("fastapi", "uvicorn", "python_multipart", "jinja2", "prometheus_client")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", metavar="ADDRESS", help="instead of web.listen of the configuration")


def run(args: argparse.Namespace, settings: Settings) -> int:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"hotmatte web: needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'hotmatte[web]', or in a checkout .venv/bin/pip install -e '.[web]'",
            file=sys.stderr,
        )
        return UNAVAILABLE
    from watcher.web.serve import serve

    def complete(settings: Settings) -> tuple[Settings, NameRules]:
        if args.listen:
            settings = settings.model_copy(update={"web": _elsewhere(settings.web, args.listen)})
        if settings.web.folder is not None:
            known_folder(settings, settings.web.folder)
        return settings, NameRules(settings)

    settings, accepts = complete(settings)
    log.set_up(settings.log.format, settings.log.level)
    return serve(settings, accepts, lambda: complete(load(args.config)))


def _elsewhere(web: Web, listen: str) -> Web:
    try:
        return Web.model_validate({**web.model_dump(), "listen": listen})
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError([f"--listen {listen}: {problem}"], remedy="Correct it.") from error


@dataclass(frozen=True)
class NameRules:
    """Intake's word on names, for a service that must not know intake."""

    settings: Settings

    def __call__(self, folder: str, name: str) -> bool:
        return Rules(self.settings.folders[folder]).wants(name)
