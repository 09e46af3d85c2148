"""What an operator installs beside the service: its unit, the alerts, the dashboard."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from watcher import cli, exits
from watcher.desk import Desk
from watcher.domain import Job, JobState, Source, Stamp
from watcher.journal import Journal, Record
from watcher.web.measures import Measures

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "systemd" / "hotmatte-web.service"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "hotmatte.rules.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana" / "hotmatte.json").read_text(encoding="utf-8"))


def test_the_unit_is_one_systemd_takes(tmp_path: Path, real_part: Callable[..., None]) -> None:
    analyze = shutil.which("systemd-analyze")
    real_part("systemd-analyze", analyze, "apt install systemd")
    text = UNIT.read_text(encoding="utf-8")
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, flags=re.MULTILINE))
    words = shlex.split(settings["ExecStart"])[1:]
    cli._parser(words[0], cli._module(words[0])).parse_args(words)
    assert str(exits.CONFIG) in settings["RestartPreventExitStatus"].split()
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(settings["ExecStart"].split()[0], "/bin/true"), encoding="utf-8")
    done = subprocess.run(
        [str(analyze), "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def told(tmp_path: Path) -> set[str]:
    """The names that /metrics tells, of a daemon that has everything."""
    (tmp_path / "status.json").write_text(
        json.dumps(
            {
                "written_at": 0.0,
                "folders": {"in": {"state": "watching", "files": 1, "listing_s": 0.1, "unsettled": 0}},
                "engines": [{"model": "modnet", "device": "cuda", "restarts": 2, "paused": None}],
                "cache": {"bytes": 1, "most_bytes": 2, "entries": 1, "found": 0, "asked": 1},
                "fleet": [
                    {
                        "model": model,
                        "broker_lost": None,
                        "in_flight": 7,
                        "resent": 1,
                        "nodes": [
                            {"node": "gpu1", "state": "working", "holds": 6, "done": 99},
                            {"node": "gpu2", "state": "silent", "holds": 6, "done": 3},
                        ],
                    }
                    for model in ("modnet", "u2netp")
                ],
            }
        )
    )
    (tmp_path / "lock").write_text("4711\n")
    with Journal(tmp_path / "journal.sqlite") as journal, locked(tmp_path / "lock"):
        measures = Measures(tmp_path, Desk(journal))
        source = Source("in", "a.jpg", Stamp(1, 1))
        journal.admit(source)
        words = '{"seconds": 1.5, "stages_ms": {"infer": 900.0}}'
        measures.ended(Record(Job(1, source, 1, 1), JobState.DONE, 0, words, False, 0, 1))
        measures.answered("GET", "/v1/jobs", 200, 0.01)
        families = list(text_string_to_metric_families(measures.text().decode()))
    assert next(f for f in families if f.name == "hotmatte_worker_restarts").samples[0].value == 2
    for name, values in (
        ("hotmatte_node_up", [1, 0, 1, 0]),
        # What a node holds and has done is that of all its models, and counts once.
        ("hotmatte_node_holds", [6, 0]),
        ("hotmatte_node_photos", [99, 3]),
        ("hotmatte_broker_up", [1, 1]),
    ):
        assert [sample.value for sample in next(f for f in families if f.name == name).samples] == values
    return {sample.name for family in families for sample in family.samples}


class locked:
    """Somebody holds the state folder, as a daemon does."""

    def __init__(self, path: Path) -> None:
        self._command = ["flock", "--nonblock", str(path), "cat"]

    def __enter__(self) -> None:
        self._child = subprocess.Popen([*self._command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(b"held\n")
        self._child.stdin.flush()
        assert self._child.stdout.readline() == b"held\n"

    def __exit__(self, *_: object) -> None:
        self._child.communicate()


def test_alerts_and_dashboard_ask_for_numbers_there_are(told: set[str]) -> None:
    rules = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    asked = {name for expr in [*rules, *panels] for name in re.findall(r"\bhotmatte_\w+", expr)}
    # Only where there is a driver to ask, or a receiver to tell.
    assert asked - told == {"hotmatte_gpu_memory_bytes", "hotmatte_notices_total"}
    assert len(rules) >= 5
    assert len(panels) >= 10


def test_memory_of_gpus_is_told_as_the_driver_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words for two cards, one of which cannot say; no GPU is needed for that."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    lines = "0, 2850, 81559\\n1, [N/A], [N/A]\\n"
    tool.write_text(f"#!/bin/sh\necho \"$*\" >>{tmp_path}/asked\nprintf '{lines}'\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    with Journal(tmp_path / "journal.sqlite") as journal:
        measures = Measures(tmp_path, Desk(journal))
        texts = [measures.text().decode() for _ in range(3)]
    families = {family.name: family.samples for family in text_string_to_metric_families(texts[0])}
    assert [(sample.labels, sample.value) for sample in families["hotmatte_gpu_memory_bytes"]] == [
        ({"gpu": "0", "kind": "used"}, 2850 * 2**20),
        ({"gpu": "0", "kind": "total"}, 81559 * 2**20),
    ]
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert asked == ["--query-gpu=index,memory.used,memory.total --format=csv,noheader,nounits"]
