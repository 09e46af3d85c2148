"""Our own description of the API, and a machine that looks for where the service does not keep to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from daemonrig import DaemonRig, jpeg
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from webrig import WebRig

from watcher.config import load
from watcher.web.app import create_app


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRig]:
    """No daemon: what is uploaded stays queued, and nobody waits for it long."""
    daemon = DaemonRig(tmp_path_factory.mktemp("openapi"), folders={"in": {}, "api": {}})
    rig = WebRig(daemon, {"wait_s": 0.05, "requests_per_minute": 100_000, "max_waiting": 100_000})
    try:
        rig.start()
        with rig.client() as client:
            client.post("/v1/jobs", params={"folder": "in"}, content=jpeg(1))
        yield rig
    finally:
        rig.close()


SCHEMA = schemathesis.openapi.from_dict(create_app(load(None), lambda *_: True).openapi())
# A stream has no end, and a response to it no schema.
CHECKED = SCHEMA.exclude(path="/v1/events")


@CHECKED.parametrize()
@settings(
    max_examples=10,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_sent_the_answer_is_one_that_is_described(case: Case, web: WebRig) -> None:
    answer = case.call(base_url=web.url)
    # 503 stands for the daemon that is not there.
    checks = [status_code_conformance, response_schema_conformance]
    if answer.status_code != 503:
        checks.append(not_a_server_error)
    case.validate_response(answer, checks=checks)


def test_the_description_names_every_route(web: WebRig) -> None:
    with web.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert {
        "/v1/jobs",
        "/v1/jobs/{number}",
        "/v1/jobs/{number}/retry",
        "/v1/jobs/{number}/accept",
        "/v1/jobs/{number}/redo",
        "/v1/folders",
        "/v1/events",
        "/v1.0/removebg",
        "/v1.0/account",
        "/api/remove",
        "/healthz",
        "/readyz",
        "/metrics",
    } <= set(paths)
