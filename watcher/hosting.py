"""The life of `hotmatte node`: engines, signals, stop. Contains no work."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

from watcher.assembly import Engines
from watcher.bounds import pixel_budget
from watcher.cache_settings import opened
from watcher.config import Settings
from watcher.engine.card import Card, cards_of
from watcher.errors import ConfigError
from watcher.exits import OK, leave
from watcher.fleet.brokers import Line
from watcher.fleet.hands import Bench
from watcher.fleet.messages import card_digest
from watcher.fleet.node import Node
from watcher.fleet.shares import Shares
from watcher.fleet.tls import Tls
from watcher.fleet_settings import broker_url
from watcher.health import Systemd
from watcher.log import event
from watcher.pipeline.answers import Tally
from watcher.pipeline.compiled import compilers_at_work
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.runner import Runner
from watcher.stages import about_of, answers_of, build_runner

Pull = Callable[[list[Card], Settings], object]


def run(name: str | None, settings: Settings, *, pull: Pull) -> int:
    """Until told to stop. `pull` fetches the weights of cards. Raises WatcherError if it cannot begin or go on."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", name or socket.gethostname())[:64].lstrip("._-") or "node"
    url = broker_url(settings.queue)
    if url is None:
        raise ConfigError(["a node needs a broker: set queue.url"])
    line = Line(url, lost_after=settings.queue.lost_after_s, tls=Tls.of(settings.queue))
    wanted = _for_fleet(settings)
    engines, systemd = Engines(), Systemd()
    runners: list[Runner] = []
    try:
        node = Node(name, settings, line, Shares(settings.shares))
        node.check()
        if not settings.models.offline:
            pull(list(cards_of(wanted, "fleet").values()), wanted)
        engines.boot(wanted, "fleet")
        for bench, runner in _benches(wanted, engines):
            runners.append(runner)
            node.add(bench)
        _run(node, name, line, systemd, engines)
    finally:
        systemd.stopping()
        # Cuts short what outlasted the drain: others have it by now.
        engines.close()
        for runner in runners:
            runner.close()
        line.close()
    event(logging.INFO, "stopped", status=OK)
    if compilers_at_work():
        leave(OK)
    return OK


def _for_fleet(settings: Settings) -> Settings:
    """The settings with those hot folders only that nodes work for."""
    folders = {name: folder for name, folder in settings.folders.items() if folder.where == "fleet"}
    if not folders:
        raise ConfigError(["no hot folder says `where: fleet`: there is nothing to do for a node"])
    return settings.model_copy(update={"folders": folders})


def _benches(settings: Settings, engines: Engines) -> list[tuple[Bench, Runner]]:
    """One for each model; the device is that of the first profile that names it."""
    budget = pixel_budget(settings)
    cache, tally = opened(settings.cache, settings.models.cache), Tally()
    found: dict[str, tuple[Bench, Runner]] = {}
    for profile, card in cards_of(settings, "fleet").items():
        digest = card_digest(card)
        if digest in found:
            continue
        supervisor = engines.get(card, settings.profiles[profile].device)
        recipes: dict[str, Recipe] = {}
        answers = answers_of(card, supervisor, cache, tally)
        runner = build_runner(card, supervisor, recipes, settings, budget, answers=answers)
        found[digest] = Bench(card.name, digest, runner, recipes, partial(about_of, supervisor)), runner
    return list(found.values())


def _run(node: Node, name: str, line: Line, systemd: Systemd, engines: Engines) -> None:
    def on_signal(number: int, _: object) -> None:
        if node.stopping:
            logging.shutdown()
            os._exit(OK)
        event(logging.INFO, "stopping", signal=signal.Signals(number).name)
        node.stop()

    def beat() -> None:
        systemd.ping(time.monotonic())
        engines.rest()

    def on_hangup(number: int, _: object) -> None:
        # Unheeded it would end the node, and count as well with systemd, which would not start it again.
        words = "a node reads its configuration at its start only, and goes on with the one it has"
        event(logging.WARNING, words, remedy="Restart it.", signal=signal.Signals(number).name)

    signal.signal(signal.SIGHUP, on_hangup)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    systemd.ready()
    event(logging.INFO, "node ready", source=name, path=line.address)
    node.run(beat)
