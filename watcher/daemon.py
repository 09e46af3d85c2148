"""The life of `hotmatte run`: start, signals, reload, the heartbeat, stop. Contains no work."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from watcher import __version__, config, log, memory
from watcher.assembly import Assembly, Engines
from watcher.bell import Bell
from watcher.config import Folder, Settings
from watcher.domain import JobState, Source, printable
from watcher.errors import ConfigError, EngineUnavailable, HostError, WatcherError
from watcher.exits import BUG, OK, exit_status, leave
from watcher.health import JOURNAL, Heartbeat, StateDir, Systemd
from watcher.journal_rescue import open_sound
from watcher.log import event
from watcher.pipeline.naming import Names
from watcher.pipeline.publish import sweep
from watcher.pipeline.recollect import recollect
from watcher.pipeline.retire import restore
from watcher.snapshot import sentence, snapshot

TICK = 1.0
BRISK = 0.1  # while somebody waits for READY
# The snapshot is rewritten this often although nothing changed, so that its age says something.
HEARTBEAT = 10.0
PRUNE_EVERY = 6 * 3600.0
# More than this after the drain, and a thread hangs in a call that nothing interrupts.
LAST_GRACE = 5.0
# A disk that damages the journal more often than this in one run is not to be worked on.
MOST_RESCUES = 3

Show = Callable[[dict[str, Any]], None]

_ANEW = "Start it again: the folder is made anew, and photos that were left in place are done again."
_GONE = "Find out who removed it. Nothing that has its sidecar is done again."


class Daemon:
    """`show` is given each new snapshot: the progress display of a terminal."""

    def __init__(self, path: Path | None, settings: Settings, *, show: Show | None = None) -> None:
        self._path = path
        self._settings = settings
        self._show = show or (lambda _: None)
        self._inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._systemd = Systemd()
        self._heart = Heartbeat(self._systemd, give_up=lambda: leave(BUG))
        self._engines = Engines()
        self._names = Names()
        self._assembly: Assembly | None = None
        self._boot: threading.Thread | None = None
        self._reason: str | None = None  # why the last reload was refused
        self._generation = 0
        self._refusals = 0
        self._exit: int | None = None
        self._ready = False
        self._started = time.monotonic()
        self._last: tuple[object, float] = (None, 0.0)
        self._pruned = 0.0
        self._tidied = 0.0
        self._rescues = 0
        self._clean = True  # no thread of ours hangs in a file system
        self._prepared: list[tuple[str, Folder]] = []

    def run(self) -> int:
        """Until told to stop. Returns the exit status; raises WatcherError if it cannot begin."""
        state = StateDir(self._settings.state_dir)
        try:
            self._state = state
            self._listen_to_signals()
            if not self._open_journal():
                return OK
            self._bell = bell = Bell(state.path, lambda look: self._inbox.put(("rung", look)))
            try:
                self._boot_engines(self._settings)
                return self._loop()
            finally:
                bell.close()
                self._journal.close()
        finally:
            state.release()

    def _open_journal(self) -> bool:
        """Waits while the disk is full. False if told to stop meanwhile; raises HostError, ConfigError."""
        told = False
        while True:
            try:
                self._journal = open_sound(self._state.path / JOURNAL, lost=self._rescues > 0)
                try:
                    self._recover()
                except HostError:
                    self._journal.close()
                    raise
            except HostError:
                if not self._state.is_full():
                    raise
            else:
                return True
            if not told:
                words = f"waiting: the disk of the state folder {self._state.path} is full"
                event(logging.WARNING, words, remedy="Free space; work begins by itself.")
                self._systemd.say(words)
                told = True
            self._systemd.extend(30.0)
            with suppress(queue.Empty):
                what, value = self._inbox.get(timeout=TICK)
                if what == "signal" and value in (signal.SIGTERM, signal.SIGINT):
                    return False

    def _recover(self) -> None:
        """Put right what the last run left: its lock is ours now, so its claims are nobody's."""
        orphans = self._journal.reap(now=float("inf"))
        self._journal.mend_clock(now=time.time(), longest=self._settings.retry.max_delay_s)
        if orphans:
            remedy = "Nothing: they are tried again. `journalctl -u hotmatte` says why; oom-kill: raise MemoryMax=."
            event(logging.WARNING, "recovered from a crash", jobs=orphans, remedy=remedy)

    def _prepare(self, name: str, folder: Folder, beat: Callable[[], None]) -> None:
        """Put right what an earlier run left in a hot folder's places: once, before any job of it.

        In the folder's own thread: a place that cannot be reached must not stop the others.
        """
        if (name, folder) in self._prepared:
            return

        def done(job_id: int) -> Source | None:
            record = self._journal.job(job_id)
            # Where sources are left in place by now, what was on its way out comes back.
            kept = folder.source == "leave" or record is None or record.state is not JobState.DONE
            return None if kept or record is None else record.job.source

        if self._journal.lacks(name):
            known = self._journal.adopt(name, recollect(name, folder, beat=beat))
            event(logging.WARNING, "rebuilt the journal from the sidecars", folder=name, jobs=known)
        count = restore(name, folder, done=done, beat=beat)
        for root in (folder.output, folder.quarantine):
            if root is not None:
                count += sweep(root, beat=beat, all_of_it=not folder.default_ignores)
        if count:
            event(logging.WARNING, "cleared up after a crash", folder=name, leftovers=count)
        self._prepared.append((name, folder))

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda got, _: self._inbox.put(("signal", got)))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGUSR1})  # see cli.py

    # --- The loop --------------------------------------------------------------------------

    def _loop(self) -> int:
        while self._exit is None:
            try:
                what, value = self._inbox.get(timeout=TICK if self._ready else BRISK)
                self._take(what, value)
            except queue.Empty:
                pass
            self._tick()
        return self._stop(self._exit)

    def _take(self, what: str, value: Any) -> None:
        match what, value:
            case "signal", signal.SIGHUP:
                self._reload()
            case "signal", signal.SIGUSR1:
                self._take("rung", True)
            case "signal", _:
                running = snapshot(self._assembly)["running"] if self._assembly else []
                name = signal.Signals(value).name
                event(logging.INFO, "stopping", signal=name, jobs=len(running) or None)
                self._exit = OK
            case "rung", look:
                if self._assembly and look:
                    self._assembly.rescan()
                elif self._assembly:
                    self._assembly.wake()
            case "booted", settings:
                self._begin(settings)
            case "refused", error:
                self._refuse(error)
            case "halt", error:
                self._halt(error)

    def _tick(self) -> None:
        now = time.monotonic()
        assembly = self._assembly
        if assembly is None:
            self._systemd.extend(30.0)
            self._systemd.ping(now)
            return
        if not assembly.alive():
            self._exit = self._exit if self._exit is not None else BUG
            event(logging.ERROR, "a dispatch loop died", remedy=WatcherError.remedy)
            return
        for lane in assembly.lanes:
            if lane.supervisor.fatal:
                self._halt(EngineUnavailable("the engine failed to start three times in a row"))
        if not self._ready and assembly.ready():
            self._ready = True
            self._last = (None, 0.0)
            self._report(assembly, now)  # first: who waited for READY is to find it in `status`
            self._systemd.ready()
            event(logging.INFO, "ready", folders=len(assembly.watches), generation=self._generation)
        if now - self._tidied > memory.EVERY:
            self._tidied = now
            memory.give_back()
            self._engines.rest()
        self._heart.beat([self._bell.pulse, *assembly.pulses()], now)
        try:
            if now - self._pruned > PRUNE_EVERY or not self._pruned:
                self._pruned = now
                self._journal.prune(before=time.time() - self._settings.history_days * 86_400)
        except HostError as error:
            event(logging.WARNING, str(error), remedy=error.remedy)
        self._report(assembly, now)
        self._journal.look()
        if self._journal.corrupt:
            self._rescue(assembly, self._journal.corrupt)

    def _rescue(self, assembly: Assembly, why: str) -> None:
        """Begin a new journal in place of one that was damaged while in use, and all work with it."""
        self._rescues += 1
        if not self._state.path.is_dir():
            self._halt(
                HostError(f"the state folder {self._state.path} was removed while in use", remedy=_ANEW)
            )
            return
        if self._rescues > MOST_RESCUES:
            self._halt(
                HostError(f"{why}, for the {self._rescues}. time", remedy="Check the disk under state_dir.")
            )
            return
        if not (self._state.path / JOURNAL).exists():
            event(logging.ERROR, f"{why}. It is built anew from the sidecars", remedy=_GONE)
        self._drain(assembly)
        self._clean &= assembly.end(grace=LAST_GRACE)
        self._assembly = None
        self._journal.close()
        self._prepared.clear()
        if self._open_journal():
            self._begin(self._settings)
        else:
            self._exit = OK

    def _report(self, assembly: Assembly, now: float) -> None:
        """Write the snapshot when something changed; an idle daemon writes next to nothing."""
        try:
            facts = snapshot(assembly)
            said, when = self._last
            if facts == said and now - when < HEARTBEAT:
                return
            self._last = (facts, now)
            full = self._full(facts)
            self._systemd.say(sentence(full))
            self._show(full)
            self._state.write_snapshot(full)
        except HostError as error:
            event(logging.WARNING, str(error), remedy=error.remedy)

    def _full(self, facts: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            # By the clock of today, whatever it said then.
            "started_at": time.time() - (time.monotonic() - self._started),
            "written_at": time.time(),
            "config": str(self._path.absolute()) if self._path else None,
            "generation": self._generation,
            "refused": self._reason,
            "refusals": self._refusals,
            "ready": self._ready,
            **facts,
            "counts": self._journal.counts(),
        }

    # --- Start, reload ---------------------------------------------------------------------

    def _boot_engines(self, settings: Settings) -> None:
        """In a thread, so that signals are heard while weights load."""

        def boot() -> None:
            try:
                self._engines.boot(settings)
            except WatcherError as error:
                self._inbox.put(("refused", error))
            else:
                self._inbox.put(("booted", settings))

        self._boot = threading.Thread(target=boot, name="boot", daemon=True)
        self._boot.start()

    def _begin(self, settings: Settings) -> None:
        """Engines are warm: put the new configuration in force, after the old one has drained."""
        try:
            log.set_up(settings.log.format, settings.log.level)
        except WatcherError as error:
            self._refuse(error)
            return
        if self._assembly is not None:
            self._drain(self._assembly)
            self._clean &= self._assembly.end(grace=LAST_GRACE)
        self._settings = settings
        self._assembly = Assembly(
            settings,
            self._journal,
            self._engines,
            names=self._names,
            prepare=self._prepare,
            on_halt=lambda error: self._inbox.put(("halt", error)),
        )
        self._assembly.start()
        self._generation += 1
        self._reason, self._ready = None, False

    def _reload(self) -> None:
        if self._boot is not None and self._boot.is_alive():
            self._inbox.put(("signal", signal.SIGHUP))
            time.sleep(0.1)
            return
        self._systemd.reloading()
        try:
            settings = config.load(self._path)
            if settings.state_dir != self._settings.state_dir:
                raise ConfigError(["state_dir cannot change while running"], remedy="Restart the service.")
        except WatcherError as error:
            self._refuse(error)
        else:
            self._boot_engines(settings)

    def _refuse(self, error: WatcherError) -> None:
        if self._assembly is None:
            self._halt(error)
            return
        self._reason = printable(str(error))
        self._refusals += 1
        for problem in getattr(error, "problems", [str(error)]):
            event(logging.ERROR, f"configuration refused, the old one stays in force: {problem}")
        self._systemd.ready()
        self._last = (None, 0.0)

    # --- Stop ------------------------------------------------------------------------------

    def _halt(self, error: WatcherError) -> None:
        for problem in getattr(error, "problems", [str(error)]):
            event(logging.ERROR, problem, remedy=error.remedy)
        self._exit = exit_status(error)

    def _stop(self, status: int) -> int:
        self._systemd.stopping()
        if self._assembly is not None:
            self._drain(self._assembly)
            # Cuts short what outlasted the drain; its jobs go back to the queue.
            self._engines.close()
            self._clean &= self._assembly.end(grace=LAST_GRACE)
            self._last = (None, 0.0)
            self._ready = False
            self._report(self._assembly, time.monotonic())
        else:
            self._engines.close()
        event(logging.INFO, "stopped", status=status)
        if not self._clean:
            event(logging.WARNING, "left a thread behind that hangs in the file system")
            leave(status)
        return status

    def _drain(self, assembly: Assembly) -> None:
        """Let running jobs finish, as long as the configuration grants."""
        assembly.begin_stop()
        deadline = time.monotonic() + self._settings.limits.drain_timeout_s
        while not assembly.drained() and time.monotonic() < deadline:
            self._systemd.extend(LAST_GRACE + TICK)
            self._systemd.ping(time.monotonic())
            try:
                what, value = self._inbox.get(timeout=0.05)
            except queue.Empty:
                continue
            if what == "rung":
                continue  # its work is in the journal, and is found there
            if what == "signal" and value != signal.SIGUSR1:
                if self._exit is not None and value != signal.SIGHUP:
                    event(logging.WARNING, "second signal: leaving at once")
                    leave(self._exit)
                # Heard, and dealt with when this is over.
                self._inbox.put((what, value))
                time.sleep(0.05)
