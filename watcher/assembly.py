"""Builds everything a configuration asks for, starts it and takes it down. Contains no policy.

The parts: one FolderWatch a hot folder; one lane (engine, runner, dispatcher) for each pair
of model and device that some profile names.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from watcher.bounds import in_flight, pixel_budget
from watcher.cache_settings import opened
from watcher.config import Folder, Settings
from watcher.cores import cores
from watcher.dispatch import Dispatcher
from watcher.domain import EngineAbout, JobState, Source
from watcher.engine import weights
from watcher.engine.card import Card, cards_of
from watcher.engine.crew import Crew, Growth, has_room, most_on_cpu
from watcher.engine.launch import prepare
from watcher.errors import EngineUnavailable, HostError, WatcherError
from watcher.file_ends import FileEnds
from watcher.fleet_settings import Where
from watcher.ground import Ground
from watcher.intake.watch import FolderWatch
from watcher.journal import Journal, Record
from watcher.log import event
from watcher.pipeline.answers import Tally
from watcher.pipeline.budget import PixelBudget
from watcher.pipeline.compiled import give_up_compilers
from watcher.pipeline.finish import warm_up_aside
from watcher.pipeline.naming import Names
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.retire import retire
from watcher.pipeline.runner import Runner
from watcher.pipeline.sheet import Scope
from watcher.pipeline.sheet_keeper import SheetKeeper
from watcher.pulse import Pulse
from watcher.runs import Runs
from watcher.stages import about_of, answers_of, build_runner

if TYPE_CHECKING:
    from watcher.fleet.remote import RemoteRunner


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Profiles with equal keys share a worker; `card` is the whole card, as JSON."""

    card: str
    device: str

    @classmethod
    def of(cls, card: Card, device: str) -> EngineKey:
        return cls(card.model_dump_json(), device)


class Engines:
    """The supervisors in use. One survives a reload if its card and its device did."""

    def __init__(self) -> None:
        self._kept: dict[EngineKey, Crew] = {}
        self._booting: Crew | None = None
        self._compiles = False
        self._closed = threading.Event()

    def boot(self, settings: Settings, where: Where = "here") -> None:
        """Fetch weights and warm up whatever the folders of `where` need and is not warm yet.

        Three tries each. Raises ConfigError or EngineUnavailable; those booted before stay.
        """
        cards, cache = cards_of(settings, where), weights.cache_folder(settings.models.cache)
        if not cards:
            return
        # Beside the workers, and after them if need be: the first photo waits for what is compiled at a
        # first start, not who waits for READY.
        if not self._compiles:
            self._compiles = True
            warm_up_aside(cache)
        for name, card in cards.items():
            self._boot_one(card, settings.profiles[name].device, cache, offline=settings.models.offline)

    def _boot_one(self, card: Card, device: str, cache: Path, *, offline: bool) -> None:
        key = EngineKey.of(card, device)
        if key in self._kept and not self._kept[key].fatal:
            return
        path = weights.ensure(card, cache, offline=offline)
        self._booting = Crew(
            prepare(card, path, device=device), wanted=card.workers_on, growth=_growth(card, path, device)
        )
        self._warm_up(self._booting)
        self._kept[key] = self._booting
        self._booting = None

    def _warm_up(self, supervisor: Crew) -> None:
        while True:
            try:
                supervisor.start()
            except EngineUnavailable as error:
                if supervisor.fatal or self._closed.is_set():
                    supervisor.close()
                    raise
                event(logging.WARNING, f"engine did not start, trying again: {error}", remedy=error.remedy)
            else:
                return

    def get(self, card: Card, device: str) -> Crew:
        """One that `boot` made."""
        return self._kept[EngineKey.of(card, device)]

    def rest(self) -> None:
        """Workers that nobody has needed for a while give their memory back."""
        for crew in list(self._kept.values()):
            crew.rest()

    def retain(self, supervisors: list[Crew]) -> None:
        """Close those that nobody uses any more."""
        for key, supervisor in list(self._kept.items()):
            if supervisor not in supervisors:
                del self._kept[key]
                supervisor.close()

    def close(self) -> None:
        """End every worker, a booting one too; nothing waits for compilers any more."""
        self._closed.set()
        give_up_compilers()
        if (booting := self._booting) is not None:
            booting.close()
        self.retain([])


def _growth(card: Card, path: Path | None, device: str) -> Growth | None:
    """Workers on a CPU beside the first, with a share of the cores each."""
    most = most_on_cpu(card, cores())
    if most == 1:
        return None
    launch = prepare(card, path, device=device, threads=max(1, cores() // most), warm=False)
    return Growth(launch, most, partial(has_room, card))


def _nobody() -> EngineAbout:
    raise AssertionError("a node says itself which engine it has")


@dataclass(frozen=True, slots=True)
class Lane:
    """One engine and all that feeds it; `fleet` where the engines are those of the nodes."""

    supervisor: Crew | RemoteRunner
    runner: Runner | RemoteRunner
    dispatcher: Dispatcher
    fleet: RemoteRunner | None = None


class Assembly:
    """All watches and lanes of one configuration, from start to stop.

    `names` is the daemon's, not ours: a job that outlasts a reload still holds its names,
    and whoever takes the job over waits for them. `prepare` puts a hot folder right before
    its first job, see FolderWatch.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        engines: Engines,
        *,
        names: Names,
        prepare: Callable[[str, Folder, Callable[[], None]], None],
        on_halt: Callable[[WatcherError], None],
    ) -> None:
        self.settings = settings
        self._names = names
        self._journal = journal
        self._on_halt = on_halt
        self._recipes: dict[str, Recipe] = {}
        self._ground = Ground()
        self.admitted = 0
        self.cache, self.tally = opened(settings.cache, settings.models.cache), Tally()
        wanted = {name: folder for name, folder in settings.folders.items() if folder.contact_sheet}
        self._sheets = SheetKeeper({name: Scope.of(name, folder) for name, folder in wanted.items()})
        self._ends = FileEnds(self._recipes, self._sheets, journal)
        self._dispatchers: dict[str, Dispatcher] = {}
        self.lanes = self._lanes(engines)
        engines.retain([lane.supervisor for lane in self.lanes if isinstance(lane.supervisor, Crew)])
        self.watches = {
            name: FolderWatch(
                name,
                folder,
                journal,
                on_admit=self._admitted,
                on_source_done=self._retire,
                on_gone=partial(self._ends.gone, name),
                prepare=partial(prepare, name, folder),
                on_open=self.wake,
                ground=self._ground,
            )
            for name, folder in settings.folders.items()
        }

    def _lanes(self, engines: Engines) -> list[Lane]:
        cards = cards_of(self.settings)
        budget = pixel_budget(self.settings)
        groups: dict[EngineKey, tuple[Card, Crew, dict[str, Recipe]]] = {}
        away: dict[str, tuple[Card, dict[str, Recipe]]] = {}
        for name, folder in self.settings.folders.items():
            card, profile = cards[folder.profile], self.settings.profile_of(folder)
            if folder.where == "fleet":
                recipe = Recipe(name, folder, folder.profile, profile, _nobody, self._names, self._ground)
                away.setdefault(card.name, (card, {}))[1][name] = recipe
                continue
            supervisor = engines.get(card, profile.device)
            key = EngineKey.of(card, profile.device)
            about = partial(about_of, supervisor)
            recipe = Recipe(name, folder, folder.profile, profile, about, self._names, self._ground)
            groups.setdefault(key, (card, supervisor, {}))[2][name] = recipe
        here = [self._lane(*group, budget) for group in groups.values()]
        return [*here, *(self._lane_away(*group) for group in away.values())]

    def _lane(self, card: Card, supervisor: Crew, recipes: dict[str, Recipe], budget: PixelBudget) -> Lane:
        answers = answers_of(card, supervisor, self.cache, self.tally)
        runner = build_runner(card, supervisor, recipes, self.settings, budget, answers=answers, apart=True)
        supervisor.heed(partial(self._waiting, list(recipes)))
        most = in_flight(card, supervisor, self.settings)
        return Lane(supervisor, runner, self._dispatcher(runner, recipes, most))

    def _waiting(self, folders: list[str]) -> int:
        try:
            return self._journal.waiting(folders)
        except HostError:
            return 0

    def _lane_away(self, card: Card, recipes: dict[str, Recipe]) -> Lane:
        # Only here: without a fleet nothing of it is imported, nor is dramatiq.
        from watcher.fleet.remote import remote_runner

        remote = remote_runner(self.settings, card, recipes, wanted=self._is_wanted)
        dispatcher = self._dispatcher(remote, recipes, self.settings.queue.in_flight, blames=False)
        return Lane(remote, remote, dispatcher, remote)

    def _is_wanted(self, job_id: int) -> bool:
        record = self._journal.job(job_id)
        return record is not None and record.state in (JobState.QUEUED, JobState.RUNNING)

    def _dispatcher(
        self, runs: Runs, recipes: dict[str, Recipe], max_in_flight: int, *, blames: bool = True
    ) -> Dispatcher:
        self._recipes |= recipes
        dispatcher = Dispatcher(
            self._journal,
            runs,
            list(recipes),
            ends=self._ends,
            policy=self.settings.retry.policy,
            max_in_flight=max_in_flight,
            on_halt=self._on_halt,
            is_open=lambda name: self.watches[name].is_open(),
            priority={name: recipe.folder.priority for name, recipe in recipes.items()},
            blames=blames,
            look_again=lambda name: self.watches[name].rescan(),
            on_lost=self._lost,
            at_once=self._ends.at_once,
        )
        self._dispatchers |= dict.fromkeys(recipes, dispatcher)
        return dispatcher

    # --- From start to stop ----------------------------------------------------------------
    def start(self) -> None:
        self._sheets.start()
        for watch in self.watches.values():
            watch.start()
        for lane in self.lanes:
            lane.dispatcher.start()

    def ready(self) -> bool:
        """Has every hot folder been listed once, or been found to be away?"""
        return all(watch.is_ready() for watch in self.watches.values())

    def alive(self) -> bool:
        return all(lane.dispatcher.alive() for lane in self.lanes)

    def pulses(self) -> list[Pulse]:
        """Of every loop there is, and of every photo that is being published or retired."""
        pulses = [watch.pulse for watch in self.watches.values()]
        for lane in self.lanes:
            pulses += lane.dispatcher.pulses() + lane.runner.pulses()
        return pulses

    def begin_stop(self) -> None:
        """Admit and claim no more; what runs goes on."""
        self._sheets.stop()
        for watch in self.watches.values():
            watch.stop(0.0)
        for lane in self.lanes:
            lane.dispatcher.stop()
            if lane.fleet is not None:
                lane.fleet.recall_waiting()

    def drained(self) -> bool:
        return all(lane.dispatcher.join(0) for lane in self.lanes)

    def end(self, *, grace: float) -> bool:
        """Take everything down within `grace` seconds; what still runs is handed back, uncharged.

        False if some thread hangs in the file system and will have to be left behind.
        """
        deadline = time.monotonic() + grace
        for lane in self.lanes:
            if lane.fleet is not None:
                lane.fleet.recall()
        clean = [lane.dispatcher.join(max(0.0, deadline - time.monotonic())) for lane in self.lanes]
        for lane, joined in zip(self.lanes, clean, strict=True):
            if joined:
                lane.runner.close()
            else:
                lane.dispatcher.abandon()
        clean += [watch.stop(max(0.1, deadline - time.monotonic())) for watch in self.watches.values()]
        clean.append(self._sheets.join(max(0.1, deadline - time.monotonic())))
        return all(clean)

    def rescan(self) -> None:
        """Someone says that reasons to wait are gone: look again, everywhere."""
        for watch in self.watches.values():
            watch.rescan()
        for lane in self.lanes:
            lane.dispatcher.resume()

    def _admitted(self, count: int) -> None:
        self.admitted += count
        self.wake()

    def wake(self) -> None:
        """There may be work in the journal that no watch of ours has put there."""
        for lane in self.lanes:
            lane.dispatcher.wake()

    def held(self) -> dict[str, float]:
        """Folders that were paused by hand, and since when."""
        try:
            return self._journal.held()
        except HostError:
            return {}  # whoever claims from it will say so

    def _lost(self, source: Source) -> None:
        """What was passed over for this half of a pair gets its turn, whatever `pairs` says by now."""
        with suppress(HostError):  # a scan will notice
            for relpath in self._journal.free_companions(source.folder, [source.relpath]):
                self.watches[source.folder].hint(relpath)

    def _retire(self, source: Source) -> None:
        """A scan found a source that is done and should have been retired.

        A crash came between, or it is the other half of a pair, which follows its first half.
        """
        pauses = self._dispatchers[source.folder].pauses
        if pauses.is_keeping(source.folder):
            return
        record = self._journal.find(source.folder, source.relpath)
        if record is None or record.job.source != source or not self._may_go(record):
            return
        failed: WatcherError | None = None
        try:
            folder = self.settings.folders[source.folder]
            retire(source, folder, job_id=record.job.id, ground=self._ground)
        except WatcherError as error:
            event(logging.WARNING, f"source not retired: {error}", folder=source.folder, file=source.relpath)
            failed = error
        pauses.retired(source.folder, failed, time.monotonic())

    def _may_go(self, record: Record) -> bool:
        """Whether a matte of it is published; of a companion: of the half that is work, and that is archived."""
        outcome = json.loads(record.outcome or "{}")
        if record.state is not JobState.DONE:
            return False
        if "companion_of" not in outcome:
            return bool(outcome.get("outputs"))
        # A RAW is never deleted for its JPEG, nor a JPEG for its RAW.
        if self.settings.folders[record.job.source.folder].source != "archive":
            return False
        half = self._journal.other_half(record)
        return half is not None and half.gone and half.state is JobState.DONE and self._may_go(half)
