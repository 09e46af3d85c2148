"""What a fleet is installed with: the nodes' unit, the compose file, the page."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from watcher import cli, config, exits
from watcher.errors import ConfigError

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "hotmatte-node@.service"
DOCKER = ROOT / "deploy" / "docker"
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_the_unit_is_one_systemd_takes(tmp_path: Path, real_part: Callable[..., None]) -> None:
    analyze = shutil.which("systemd-analyze")
    real_part("systemd-analyze", analyze, "apt install systemd")
    text = UNIT.read_text(encoding="utf-8").replace("/opt/hotmatte/bin/hotmatte", "/bin/true")
    unit = tmp_path / UNIT.name
    unit.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [str(analyze), "verify", "--man=no", "--recursive-errors=no", str(unit).replace("@", "@gpu1")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_starts_a_node_leaves_it_time_to_drain_and_tries_what_can_heal() -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), flags=re.MULTILINE))
    words = shlex.split(settings["ExecStart"])[1:]
    assert cli._parser(words[0], cli._module(words[0])).parse_args(words).command == "node"
    assert float(settings["TimeoutStopSec"]) > config.Limits().drain_timeout_s + 10
    # A share or a broker that is away (74, 69) comes back.
    assert settings["RestartPreventExitStatus"].split() == [str(exits.USAGE), str(exits.CONFIG)]
    assert "RequiresMountsFor" not in settings


def test_the_compose_file_starts_commands_there_are_on_a_configuration_that_is_right() -> None:
    compose = yaml.safe_load((DOCKER / "compose.fleet.yaml").read_text(encoding="utf-8"))
    for name in ("watcher", "node"):
        words = [
            word.replace("${HOTMATTE_NODE:-node}", "gpu1") for word in compose["services"][name]["command"]
        ]
        assert cli._parser(words[0], cli._module(words[0])).parse_args(words).command == words[0]
    settings = config.load(DOCKER / "config" / "fleet" / "hotmatte.yaml")
    [folder] = settings.folders.values()
    assert (folder.where, folder.path) == ("fleet", Path("/mnt/studio/hot"))
    mounts = {volume["target"] for volume in compose["services"]["node"]["volumes"]}
    assert {str(path) for path in settings.shares.values()} <= mounts
    assert str(settings.state_dir) in mounts


def test_the_configuration_on_the_page_is_right(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    file = tmp_path / "hotmatte.yaml"
    file.write_text("\n".join(line[3:] for line in text.splitlines()), encoding="utf-8")
    settings = config.load(file)
    assert {folder.where for folder in settings.folders.values()} == {"fleet"}
    assert settings.folders["press"].priority > settings.folders["weddings"].priority


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("folders: {a: {path: /x/a, output: /x/b, where: fleet}}", "a fleet needs a broker"),
        ("folders: {a: {path: /x/a, output: /x/b, where: fleet}}", "/x/a is on none of the `shares`"),
        (
            "shares: {s: /x}\nfolders: {a: {path: share://s/, output: share://s/b, where: fleet}}",
            "a whole share",
        ),
        ("folders: {a: {path: share://t/a, output: b}}", "share://t/a names a share that `shares` does not"),
        ("queue: {url: http://x}", "must begin with redis://"),
    ],
)
def test_what_nodes_could_not_work_with_is_said_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "hotmatte.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        config.load(file)
    assert any(words in problem and re.match(r".*yaml:\d+: ", problem) for problem in refused.value.problems)


def test_a_share_is_written_by_name_and_read_as_this_host_s_mount(tmp_path: Path) -> None:
    file = tmp_path / "hotmatte.yaml"
    text = (
        "shares: {s: mnt}\nfolders: {a: {path: share://s/hot, output: share://s/out, archive: share://s/old}}"
    )
    file.write_text(text, encoding="utf-8")
    folder = config.load(file).folders["a"]
    assert (folder.path, folder.output, folder.archive) == tuple(
        tmp_path / "mnt" / x for x in ("hot", "out", "old")
    )


def test_the_page_shows_nodes_and_says_when_the_broker_is_away() -> None:
    from watcher.web.page import templates

    nodes = [
        {"node": "gpu1", "state": "working", "holds": 4, "capacity": 6, "per_minute": 231, "reason": None},
        {"node": "gpu2", "state": "silent", "reason": "runs <9.1>"},
    ]
    fleet = {"model": "modnet", "in_flight": 12, "broker_lost": "no answer", "nodes": nodes}
    throughput = {"width": 60, "bars": (), "top": 0}
    part = templates.env.get_template("part_now.html")
    page = part.render(status={"fleet": [fleet]}, folders=[], running=(), hour=0, throughput=throughput)
    assert "gpu1" in page and "holds 4 of 6, 231 a minute" in page
    assert "silent. runs &lt;9.1&gt;" in page
    assert "The broker is away" in page
    assert "nodes" not in part.render(status={}, folders=[], running=(), hour=0, throughput=throughput)
