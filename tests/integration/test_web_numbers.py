"""Alerts and dashboard by the real Prometheus: it scrapes the service, and what is asked has an answer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from daemonrig import DaemonRig, drop, jpeg
from rigs.brokers import free_port
from webrig import WebRig

TESTS = Path(__file__).parents[1]
DEPLOY = TESTS.parent / "deploy"
RULES = DEPLOY / "prometheus" / "hotmatte.rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "hotmatte.json").read_text(encoding="utf-8"))
# Of parts that are not here: a GPU, a fleet, receivers of notifications.
ELSEWHERE = re.compile("hotmatte_(gpu|node|broker|fleet|notices)_")


@pytest.fixture(scope="module")
def promtool(real_part: Callable[[str, object, str], None]) -> str:
    tool = shutil.which("promtool")
    real_part("promtool", tool, "apt install prometheus")
    return str(tool)


def test_each_alert_comes_when_it_should_and_says_what_is_wrong(promtool: str, tmp_path: Path) -> None:
    cases = (TESTS / "rigs" / "alerts.yml").read_text(encoding="utf-8")
    names = re.findall(r"alert: (\w+)", RULES.read_text(encoding="utf-8"))
    assert len(names) >= 10
    for name in names:
        assert len(re.findall(rf"\b{name}\b", cases)) >= 2, f"{name} is to be seen quiet and firing"
    path = tmp_path / "alerts.yml"
    path.write_text(cases.replace("[RULES]", json.dumps([str(RULES)])), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRig]:
    folders: dict[str, dict[str, Any]] = {"in": {}, "held": {}}
    daemon = DaemonRig(tmp_path_factory.mktemp("numbers"), folders=folders, cache={"size_mb": 10})
    rig = WebRig(daemon)
    try:
        daemon.start()
        # One photo that waits, one that is no photo.
        assert daemon.hotmatte("pause", "held").returncode == 0
        drop(daemon.hot("held") / "waits.jpg", jpeg(1))
        drop(daemon.hot() / "broken.jpg", b"no photo at all")
        daemon.wait(lambda: daemon.counts() == {"queued": 1, "quarantined": 1}, timeout=30)
        rig.start()
        yield rig
    finally:
        rig.close()
        daemon.close()


class Prometheus:
    """A real one, which scrapes five times a second."""

    def __init__(self, root: Path, target: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        settings = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "hotmatte", "static_configs": [{"targets": [target]}]}],
        }
        config = root / "prometheus.yml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self._log = (root / "prometheus.log").open("wb")
        self.child = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={root / 'data'}",
                f"--web.listen-address={self.address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def ask(self, what: str, **params: str) -> Any:
        answer = httpx.get(f"http://{self.address}/api/v1/{what}", params=params, timeout=20, trust_env=False)
        if answer.status_code == 503:
            raise httpx.ConnectError("it is starting")
        assert answer.json()["status"] == "success", answer.text
        return answer.json()["data"]

    def is_up(self) -> bool:
        try:
            return [result["value"][1] for result in self.ask("query", query="up")["result"]] == ["1"]
        except httpx.TransportError:
            assert self.child.poll() is None, Path(self._log.name).read_text(encoding="utf-8")
            return False

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        self._log.close()


@pytest.fixture(scope="module")
def prometheus(
    web: WebRig, tmp_path_factory: pytest.TempPathFactory, real_part: Callable[[str, object, str], None]
) -> Iterator[Prometheus]:
    real_part("Prometheus", shutil.which("prometheus"), "apt install prometheus")
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), web.url.removeprefix("http://"))
    try:
        web.until(server.is_up)
        yield server
    finally:
        server.close()


def test_prometheus_has_an_answer_to_every_panel_of_the_dashboard(
    web: WebRig, prometheus: Prometheus
) -> None:
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    here = [expr for expr in asked if not ELSEWHERE.search(expr)]
    assert len(here) >= 15

    def answered(expr: str) -> bool:
        values = {row["value"][1] for row in prometheus.ask("query", query=expr)["result"]}
        return bool(values - {"NaN"})

    deadline, number = time.monotonic() + 60, 0
    open_questions = here
    # Rates need photos that come while Prometheus looks, counts such as ended while the service was there.
    drop(web.daemon.hot() / "broken_too.jpg", b"no photo either")
    web.daemon.wait_quarantined("broken_too.jpg")
    while open_questions and time.monotonic() < deadline:
        drop(web.daemon.hot() / f"{number:03d}.jpg", jpeg(number))
        web.daemon.wait_done(f"{number:03d}.jpg", timeout=30)
        number += 1
        with web.client() as client:
            client.get("/v1/folders").raise_for_status()
        open_questions = [expr for expr in open_questions if not answered(expr)]
    assert open_questions == [], web.client().get("/metrics").text
    for expr in set(asked) - set(here):
        prometheus.ask("query", query=expr)


def test_prometheus_evaluates_every_alert_and_none_is_raised_where_all_is_well(
    web: WebRig, prometheus: Prometheus
) -> None:
    def evaluated() -> list[dict[str, Any]] | None:
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

    rules = web.until(evaluated)
    assert [rule["health"] for rule in rules] == ["ok"] * len(rules), rules
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_the_numbers_are_written_as_prometheus_likes_them(web: WebRig, promtool: str) -> None:
    with web.client() as client:
        text = client.get("/metrics").content
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    said = (done.stdout + done.stderr).decode()
    complaints = [line for line in said.splitlines() if "hotmatte_" in line]
    assert complaints == [], said
