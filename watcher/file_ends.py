"""What happens to files when a job ends, and to its report when the photo goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from watcher.domain import Failure, Job, JobState, Outcome
from watcher.journal import Journal
from watcher.pipeline.finish import report, withdraw_report_of
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.retire import leaves, retire
from watcher.pipeline.sheet_keeper import SheetKeeper


class FileEnds:
    """`recipes` by the names of hot folders; may grow."""

    def __init__(self, recipes: Mapping[str, Recipe], sheets: SheetKeeper, journal: Journal) -> None:
        self._recipes = recipes
        self._sheets = sheets
        self._journal = journal

    def at_once(self, outcome: Outcome) -> bool:
        """Whether `done` touches no file that may have to be waited for."""
        return not outcome.files or leaves(self._recipes[outcome.job.source.folder].folder)

    def done(self, outcome: Outcome) -> None:
        self._sheets.note(outcome.job.source.folder)
        # Without files the name was left to another photo (`duplicates: skip`): keep the source.
        if outcome.files:
            job, recipe = outcome.job, self._recipes[outcome.job.source.folder]
            retire(job.source, recipe.folder, job_id=job.id, ground=recipe.ground)

    def quarantined(self, job: Job, failure: Failure) -> None:
        report(job, failure, self._recipes[job.source.folder])
        self._sheets.note(job.source.folder)

    def gone(self, folder: str, relpaths: Iterable[str]) -> None:
        """These photos were renamed or taken away: what was reported of them has been heeded. Raises HostError."""
        for relpath in relpaths:
            found = self._journal.find(folder, relpath)
            if found is None or found.gone or found.state is not JobState.QUARANTINED:
                continue
            if withdraw_report_of(found.job.source, self._recipes[folder]):
                self._sheets.note(folder)
