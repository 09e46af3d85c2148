"""The own API, version 1: folders, jobs, uploads, results, events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from watcher.bell import ring
from watcher.domain import JobState, printable
from watcher.journal import Record
from watcher.web.access import Looker, Operator, Reader, Uploader
from watcher.web.progress import ENDED
from watcher.web.refusal import Refused, answers
from watcher.web.results import Output, result_of
from watcher.web.site import Site, site_of
from watcher.web.uploads import Arrival, arrive, form_of, raw_body
from watcher.web.views import (
    FolderList,
    FolderView,
    JobList,
    JobView,
    folder_views,
    job_view,
    job_views,
    whole_view,
)

router = APIRouter(prefix="/v1", tags=["v1"])

JobNumber = Annotated[int, Path(ge=1, lt=1 << 63, description="number of a job")]
FolderName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
DENIED = answers(400, 403, 421, 422, 429, 503)
MISSING = {**DENIED, **answers(404)}
ANSWERS = {**MISSING, **answers(408, 409, 411, 413)}
IDEMPOTENCY = Header(
    min_length=1,
    max_length=255,
    description="the same key and photo find the same job, whenever they come again",
)
UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("/folders", responses=DENIED)
def folders(request: Request, _: Reader) -> FolderList:
    """The hot folders, with their state and counts."""
    return FolderList(folders=folder_views(site_of(request)))


@router.post("/folders/{name}/pause", responses=MISSING)
def pause(request: Request, name: FolderName, _: Operator) -> FolderView:
    """Claim nothing from this folder until it is resumed. What runs is finished."""
    site = site_of(request)
    site.folder(name)
    site.desk.hold(name)
    return _rung(site, name)


@router.post("/folders/{name}/resume", responses=MISSING)
def resume(request: Request, name: FolderName, _: Operator) -> FolderView:
    site = site_of(request)
    site.folder(name)
    site.desk.release(name)
    return _rung(site, name)


@router.post("/folders/rescan", status_code=202, responses={**DENIED, **answers(409)})
def rescan(request: Request, _: Operator) -> FolderList:
    """List all folders now, and try those that are paused or away: `hotmatte rescan`."""
    site = site_of(request)
    if not ring(site.settings.state_dir, folders=True):
        raise Refused(409, "not_running", "No daemon runs")
    return FolderList(folders=folder_views(site))


def _rung(site: Site, name: str) -> FolderView:
    ring(site.settings.state_dir)
    return next(view for view in folder_views(site) if view.name == name)


# --- Jobs ----------------------------------------------------------------------------------


@router.get("/jobs", responses=MISSING)
def jobs(
    request: Request,
    _: Reader,
    folder: Annotated[str | None, Query(max_length=64)] = None,
    state: JobState | None = None,
    before: Annotated[int | None, Query(ge=1, lt=1 << 63, description="only jobs with lower numbers")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobList:
    """Jobs, the latest first."""
    site = site_of(request)
    if folder is not None:
        site.folder(folder)
    found = site.desk.listed(folder=folder, state=state, before=before, limit=limit)
    more = None
    if len(found) == limit:
        more = str(request.url.include_query_params(before=found[-1].job.id).replace(scheme="", netloc=""))
    return JobList(jobs=job_views(site, found), next=more)


@router.get("/jobs/{number}", responses=MISSING)
async def job(
    request: Request,
    number: JobNumber,
    _: Reader,
    wait: Annotated[float, Query(ge=0, le=3600, description="seconds to wait for its end")] = 0,
) -> JobView:
    """One job, with links to what was published."""
    site = site_of(request)
    record = await run_in_threadpool(site.record, number)
    if record.state not in ENDED and wait:
        record = await _ended(site, record, wait)
    return await run_in_threadpool(whole_view, site, record)


@router.post("/jobs/{number}/retry", responses=ANSWERS)
def retry(request: Request, number: JobNumber, _: Operator) -> JobView:
    """Queue a failed photo again, with no attempt charged."""
    site = site_of(request)
    site.record(number)
    if not site.journal.requeue([number]):
        raise Refused(409, "not_failed", f"Job {number} has not failed")
    ring(site.settings.state_dir)
    return whole_view(site, site.record(number))


@router.get(
    "/jobs/{number}/files/{index}",
    responses={**ANSWERS, 304: {"description": "it is the one that `If-None-Match` names"}},
    response_class=FileResponse,
)
def file(
    request: Request,
    number: JobNumber,
    index: Annotated[int, Path(ge=0, le=99)],
    _: Looker,
    if_none_match: Annotated[str, Header(max_length=10_000, description="ETags that are here already")] = "",
) -> Response:
    """The bytes of a published file."""
    site = site_of(request)
    output = output_of(site, site.record(number), index)
    # A matte that is made anew has the same address.
    headers = {"Cache-Control": "no-cache", "ETag": f'"{output.sha256}"'}
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    if known & {headers["ETag"], "*"}:
        return Response(status_code=304, headers=headers)
    return FileResponse(
        output.path,
        media_type=output.media_type,
        filename=printable(output.path.name),
        content_disposition_type="inline",
        headers=headers,
    )


def output_of(site: Site, record: Record, index: int) -> Output:
    result = result_of(record, site.settings.folders.get(record.job.source.folder))
    if result is None or index >= len(result.outputs):
        raise Refused(404, "not_found", f"Job {record.job.id} has no such file, or no longer")
    output = result.outputs[index]
    if not output.path.is_file():
        raise Refused(404, "not_found", "The file has been taken away")
    return output


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobView,
    responses={**ANSWERS, 200: {"model": JobView, "description": "it has ended, or was here before"}},
    openapi_extra=UPLOAD_BODY,
)
async def upload(
    request: Request,
    caller: Uploader,
    folder: Annotated[
        str | None, Query(max_length=64, description="the hot folder; web.folder if unset")
    ] = None,
    wait: Annotated[float, Query(ge=0, le=3600, description="seconds to wait for its end")] = 0,
    idempotency_key: Annotated[str | None, IDEMPOTENCY] = None,
) -> Response:
    """A photo, as `file` of a form or as the whole body. Durable when this answers."""
    site = site_of(request)
    name = folder or site.upload_folder
    site.folder(name)
    with site.gate.enter(name):
        arrival = await _received(site, request, name, caller, idempotency_key)
    record = arrival.record
    if wait and record.state not in ENDED:
        record = await _ended(site, record, wait)
    view = await run_in_threadpool(whole_view, site, record)
    status = 202 if arrival.fresh and record.state not in ENDED else 200
    return JSONResponse(
        view.model_dump(mode="json"), status, headers={"Location": f"/v1/jobs/{record.job.id}"}
    )


async def _received(
    site: Site, request: Request, folder: str, caller: Any, idempotency_key: str | None
) -> Arrival:
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        async with form_of(request) as form:
            photo = form.get("file")
            if not isinstance(photo, UploadFile):
                raise Refused(400, "missing_source", "The form has no file called `file`")
            return await arrive(
                site, photo.file, folder=folder, caller=caller, idempotency_key=idempotency_key
            )
    async with raw_body(request) as content:
        return await arrive(site, content, folder=folder, caller=caller, idempotency_key=idempotency_key)


async def _ended(site: Site, record: Record, wait: float) -> Record:
    """The job as it is at its end, or when patience ends."""
    found = await site.progress.ended(record.job.id, timeout=min(wait, site.settings.web.wait_s))
    if found is None:
        raise Refused(404, "not_found", f"There is no job {record.job.id} any more: its photo was taken away")
    return found


# --- Events --------------------------------------------------------------------------------


@router.get(
    "/events",
    responses={**DENIED, 200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    response_class=StreamingResponse,
)
async def events(request: Request, _: Looker) -> StreamingResponse:
    """Server-sent events: `change` whenever anything did, `job` for each job that ended."""
    site = site_of(request)
    return StreamingResponse(
        _events(site, request),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(site: Site, request: Request) -> AsyncIterator[bytes]:
    yield b"retry: 2000\nevent: change\ndata: {}\n\n"
    news = site.progress.news()
    try:
        async for item in news:
            site.access.caller(request)  # a key that is revoked hears no more
            if item is None:
                yield b": still here\n\n"
                continue
            for record in item.ended:
                view = job_view(record).model_dump(mode="json", exclude_none=True)
                yield f"event: job\ndata: {json.dumps(view)}\n\n".encode()
            yield b"event: change\ndata: {}\n\n"
    except (asyncio.CancelledError, Refused):
        return
    finally:
        await news.aclose()  # type: ignore[attr-defined]
