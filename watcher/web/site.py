"""Everything the routes need, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from watcher.cache_settings import opened
from watcher.config import Folder, Settings
from watcher.desk import Desk
from watcher.domain import Source
from watcher.health import JOURNAL, holder, read_snapshot
from watcher.journal import Journal, Record
from watcher.kept_urls import KeptUrls
from watcher.web.access import Access
from watcher.web.keys import KeyRing, signing_secret
from watcher.web.limits import Gate, Rates
from watcher.web.measures import Measures
from watcher.web.notices import Notices
from watcher.web.previews import Previews
from watcher.web.progress import Progress
from watcher.web.refusal import Refused
from watcher.web.together import Together
from watcher.web.untold import take

# (hot folder, file name): whether the daemon would take that file.
Accepts = Callable[[str, str], bool]


@dataclass(slots=True)
class Site:
    """`journal` and `desk` are used from threads; `progress` belongs to the event loop."""

    settings: Settings
    accepts: Accepts
    journal: Journal
    admit: Together[Source, bool]
    desk: Desk
    progress: Progress
    access: Access
    rate: Rates
    gate: Gate
    measures: Measures
    urls: KeptUrls
    notices: Notices
    logins: Rates = field(default_factory=lambda: Rates(20))
    previews: Previews = field(default_factory=Previews)

    def folder(self, name: str) -> Folder:
        """Raises Refused (404)."""
        if name not in self.settings.folders:
            raise Refused(404, "not_found", f"No hot folder is called {name!r}")
        return self.settings.folders[name]

    def record(self, number: int) -> Record:
        """Raises Refused (404)."""
        found = self.journal.job(number) if number < 1 << 63 else None
        if found is None:
            raise Refused(404, "not_found", f"There is no job {number}")
        return found

    @property
    def upload_folder(self) -> str:
        """Where uploads go that name no hot folder."""
        return self.settings.web.folder or next(iter(self.settings.folders))

    def status(self) -> dict[str, Any]:
        """The daemon's own words while it runs; empty while it does not."""
        pid = holder(self.settings.state_dir)
        return read_snapshot(self.settings.state_dir) if pid else {}

    def check_watched(self, folder: str) -> None:
        """Raises Refused where the daemon that runs has another configuration, without this hot folder."""
        status = self.status()
        # One that is only starting has not told of itself: what lies there is of the last one.
        tells = "folders" in status and status.get("pid") == holder(self.settings.state_dir)
        if tells and folder not in status["folders"]:
            raise Refused(
                503,
                "unavailable",
                f"The daemon does not watch the hot folder {folder!r}",
                detail="Its configuration is another one than this service's: reload it, or restart this service.",
            )


def build(settings: Settings, accepts: Accepts) -> Site:
    """To be called on the event loop. Raises HostError or ConfigError."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    journal = Journal(settings.state_dir / JOURNAL)
    desk = Desk(journal)
    web = settings.web
    untold = take(settings.state_dir)
    notices = Notices(settings.notify, settings.state_dir, untold)
    measures = Measures(settings.state_dir, desk, notices)

    def ended(record: Record) -> None:
        measures.ended(record)
        notices.note(record)

    return Site(
        settings,
        accepts,
        journal,
        Together(journal.admit_placed),
        desk,
        Progress(settings.state_dir, ended, untold.since, untold.seen),
        Access(web, KeyRing(settings.state_dir), signing_secret(settings.state_dir)),
        Rates(web.requests_per_minute),
        Gate(desk, uploads=web.max_uploads, waiting=web.max_waiting),
        measures,
        KeptUrls(opened(settings.cache, settings.models.cache)),
        notices,
    )


def site_of(request: Request) -> Site:
    site: Site = request.app.state.site
    return site
