"""Which node can work for a model, and, where none can, a word in the log: photos would wait unheard of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from watcher.errors import ConfigError
from watcher.fleet.messages import check_versions
from watcher.log import event


def unfit(name: str, said: Mapping[str, Any], *, model: str, card: str) -> str | None:
    """Why a node that says this gets no work for `model`, in words; None where it gets some."""
    try:
        check_versions(said.get("protocol"), str(said.get("hotmatte")), who=f"node {name}")
    except ConfigError as error:
        return f"{error}. {error.remedy}"
    models = said.get("models", {})
    if model not in models:
        return f"it has no model {model}: nothing in its configuration with `where: fleet` uses that"
    if models[model] != card:
        return f"its model card {model} differs from this host's: other pixels would come out"
    return str(said["trouble"]) if said.get("trouble") else None


class Vacancy:
    """Tells once that nobody can do what is out, after `patience` seconds of it, and once that somebody can."""

    def __init__(self, model: str, *, patience: float) -> None:
        self._model, self._patience = model, patience
        self._since: float | None = None
        self._told = False

    def look(self, living: Mapping[str, Mapping[str, Any]], *, card: str, out: int, now: float) -> None:
        """`living`: what nodes say, by name; `out`: photos that wait for one of them."""
        if any(unfit(name, said, model=self._model, card=card) is None for name, said in living.items()):
            if self._told:
                event(logging.INFO, f"fleet: a node for {self._model} is there again")
            self._since, self._told = None, False
        elif not out:
            self._since = None
        elif self._since is None:
            self._since = now
        elif not self._told and now - self._since >= self._patience:
            self._told = True
            waits = "1 photo waits" if out == 1 else f"{out} photos wait"
            words = f"fleet: no node can do {self._model}, for which {waits}"
            event(logging.WARNING, words, remedy=_remedy(living))


def _remedy(living: Mapping[str, Mapping[str, Any]]) -> str:
    if not living:
        return "Start `hotmatte node` on another host, or see there why it ended; work goes on by itself."
    return "`hotmatte status` says of each node why; as a rule its configuration is not the watcher's."
