"""How the API says no: one shape for every error, remove.bg's `{"errors": [...]}`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from watcher.errors import WatcherError
from watcher.log import event


class Complaint(BaseModel):
    """`code` is stable and for programs; `title` and `detail` are for people."""

    title: str
    code: str
    detail: str | None = None


class Errors(BaseModel):
    errors: list[Complaint]


class Refused(Exception):
    """Raised anywhere in a request; becomes its answer."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        *,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})


def too_many(title: str, *, after: float, detail: str | None = None) -> Refused:
    """429; `after`: seconds until it is worth another try."""
    seconds = str(max(1, math.ceil(after)))
    return Refused(429, "rate_limit_exceeded", title, detail=detail, headers={"Retry-After": seconds})


def body(code: str, title: str, detail: str | None = None) -> dict[str, Any]:
    return Errors(errors=[Complaint(title=title, code=code, detail=detail)]).model_dump(exclude_none=True)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the `responses` of a route: these statuses come as Errors."""
    return {status: {"model": Errors} for status in statuses}


def own_fault() -> Response:
    """500, where a request met a bug."""
    words = "Please report it, with what the service's log says of it."
    return JSONResponse(body("internal_error", "The service made a mistake", words), 500)


def install(app: FastAPI) -> None:
    """Have every failure of `app` answered in this shape."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        if "text/html" in request.headers.get("accept", "") and request.method == "GET":
            if error.status in (401, 403) and error.code == "auth_failed":
                return Response(status_code=303, headers={"Location": "/login"})
            return PlainTextResponse(
                f"{error.title}. {error.detail or ''}".rstrip() + "\n", error.status, error.headers
            )
        return JSONResponse(body(error.code, error.title, error.detail), error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        words = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
        )
        return JSONResponse(body("invalid_request", "The request is not valid", words), 422)

    @app.exception_handler(WatcherError)
    async def failed(_: Request, error: WatcherError) -> Response:
        return JSONResponse(body("unavailable", str(error), error.remedy), 503, {"Retry-After": "5"})

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, _: ClientDisconnect) -> Response:
        event(logging.INFO, "upload broken off by its sender; nothing was kept", path=request.url.path)
        return Response(status_code=400)  # to nobody

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        return JSONResponse(body(code, str(error.detail)), error.status_code, dict(error.headers or {}))
