"""The contract that remove.bg's clients speak, answered by our own mattes; and rembg's, in one route.

An upload here is a job like any other: durable, in a hot folder, and collected later under
/v1/jobs where the answer was not waited for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Annotated, Any

import anyio
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image, UnidentifiedImageError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from watcher.domain import JobState
from watcher.download import ServerBusy, UrlLimits, Waiting, download
from watcher.errors import InputNotReady, InputRejected
from watcher.journal import Record
from watcher.web import backgrounds
from watcher.web.access import Caller, Reader, Uploader
from watcher.web.api import ANSWERS, DENIED, IDEMPOTENCY
from watcher.web.compose import Composed, compose
from watcher.web.progress import ENDED
from watcher.web.refusal import Refused
from watcher.web.removebg_schema import BODY, IMAGES, REMBG_BODY, Account
from watcher.web.results import Result, result_of, words_of
from watcher.web.site import Site, site_of
from watcher.web.uploads import arrive, form_of
from watcher.web.wanted import Wanted, wanted

router = APIRouter(tags=["compatible"])

SOURCES = ("image_file", "image_file_b64", "image_url")
# Whole pictures are held while one is composed.
_composing = anyio.CapacityLimiter(2)
# Seconds until a URL is worth another try, where its server does not say; and at most, whatever it says.
LATER_S, LATEST_S = 5, 3600
# How often somebody who waits for a URL is looked for, in seconds.
LOOK_S = 0.5
NOTHING_FOUND = "nothing_found"


@dataclass(frozen=True, slots=True)
class _Order:
    """Text fields apart from files; both empty where the request has neither."""

    fields: Mapping[str, str]
    files: Mapping[str, IO[bytes]]

    def source(self) -> str:
        given = [name for name in SOURCES if self.fields.get(name) or name in self.files]
        if not given:
            raise Refused(
                400, "missing_source", "No image given", detail=f"Send one of {', '.join(SOURCES)}."
            )
        if len(given) > 1:
            raise Refused(400, "multiple_sources", "Multiple image sources given", detail="Send one of them.")
        return given[0]


@router.get("/v1.0/account", responses=DENIED)
def account(request: Request, _: Reader) -> Account:
    """Nothing is charged: credits are there because clients ask for them."""
    calls = site_of(request).settings.web.requests_per_minute
    return Account.of(calls)


@router.post(
    "/v1.0/removebg", responses={**ANSWERS, 200: IMAGES}, response_class=Response, openapi_extra=BODY
)
async def removebg(
    request: Request, caller: Uploader, idempotency_key: Annotated[str | None, IDEMPOTENCY] = None
) -> Response:
    """remove.bg's own call: one photo in, its cutout out."""
    site = site_of(request)
    with ExitStack() as until:
        with site.gate.enter(site.upload_folder):
            async with _order(request) as order:
                want = wanted(order.fields)
                source = order.source()
                async with _until_they_leave(request) as waiting:
                    behind = await _background(site, order, waiting, until)
                    photo = await _photo(site, order, source, waiting)
                record = await _kept(site, photo, caller, idempotency_key)
        record, result = await _matted(site, record)
        composed = await _composed(result, want, behind)
    headers = {**_headers(composed), **request.state.rate.headers}
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(_as_json(composed), headers=headers)
    return Response(composed.content, media_type=composed.media_type, headers=headers)


@router.post(
    "/api/remove", responses={**ANSWERS, 200: IMAGES}, response_class=Response, openapi_extra=REMBG_BODY
)
async def rembg(
    request: Request,
    caller: Uploader,
    om: Annotated[bool, Query(description="only the mask")] = False,
    bgc: Annotated[str | None, Query(max_length=40, description="background as `r,g,b,a`")] = None,
) -> Response:
    """What `rembg s` answers: the whole cutout as PNG. Its other parameters have no meaning here."""
    site = site_of(request)
    with site.gate.enter(site.upload_folder):
        async with _order(request) as order:
            photo = order.files.get("file")
            if photo is None:
                raise Refused(400, "missing_source", "The form has no file called `file`")
            mask = om or order.fields.get("om", "").lower() in ("true", "1")
            want = Wanted(megapixels=None, format="png", alpha_only=mask)
            colour = bgc or order.fields.get("bgc")
            if colour:
                want = Wanted(megapixels=None, format="png", alpha_only=mask, background=_rgba(colour))
            record = await _kept(site, photo, caller, None)
    _, result = await _matted(site, record)
    composed = await _composed(result, want, None)
    return Response(composed.content, media_type=composed.media_type)


def _rgba(word: str) -> tuple[int, int, int, int]:
    parts = [part.strip() for part in word.split(",")]
    if len(parts) != 4 or not all(part.isdecimal() and int(part) <= 255 for part in parts):
        raise Refused(400, "invalid_bg_color", "bgc must be four numbers up to 255: r,g,b,a")
    red, green, blue, alpha = (int(part) for part in parts)
    return (red, green, blue, alpha)


# --- In ------------------------------------------------------------------------------------


@asynccontextmanager
async def _order(request: Request) -> AsyncIterator[_Order]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        yield _Order(await _json_fields(request), {})
        return
    async with form_of(request) as form:
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        files = {name: value.file for name, value in form.items() if isinstance(value, UploadFile)}
        yield _Order(fields, files)


@asynccontextmanager
async def _until_they_leave(request: Request) -> AsyncIterator[Waiting]:
    """A slow server shall not hold a place among the uploads for somebody who has left. The body must have been read."""
    waiting = Waiting()

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(LOOK_S)
        waiting.leave()

    watching = asyncio.create_task(watch())
    try:
        yield waiting
    finally:
        watching.cancel()


async def _json_fields(request: Request) -> dict[str, str]:
    try:
        values = await request.json()
    except (ValueError, RecursionError) as error:
        raise Refused(400, "invalid_request", "The JSON cannot be read") from error
    if not isinstance(values, dict):
        raise Refused(400, "invalid_request", "The JSON must be an object")
    fields = {}
    for name, value in values.items():
        if isinstance(value, bool):
            fields[name] = str(value).lower()
        elif isinstance(value, str | int | float):
            fields[name] = str(value)
    return fields


async def _photo(site: Site, order: _Order, source: str, waiting: Waiting) -> IO[bytes]:
    if source in order.files:
        return order.files[source]
    value = order.fields[source]
    match source:
        case "image_url":
            return io.BytesIO(await run_in_threadpool(_fetched, site, value, "invalid_image_url", waiting))
        case "image_file_b64":
            return io.BytesIO(_decoded(value, site.settings.web.max_upload_mb))
        case _:
            raise Refused(400, "failed_to_read_image", "image_file must be a file")


def _decoded(text: str, max_mb: float) -> bytes:
    head, _, rest = text[:100].partition("base64,")
    plain = text[len(head) + len("base64,") :] if rest or head != text[:100] else text
    try:
        content = base64.b64decode("".join(plain.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "failed_to_read_image", "image_file_b64 is not base64") from error
    if len(content) > max_mb * 1e6:
        raise Refused(413, "file_too_large", f"The upload is larger than {max_mb:g} MB")
    return content


def _fetched(site: Site, url: str, code: str, waiting: Waiting) -> bytes:
    if not site.settings.web.fetch_urls:
        raise Refused(
            400,
            code,
            "This service fetches no URLs",
            detail="Send the photo itself, or set `web.fetch_urls`.",
        )
    try:
        limits = UrlLimits(max_mb=site.settings.web.max_upload_mb)
        return download(url, limits=limits, kept=site.urls, waiting=waiting).content
    except ServerBusy as error:
        wait = LATER_S if error.after is None else error.after
        after = str(math.ceil(min(LATEST_S, max(1, wait))))
        words = "The server of the image URL has no time"
        raise Refused(
            503, "url_unavailable", words, detail=str(error), headers={"Retry-After": after}
        ) from error
    except (InputRejected, InputNotReady) as error:
        raise Refused(400, code, "The image URL cannot be used", detail=str(error)) from error


async def _background(site: Site, order: _Order, waiting: Waiting, until: ExitStack) -> IO[bytes] | None:
    if "bg_image_file" in order.files:
        content: IO[bytes] = order.files["bg_image_file"]
    elif url := order.fields.get("bg_image_url"):
        content = io.BytesIO(await run_in_threadpool(_fetched, site, url, "invalid_bg_image_url", waiting))
    else:
        return None
    work = partial(backgrounds.kept, content, max_mp=site.settings.web.max_upload_mp, until=until)
    return await anyio.to_thread.run_sync(work, limiter=_composing)


# --- Through -------------------------------------------------------------------------------


async def _kept(site: Site, photo: IO[bytes], caller: Caller, idempotency_key: str | None) -> Record:
    arrival = await arrive(
        site, photo, folder=site.upload_folder, caller=caller, idempotency_key=idempotency_key
    )
    return arrival.record


async def _matted(site: Site, record: Record) -> tuple[Record, Result]:
    """The result of a job once it has ended. Raises Refused for every other end."""
    number = record.job.id
    found: Record | None = record
    if record.state not in ENDED:
        found = await site.progress.ended(number, timeout=site.settings.web.wait_s)
    if found is None:
        raise Refused(409, "gone", "The photo was taken away before it was done")
    if found.state not in ENDED:
        raise Refused(
            503,
            "timeout",
            "The matte is not done yet",
            detail=f"It will be: ask for /v1/jobs/{number}, or come again with the same Idempotency-Key.",
            headers={"Retry-After": "5", "Location": f"/v1/jobs/{number}"},
        )
    words = words_of(found)
    if found.state is JobState.QUARANTINED:
        blames_photo = str(words.get("error", "")).startswith("Input")
        code, status = ("failed_to_read_image", 400) if blames_photo else ("failed", 500)
        raise Refused(status, code, str(words.get("reason")), detail=str(words.get("remedy") or ""))
    if NOTHING_FOUND in words.get("flags", ()):
        raise Refused(400, "unknown_foreground", "Could not identify foreground in image")
    result = await run_in_threadpool(result_of, found, site.settings.folders.get(found.job.source.folder))
    if result is None:
        raise Refused(409, "gone", "The result has been taken away")
    return found, result


async def _composed(result: Result, want: Wanted, behind: IO[bytes] | None) -> Composed:
    output = result.one("cutout")
    if output is None:
        raise Refused(
            503,
            "unavailable",
            "The profile of the upload folder writes no cutout",
            detail="Add an output of kind cutout, or name another folder as `web.folder`.",
        )

    def work() -> Composed:
        try:
            with Image.open(output.path) as cutout:
                return compose(cutout, want, behind=backgrounds.opened(behind) if behind else None)
        except FileNotFoundError as error:
            raise Refused(409, "gone", "The result has been taken away") from error
        except (UnidentifiedImageError, OSError) as error:
            raise Refused(503, "unavailable", f"The cutout cannot be read: {error}") from error

    return await anyio.to_thread.run_sync(partial(work), limiter=_composing)


# --- Out -----------------------------------------------------------------------------------


def _headers(composed: Composed) -> dict[str, str]:
    left, top, right, bottom = composed.foreground
    return {
        "X-Width": str(composed.width),
        "X-Height": str(composed.height),
        "X-Type": "person",
        "X-Credits-Charged": "0",
        "X-Foreground-Top": str(top),
        "X-Foreground-Left": str(left),
        "X-Foreground-Width": str(right - left),
        "X-Foreground-Height": str(bottom - top),
    }


def _as_json(composed: Composed) -> dict[str, Any]:
    left, top, right, bottom = composed.foreground
    return {
        "data": {
            "result_b64": base64.b64encode(composed.content).decode("ascii"),
            "foreground_top": top,
            "foreground_left": left,
            "foreground_width": right - left,
            "foreground_height": bottom - top,
        }
    }
