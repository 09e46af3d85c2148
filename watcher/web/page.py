"""The page: rendered here, kept fresh by parts that the browser asks for when events say so.

Works without scripts, except for uploads and the live parts. Every action is a form.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from starlette.concurrency import run_in_threadpool

from watcher import __version__
from watcher.bell import ring
from watcher.domain import JobState
from watcher.journal import Record
from watcher.web import plot
from watcher.web.access import COOKIE, SESSION_S, Caller, Looker, Operator
from watcher.web.api import JobNumber
from watcher.web.previews import WIDTHS
from watcher.web.refusal import Refused, too_many
from watcher.web.results import SHOWN, photo_of, result_of
from watcher.web.reviews import redone
from watcher.web.site import Site, site_of
from watcher.web.views import JobView, folder_views, job_view, job_views

router = APIRouter(include_in_schema=False)
HERE = Path(__file__).parent
templates = Jinja2Templates(HERE / "templates")

PAGES = {"/": "overview", "/review": "review", "/failures": "failures", "/timings": "timings"}
PARTS = ("nav", "pill", "folders", "now", "results", "review", "failures", "timings")
MINUTES, COLUMNS = 60, 60
WORDS = {
    "nothing_found": "no person was found",
    "touches_every_border": "covers all four borders",
    "mostly_uncertain": "unsure about much of it",
    "looks_disagree": "no two of three looks at it agree",
}


def ago(moment: float | None) -> str:
    """`just now`, `5 min ago`, `3 h ago`, `4 days ago`."""
    if moment is None:
        return ""
    seconds = time.time() - moment
    for size, word in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (size == 60 and seconds >= 60):
            return f"{seconds / size:.0f} {word} ago"
    return "just now"


templates.env.filters |= {"ago": ago, "flag": lambda word: WORDS.get(word, word.replace("_", " "))}
templates.env.trim_blocks = templates.env.lstrip_blocks = True


# --- Pages ---------------------------------------------------------------------------------


@router.get("/", response_class=HTMLResponse)
def overview(request: Request, caller: Looker) -> Response:
    return _page(request, caller, "overview", pill=True, folders=True, now=True, results=True, review=True)


@router.get("/review", response_class=HTMLResponse)
def review(request: Request, caller: Looker) -> Response:
    return _page(request, caller, "review", review=True)


@router.get("/failures", response_class=HTMLResponse)
def failures(request: Request, caller: Looker) -> Response:
    return _page(request, caller, "failures", failures=True)


@router.get("/timings", response_class=HTMLResponse)
def timings(request: Request, caller: Looker) -> Response:
    return _page(request, caller, "timings", timings=True)


@router.get("/part/{name}", response_class=HTMLResponse)
def part(request: Request, name: str, caller: Looker) -> Response:
    """One live part of a page by itself."""
    if name not in PARTS:
        raise Refused(404, "not_found", "There is no such part")
    site = site_of(request)
    context = {**_common(request, caller), **_context(site, {name})}
    context["page"] = PAGES.get(context["back"], "")
    return templates.TemplateResponse(
        request, f"part_{name}.html", context, headers={"Cache-Control": "no-store"}
    )


@router.get("/job/{number}", response_class=HTMLResponse)
def job(request: Request, number: JobNumber, caller: Looker) -> Response:
    """One photo: source, matte and cutout beside and over each other."""
    site = site_of(request)
    record = site.record(number)
    [shown] = _all_shown(site, [record])
    context = {**_common(request, caller), "page": "job", **shown}
    older = site.desk.listed(state=JobState.DONE, before=number, limit=1)
    newer = site.desk.next_done(number)
    context |= {"older": older[0].job.id if older else None, "newer": newer}
    return templates.TemplateResponse(request, "job.html", context)


def _page(request: Request, caller: Caller, page: str, **parts: bool) -> Response:
    context = {**_common(request, caller), "page": page, **_context(site_of(request), {"pill", *parts})}
    return templates.TemplateResponse(request, f"{page}.html", context, headers={"Cache-Control": "no-store"})


def _common(request: Request, caller: Caller) -> dict[str, Any]:
    site = site_of(request)
    return {
        "version": __version__,
        "may": set(caller.scopes),
        "logged_in": caller.key is not None,
        "back": request.headers.get("x-page") or request.url.path,
        "profiles": {name: folder.profile for name, folder in site.settings.folders.items()},
        "review_count": len(site.desk.to_review(limit=100)),
        "failure_count": len(site.desk.latest(JobState.QUARANTINED, limit=100)),
    }


def _context(site: Site, parts: set[str]) -> dict[str, Any]:
    """What the templates of `parts` ask for."""
    status = site.status()
    context: dict[str, Any] = {"status": status, "running": status.get("running", ())}
    if parts & {"folders", "now"}:
        context["folders"] = folder_views(site)
    if "now" in parts:
        now = time.time()
        buckets = site.desk.throughput(since=now - MINUTES * 60, step=60)
        context["throughput"] = plot.throughput(buckets, until=now, step=60, count=MINUTES)
        context["hour"] = sum(bucket.done for bucket in buckets)
    if "results" in parts:
        context["results"] = _all_shown(site, site.desk.latest(JobState.DONE, limit=24))
    if "review" in parts:
        context["to_review"] = _all_shown(site, site.desk.to_review(limit=24))
    if "failures" in parts:
        failed = site.desk.latest(JobState.QUARANTINED, limit=100)
        context["failures"] = [job_view(record) for record in failed]
        context["failed_in_all"] = sum(site.journal.in_quarantine().values())
    if "timings" in parts:
        context |= _timed(site)
    return context


def _timed(site: Site) -> dict[str, Any]:
    done = [job_view(record) for record in site.desk.latest(JobState.DONE, limit=500)]
    timed = [job for job in done if job.stages_ms]
    newest = [(job.file, job.stages_ms) for job in timed[:COLUMNS]]
    return {
        "columns": plot.columns(newest[::-1]),
        "stages": plot.stage_rows([job.stages_ms for job in timed]),
        "timed": len(timed),
        "stage_names": plot.STAGES,
    }


def _all_shown(site: Site, records: list[Record]) -> list[dict[str, Any]]:
    views = job_views(site, records)
    return [_shown(site, record, view) for record, view in zip(records, views, strict=True)]


def _shown(site: Site, record: Record, view: JobView) -> dict[str, Any]:
    """A job with what of it can be looked at."""
    folder = site.settings.folders.get(record.job.source.folder)
    result = result_of(record, folder)
    kinds = {output.kind for output in result.outputs if result.one(output.kind)} if result else set()
    ending = record.job.source.relpath.rpartition(".")[2].lower()
    photo = photo_of(record.job.source, folder) if ending in SHOWN else None
    return {
        "job": view,
        "kinds": kinds,
        "photo": photo is not None,
        "outputs": result.outputs if result else (),
        "sidecar": result.sidecar if result else {},
        # A matte that is made anew is another picture.
        "mark": int((record.ended_at or 0) * 1000),
        "others": [name for name in site.settings.folders if name != record.job.source.folder],
    }


# --- Pictures ------------------------------------------------------------------------------


@router.get("/preview/{number}/{what}")
async def preview(
    request: Request,
    number: JobNumber,
    what: Literal["photo", "cutout", "matte", "composite"],
    _: Looker,
    w: Annotated[int, Query(description="0: as large as it is")] = 640,
) -> Response:
    if w not in (0, *WIDTHS):
        raise Refused(404, "not_found", "There is no preview of that width")
    site = site_of(request)
    path = await run_in_threadpool(_picture_of, site, number, what)
    if path is None:
        raise Refused(404, "not_found", "That picture is not there, or no longer")
    try:
        content = await site.previews.picture(path, w)
    except (OSError, ValueError) as error:
        raise Refused(404, "not_found", "That picture cannot be shown") from error
    kind = "image/webp" if w else "image/png"
    # The address holds a mark of the version, so it may be kept.
    return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=86400"})


def _picture_of(site: Site, number: int, what: str) -> Path | None:
    record = site.record(number)
    folder = site.settings.folders.get(record.job.source.folder)
    if what == "photo":
        # Only what a reader has got through within its limits is decoded here.
        return photo_of(record.job.source, folder) if record.state is JobState.DONE else None
    result = result_of(record, folder)
    output = result.one(what) if result else None
    return output.path if output else None


# --- Actions -------------------------------------------------------------------------------

Back = Annotated[str, Form(max_length=200)]


@router.post("/do/{action}/{number}")
def act_on_job(
    request: Request,
    action: Literal["retry", "accept", "redo"],
    number: JobNumber,
    _: Operator,
    back: Back = "/",
    folder: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    site = site_of(request)
    record = site.record(number)
    if action == "retry":
        site.journal.requeue([number])
        ring(site.settings.state_dir)
    elif action == "accept":
        site.desk.judge(number, "accepted")
    else:
        redone(site, record, folder)
    return _to(back)


@router.post("/folder/{action}/{name}")
def act_on_folder(
    request: Request, action: Literal["pause", "resume"], name: str, _: Operator, back: Back = "/"
) -> Response:
    site = site_of(request)
    site.folder(name)
    if action == "pause":
        site.desk.hold(name)
    else:
        site.desk.release(name)
    ring(site.settings.state_dir)
    return _to(back)


def _to(place: str) -> Response:
    """Only ever to a page of ours."""
    try:
        parts = urlsplit(place)
        fine = not parts.scheme and not parts.netloc and place.startswith("/") and "\\" not in place
    except ValueError:
        fine = False
    return RedirectResponse(place if fine else "/", 303)


# --- Logging in ----------------------------------------------------------------------------


@router.get("/login", response_class=HTMLResponse)
def login_page(request: Request) -> Response:
    return templates.TemplateResponse(
        request, "login.html", {"page": "login", "version": __version__, "wrong": False}
    )


@router.post("/login", response_class=HTMLResponse)
def login(request: Request, key: Annotated[str, Form(max_length=200)] = "") -> Response:
    site = site_of(request)
    site.access.check_origin(request)
    try:
        site.logins.take(request.client.host if request.client else "local")
    except Refused as error:
        raise too_many("Too many tries", after=float(error.headers["Retry-After"])) from error
    cookie = site.access.log_in(key)
    if cookie is None:
        context = {"page": "login", "version": __version__, "wrong": True}
        return templates.TemplateResponse(request, "login.html", context, status_code=403)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def logout(request: Request) -> Response:
    site_of(request).access.check_origin(request)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer
