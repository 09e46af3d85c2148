"""For machines that look after machines: is it alive, is it ready, what are the numbers."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from watcher.health import holder
from watcher.web.access import Scraper
from watcher.web.refusal import answers
from watcher.web.site import site_of

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    status: Literal["ok", "unavailable"]
    reasons: list[str] = []


# Some proxies look by HEAD.
@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
def healthz() -> Health:
    """This service answers. Says nothing about the daemon."""
    return Health(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": Health}})
def readyz(request: Request, response: Response) -> Health:
    """A daemon runs, its engines are warm, and at least one folder is watched."""
    site = site_of(request)
    reasons = []
    if not holder(site.settings.state_dir):
        reasons.append("no daemon runs")
    else:
        status = site.status()
        if not status.get("ready"):
            reasons.append("the daemon is not ready yet")
        reasons += [
            f"engine {engine['model']} is paused" for engine in status.get("engines", ()) if engine["paused"]
        ]
        states = [folder["state"] for folder in status.get("folders", {}).values()]
        if states and not any(state in ("watching", "paused") for state in states):
            reasons.append("no hot folder is watched")
    if reasons:
        response.status_code = 503
    return Health(status="unavailable" if reasons else "ok", reasons=reasons)


@router.get(
    "/metrics",
    response_class=Response,
    responses={**answers(403, 421, 503), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request, _: Scraper) -> Response:
    """For Prometheus."""
    return Response(site_of(request).measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
