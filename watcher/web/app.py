"""Puts the routes together, and around them what holds for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watcher import __version__
from watcher.config import Settings
from watcher.web import api, ops, page, refusal, removebg, reviews
from watcher.web.limits import BodyLimit
from watcher.web.site import Accepts, Site, build

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


def create_app(settings: Settings, accepts: Accepts) -> FastAPI:
    """`accepts` says whether the daemon would take a file of that name: intake's word, not ours."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        site = build(settings, accepts)
        app.state.site = site
        following = asyncio.create_task(site.progress.run())
        try:
            yield
        finally:
            site.progress.close()
            await following
            await asyncio.to_thread(site.notices.close, *site.progress.mark)
            site.journal.close()

    app = FastAPI(
        title="Hotmatte",
        version=__version__,
        description="Portrait mattes: own API, and one that remove.bg's clients understand.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere. The description itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
    )
    refusal.install(app)
    for router in (api.router, reviews.router, removebg.router, ops.router, page.router):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=page.HERE / "static"))
    app.add_middleware(BodyLimit, most=int(settings.web.max_upload_mb * 1e6))
    app.add_middleware(Surroundings)
    return app


class Surroundings:
    """Headers for every answer, that to a fault of our own included, and a measurement of each request by its route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, started = time.perf_counter(), False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in HEADERS if name not in present),
                ]
                _measure(scope, message["status"], time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            # What happened is for the log, where it goes from here.
            if not started:
                await refusal.own_fault()(scope, receive, sending)
            raise


def _measure(scope: Scope, status: int, seconds: float) -> None:
    site: Site | None = getattr(scope["app"].state, "site", None)
    route = scope.get("route")
    if site is not None:
        path = getattr(route, "path", "other")
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
        site.measures.answered(method, path, status, seconds)
