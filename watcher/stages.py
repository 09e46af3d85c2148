"""Puts the stages together for one engine: the runner, what it knows of folders, what it remembers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from watcher.bounds import batch_of, deliverers, renderers, stage_threads
from watcher.cache import Cache
from watcher.config import Settings
from watcher.domain import EngineAbout
from watcher.engine import weights
from watcher.engine.card import Card, engine_file, proxy_size, sizes_of
from watcher.engine.crew import Crew
from watcher.log import event
from watcher.pipeline.answers import Answers, Tally, code_of
from watcher.pipeline.batch import Batcher
from watcher.pipeline.budget import PixelBudget
from watcher.pipeline.decode import DecodeLimits
from watcher.pipeline.looks import Canvases
from watcher.pipeline.pages import BLOCKS
from watcher.pipeline.readers import Readers
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.renderers import HERE, Renderers, Renders
from watcher.pipeline.runner import Runner
from watcher.pipeline.scale import step_down
from watcher.pipeline.work import FolderWork


def about_of(supervisor: Crew) -> EngineAbout:
    """Who computes; to be asked of a supervisor that has computed something."""
    assert supervisor.about is not None
    return supervisor.about


def answers_of(card: Card, supervisor: Crew, cache: Cache, tally: Tally) -> Answers:
    """Those of one engine: its card and its own file count, and who it says it is."""
    identity = {"card": card.model_dump_json(), "code": code_of(engine_file(card.engine))}
    return Answers(cache, identity=identity, about=partial(about_of, supervisor), tally=tally)


def build_runner(
    card: Card,
    supervisor: Crew,
    recipes: Mapping[str, Recipe],
    settings: Settings,
    budget: PixelBudget,
    *,
    answers: Answers | None = None,
    apart: bool = False,
) -> Runner:
    """The stages for one engine; the limits are those of `settings`. `apart`: see Runner.

    Without `answers` every photo is computed, also one that was before.
    """
    limits = settings.limits
    readers = Readers(timeout=limits.decode_timeout_s)
    count = renderers(settings, supervisor)
    renders = Renderers(most=count, cache=weights.cache_folder(settings.models.cache)) if count else HERE
    if count:
        event(logging.INFO, "photos are rendered in processes", model=card.name, most=count)
    work = FolderWork(
        recipes,
        proxy_size=partial(proxy_size, card=card),
        canvases=lambda width, height: Canvases(
            (width, height), *sizes_of(width, height, card), few=about_of(supervisor).device != "cpu"
        ),
        limits=DecodeLimits(limits.max_image_mp, limits.max_file_mb),
        reads=readers,
        answers=answers,
        renders=renders,
    )
    runner = Runner(
        work,
        supervisor,
        Batcher(batch_of(card, supervisor), card.max_delay_ms / 1000),
        threads=stage_threads(settings),
        deliverers=deliverers(settings),
        budget=budget,
        timeout=card.timeout_s,
        apart=apart,
        step_down=partial(step_down, multiple=card.input.multiple),
        on_close=partial(_close, readers, renders),
        on_rest=BLOCKS.forget,
        lanes=supervisor.most,
    )
    supervisor.mind(runner.company)
    return runner


def _close(readers: Readers, renders: Renders) -> None:
    readers.close()
    renders.close()
