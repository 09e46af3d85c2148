"""Verdicts on flagged mattes: accept one as it is, or have the photo done anew in another hot folder.

A profile belongs to a hot folder, so "under another profile" is a copy of the photo dropped into
a folder that names that profile. The first result stays where it is.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from watcher.bell import ring
from watcher.domain import Source, Stamp
from watcher.drop import place
from watcher.journal import Record
from watcher.web.access import Operator, Reader
from watcher.web.api import ANSWERS, DENIED, JobNumber
from watcher.web.refusal import Refused
from watcher.web.results import photo_of
from watcher.web.site import Site, site_of
from watcher.web.views import JobList, JobView, job_view, whole_view

router = APIRouter(prefix="/v1", tags=["v1"])


@router.get("/review", responses=DENIED)
def review(request: Request, _: Reader) -> JobList:
    """Flagged mattes that nobody has judged."""
    return JobList(jobs=[job_view(record) for record in site_of(request).desk.to_review()])


@router.post("/jobs/{number}/accept", responses=ANSWERS)
def accept(request: Request, number: JobNumber, _: Operator) -> JobView:
    """Somebody has looked at this matte and takes it."""
    site = site_of(request)
    site.record(number)
    if not site.desk.judge(number, "accepted"):
        raise Refused(409, "not_flagged", f"Nothing about job {number} waits for a verdict")
    return whole_view(site, site.record(number))


@router.post("/jobs/{number}/redo", responses=ANSWERS)
def redo(
    request: Request,
    number: JobNumber,
    _: Operator,
    folder: Annotated[str, Query(max_length=64, description="the hot folder with the other profile")],
) -> JobView:
    """The photo again, in another hot folder. Answers with the new job."""
    site = site_of(request)
    return job_view(redone(site, site.record(number), folder))


def redone(site: Site, record: Record, folder: str) -> Record:
    """Raises Refused or HostError."""
    there = site.folder(folder)
    source = record.job.source
    if folder == source.folder:
        raise Refused(409, "same_folder", "That is the folder it comes from", detail="Name another one.")
    photo = photo_of(source, site.settings.folders.get(source.folder))
    if photo is None:
        raise Refused(409, "gone", "The photo is no longer there")
    if not site.accepts(folder, photo.name):
        raise Refused(409, "invalid_file_type", f"The hot folder {folder!r} does not take {photo.name!r}")
    with photo.open("rb") as content:
        placed = place(content, there.path, photo.name)
    site.admit(Source(folder, placed.name, Stamp.of(placed.stat())))
    site.desk.judge(record.job.id, "redone")
    ring(site.settings.state_dir)
    fresh = site.journal.find(folder, placed.name)
    if fresh is None:
        raise Refused(409, "gone", "The copy was taken away the moment it arrived")
    return fresh
