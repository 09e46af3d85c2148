"""One thread per hot folder: hints and scans in, settled files out to the journal.

A hung share stops its own folder only. An absent folder is not an empty one: it goes
offline, nothing in it counts as gone, and it comes back by itself.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from watcher.config import Folder
from watcher.domain import Source, Stamp
from watcher.errors import HostError, WatcherError
from watcher.ground import Ground
from watcher.intake import root, scan
from watcher.intake.admit import Admission, JournalPort
from watcher.intake.footing import Footing
from watcher.intake.guard import Guard
from watcher.intake.inbox import Inbox
from watcher.intake.names import Rules
from watcher.intake.observer import Observation, observe
from watcher.intake.pace import Pace
from watcher.intake.pairs import Pairs
from watcher.intake.polled import KEEP_TIMES, Polled
from watcher.intake.refused import Refused
from watcher.intake.settle import Settler
from watcher.intake.standing import FolderStatus, Standing
from watcher.log import event
from watcher.mounts import is_same
from watcher.pulse import Pulse

logger = logging.getLogger(__name__)

# How often the folder itself is looked at, where hints tell nothing.
PROBE_S = 5.0
# Deadlines closer together than this are met in one turn.
TURN_S = 0.05
# A file system that takes longer for one answer has hung; more is not counted as the cost of a listing.
STALL_S = 0.5


class FolderWatch:
    """Watches one hot folder until it is stopped.

    `on_admit` is called when jobs were queued, with their number; `on_source_done` for a source that is done
    but was not retired, because its holder died in between; `on_gone` for paths where nothing is
    any more, before the journal hears of it. All run in the folder's thread. `ready` is set once the folder has been listed, or found to be absent: another
    folder must not wait for a share that is down. `prepare` is called, in the folder's thread
    again, before the first listing: it puts right what an earlier run left behind, and is
    given what it has to call as a sign of life. `on_open`: jobs of this folder may be claimed. `ground`
    hears where the places for results lie.
    """

    def __init__(
        self,
        name: str,
        folder: Folder,
        journal: JournalPort,
        *,
        on_admit: Callable[[int], None],
        on_source_done: Callable[[Source], None],
        on_gone: Callable[[Sequence[str]], None] = lambda _: None,
        prepare: Callable[[Callable[[], None]], None] = lambda _: None,
        on_open: Callable[[], None] = lambda: None,
        ground: Ground | None = None,
        probe_s: float = PROBE_S,
    ) -> None:
        self.name = name
        self.ready = threading.Event()
        self._folder = folder
        self._path = str(folder.path)
        self._journal = journal
        self._on_source_done = on_source_done
        self._prepare = prepare
        self._on_open = on_open
        self._is_prepared = False
        self._guard = Guard(name, folder)
        self._footing = Footing(name, folder, journal, ground or Ground())
        self._probe_s = probe_s
        self._former: list[tuple[str, str]] = []
        self._rules = Rules(folder)
        self._inbox = Inbox()
        self._settler = Settler(folder.quiet_s, give_up=folder.incomplete_s)
        self._pace = Pace(folder.scan_interval_s)
        self._anchor: root.Anchor | None = None
        self._observation: Observation | None = None
        self._polled: Polled | None = None  # while the folder is polled
        self._cost = 0.0  # seconds that the last listing took, less what it hung
        self._next_probe = 0.0
        self._standing = Standing(name)
        self._refused = Refused(name, self._path)
        self._pairs = Pairs(
            folder.pairs,
            # After that the settler has no patience left either.
            wait_s=min(folder.pair_wait_s, folder.incomplete_s),
            present=self._names_in,
            earlier=partial(journal.versions, name),
            failed=partial(journal.failed, name),
        )
        self._admission = Admission(
            name,
            self._path,
            journal=journal,
            settler=self._settler,
            pairs=self._pairs,
            refused=self._refused,
            still_there=self._probe,
            on_admit=on_admit,
            on_gone=on_gone,
            beat=self._standing.beat,
        )
        self._stopping = threading.Event()
        # A daemon thread: a dead share may hold it in a call that nothing interrupts.
        self._thread = threading.Thread(target=self._run, name=f"intake-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Ask the thread to end and wait; False if it hangs in the file system."""
        self._stopping.set()
        self._inbox.close()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def rescan(self) -> None:
        """List the folder soon."""
        self._inbox.put("")

    def hint(self, relpath: str) -> None:
        """Look at this file soon."""
        self._inbox.put(relpath)

    def status(self) -> FolderStatus:
        """Never blocks, whatever the file system does."""
        return self._standing.report(time.monotonic())

    @property
    def pulse(self) -> Pulse:
        return self._standing.pulse

    def is_open(self) -> bool:
        """May jobs of this folder run? Not before it has been put right, nor while it is offline."""
        return self._is_prepared and self.status().state != "offline"

    def is_ready(self) -> bool:
        """Listed, or known to be absent or hung: nobody need wait for this folder any longer."""
        return self.ready.is_set() or self.status().state == "offline"

    # --- The thread -----------------------------------------------------------------------

    def _run(self) -> None:
        if self._folder.create:
            self._create()
        while not self._stopping.is_set():
            try:
                self._open()
                while not self._stopping.is_set():
                    self._turn()
            except WatcherError as error:
                self._go_offline(error)
            except OSError as error:
                self._go_offline(HostError(f"cannot look at {self._path}: {error.strerror or error}"))
            except Exception:
                logger.exception("intake of folder=%s failed and starts again", self.name)
                self._go_offline(WatcherError("intake failed: a bug, see the log"))
            self._stopping.wait(self._probe_s)
        self._close()
        self.pulse.rest()

    def _create(self) -> None:
        try:
            self._folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            event(logging.WARNING, f"cannot create {self._path}: {error.strerror or error}", folder=self.name)

    def _open(self) -> None:
        """Find the folder, observe it, list it. Raises HostError."""
        self._standing.beat(time.monotonic())
        anchor = root.anchor(self._folder.path)
        self._footing.forget()
        self._footing.require_mount()  # first: what lies below a mount point is not to be remembered
        self._recognise(anchor.identity)
        self._footing.check()
        self._leave_out_former()
        self._guard.take()
        if not self._is_prepared:
            self._prepare(lambda: self._standing.beat(time.monotonic()))
            self._is_prepared = True
            self._on_open()
        self._anchor = anchor
        self._next_probe = time.monotonic() + self._probe_s
        self._observe()
        self._scan(opening=True)
        if not self._stopping.is_set():
            self._standing.came_online()
            self._on_open()
            event(logging.INFO, "watching", folder=self.name, path=self._path)
            self.ready.set()

    def _recognise(self, identity: str) -> None:
        remembered = self._journal.folder_identity(self.name)
        if remembered == identity:
            return
        # With nothing to lose, a share that was first seen unmounted may still come.
        if remembered is not None and not is_same(remembered, identity) and self._journal.known(self.name):
            raise root.stranger(self._folder.path, self.name, expected=remembered, found=identity)
        self._journal.remember_folder(self.name, identity)

    def _leave_out_former(self) -> None:
        """Where results went before the configuration was changed: they are no work, least of all to be deleted."""
        former = self._footing.former()
        for setting, relpath in former:
            if (setting, relpath) not in self._former and Path(self._path, relpath).is_dir():
                words = f"{relpath} is left out: it was the {setting} folder before, so nothing in it is new"
                remedy = "Move what lies there elsewhere. If it shall be work: "
                remedy += f"`hotmatte accept {self.name}`, then `hotmatte reload`."
                event(logging.WARNING, words, folder=self.name, remedy=remedy)
        self._former = former
        self._rules = Rules(self._folder, former=[relpath for _, relpath in former])

    def _observe(self) -> None:
        """Begin to observe, or begin anew: a new observer sees all that its predecessor missed."""
        before = self._observation
        try:
            self._observation = observe(self._folder, self._rules, self._inbox.put)
        except OSError as error:
            raise HostError(f"cannot observe {self._path}: {error.strerror or error}") from error
        if before is not None:
            before.stop()
        self._standing.observed(self._observation.kind, self._observation.reason)
        if self._observation.kind == "native":
            self._polled = None
        elif self._polled is None and self._anchor is not None:
            self._polled = Polled(
                self._path,
                device=self._anchor.device,
                interval=self._folder.poll_interval_s,
                keeps_times=self._observation.file_system in KEEP_TIMES,
            )

    def _go_offline(self, error: WatcherError) -> None:
        if self._standing.went_offline(f"{error}. {error.remedy}"):
            event(logging.WARNING, f"offline: {error}", folder=self.name, remedy=error.remedy)
        self._close()
        self.ready.set()

    def _close(self) -> None:
        if self._observation is not None:
            self._observation.stop()
            self._observation = None
        self._polled = None
        self._guard.release()

    def _turn(self) -> None:
        self._refused.tell()
        self._standing.refused(*self._refused.report())
        self._standing.rest(waiting=len(self._settler), oldest=self._settler.oldest())
        hints = self._inbox.take(self._patience())
        now = time.monotonic()
        self._standing.beat(now)
        if hints.rescan or now >= self._next_probe:
            self._probe()
        self._pace.hinted(hints.count, now)
        if hints.rescan:
            self._pace.want(now)
        self._admission.look_at(hints.relpaths, now)
        self._pairs.look_anew()
        self._admission.admit_ripe(now)
        if now >= self._pace.deadline():
            self._scan()
        elif self._polled is not None and now >= self._polled.next_look:
            self._poll(self._polled)

    def _names_in(self, reldir: str) -> list[str]:
        """The names in a sub-folder that are work; nothing where it cannot be listed."""
        prefix = f"{reldir}/" if reldir else ""
        try:
            with os.scandir(f"{self._path}/{reldir}") as entries:
                files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except OSError:
            return []
        return [name for name in files if self._rules.wants(prefix + name)]

    def _patience(self) -> float:
        """Seconds until something is due."""
        deadlines = [self._next_probe, self._pace.deadline()]
        if (ripe := self._settler.next_deadline()) is not None:
            deadlines.append(ripe)
        if self._polled is not None:
            deadlines.append(self._polled.next_look)
        return max(TURN_S, min(deadlines) - time.monotonic())

    def _probe(self) -> None:
        """Is this still the folder we opened? Raises HostError."""
        found = root.anchor(self._folder.path)
        if found != self._anchor:
            raise root.FolderAbsent(f"{self._path} has been replaced or mounted again")
        # Also after a root was deleted and made anew with the same inode.
        if self._observation is not None and not self._observation.is_alive():
            event(logging.WARNING, "the observer has ended and is replaced", folder=self.name)
            self._observe()
            self._pace.want(time.monotonic())
        self._footing.check()
        self._guard.take()
        self._next_probe = time.monotonic() + self._probe_s

    # --- Scans ----------------------------------------------------------------------------

    def _scan(self, *, opening: bool = False) -> None:
        """List the folder, compare with the journal, note what is new."""
        asked = self._pace.is_wanted
        if not opening and (asked or (self._observation is not None and self._observation.degraded)):
            self._observe()
        # Read before listing: a job that finishes meanwhile is being retired by its holder.
        known = self._journal.known(self.name)
        walk, listing = self._list()
        if listing is None:
            return
        difference = scan.reconcile(listing, known, unreadable=walk.unreadable)
        unheard = any(relpath not in self._settler for relpath, _ in difference.fresh)
        self._admission.take(difference, time.monotonic())
        self._admission.free_lost(listing, known)
        if self._folder.source != "leave":
            for relpath, stamp in difference.done:
                self._on_source_done(Source(self.name, relpath, stamp))
        ended = time.monotonic()
        self._pace.scanned(ended - self._cost, ended)
        if unheard and not (opening or asked or self._polled is not None):
            # Observers go blind in silence, such as after a remount. A new one is cheap.
            self._pace.want(time.monotonic())

    def _poll(self, polled: Polled) -> None:
        """Compare what is there with the last time: asks no journal, so that it costs little."""
        cpu = time.thread_time()
        changed = polled.changed(time.monotonic())
        if changed is None:
            before = polled.files
            walk, listing = self._list()
        else:
            before, walk = polled.within(changed) if changed else {}, polled.part(self._rules, changed)
            listing = self._walked(walk)
            if listing is not None:
                polled.replace(before, walk, listing)
        if listing is None:
            return
        difference = scan.compare(listing, before, unreadable=walk.unreadable)
        self._admission.take(difference, time.monotonic())
        spent = time.thread_time() - cpu
        polled.looked(time.monotonic(), whole=changed is None, seconds=self._cost, cpu=spent)

    def _list(self) -> tuple[scan.Walk, dict[str, Stamp] | None]:
        """Everything that is there now. None where we were stopped half-way."""
        polled = self._polled
        walk = scan.walk(self._path, self._rules) if polled is None else polled.whole(self._rules)
        began, cpu = time.monotonic(), time.thread_time()
        listing = self._walked(walk)
        if listing is None:
            return walk, None
        now = time.monotonic()
        self._refused.listed(walk.refused)
        self._standing.listed(
            files=len(listing),
            seconds=now - began,
            symlinks=walk.symlinks,
            ignored=walk.ignored,
            unreadable=tuple(walk.unreadable),
        )
        if polled is not None:
            polled.files = listing
            polled.looked(now, whole=True, seconds=self._cost, cpu=time.thread_time() - cpu)
        return walk, listing

    def _walked(self, walk: scan.Walk) -> dict[str, Stamp] | None:
        now = time.monotonic()
        self._cost = 0.0
        listing = {}
        for relpath, stamp in walk:
            listing[relpath] = stamp
            before, now = now, time.monotonic()
            # A share that hung must not be rested from for ten times as long.
            self._cost += min(now - before, STALL_S)
            self._standing.beat(now)
            if self._stopping.is_set():
                return None
        return listing
