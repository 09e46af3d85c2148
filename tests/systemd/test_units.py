"""The units as files: systemd takes them, and what it thinks of their confinement."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from watcher import cli
from watcher.commands.doctor_places import inotify

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMMAND = "/opt/hotmatte/bin/hotmatte"
# From 0, which does nothing, to 10, which is root and may do everything.
MOST = {"hotmatte.service": 1.2, "hotmatte@.service": 1.2}
MOST_WITH_NETWORK = 1.5
MOST_WITH_GPU = 1.7


@pytest.fixture
def analyze(real_part: Callable[[str, object, str], None]) -> Callable[..., subprocess.CompletedProcess[str]]:
    tool = shutil.which("systemd-analyze")
    real_part("systemd-analyze", tool, "apt install systemd")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(tool), *words], capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The units as they are installed, but for the command, which is not there yet."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace(COMMAND, "/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return tmp_path


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_systemd_takes_the_unit_without_a_word(
    unit: Path, folder: Path, analyze: Callable[..., object]
) -> None:
    instance = folder / unit.name.replace("@.", "@studio.")
    if not instance.exists():
        instance.symlink_to(unit.name)
    # Without --recursive-errors=no a mistyped key would exit with 0.
    done = analyze("verify", "--man=no", "--recursive-errors=no", str(instance))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_the_confinement_is_as_tight_as_promised(
    unit: Path, folder: Path, analyze: Callable[..., object]
) -> None:
    most = MOST.get(unit.name, MOST_WITH_NETWORK)
    done = analyze("security", "--offline=true", f"--threshold={most * 10:g}", str(folder / unit.name))
    assert done.returncode == 0, done.stdout
    assert exposure(done.stdout) <= most


def test_the_confinement_holds_with_a_gpu(folder: Path, analyze: Callable[..., object]) -> None:
    drop_in = folder / "hotmatte.service.d"
    drop_in.mkdir()
    shutil.copy(DEPLOY / "systemd/examples/gpu.conf", drop_in)
    unit = str(folder / "hotmatte.service")
    done = analyze("security", "--offline=true", f"--threshold={MOST_WITH_GPU * 10:g}", unit)
    assert done.returncode == 0, done.stdout
    # That it was read at all:
    assert "char-nvidia*:rw" in done.stdout
    assert exposure(done.stdout) <= MOST_WITH_GPU
    assert analyze("verify", "--man=no", "--recursive-errors=no", unit).stderr == ""


def test_the_drop_in_of_a_fleet_opens_the_network_and_nothing_else(
    folder: Path, analyze: Callable[..., object]
) -> None:
    drop_in = folder / "hotmatte.service.d"
    drop_in.mkdir()
    shutil.copy(DEPLOY / "systemd/examples/fleet.conf", drop_in)
    unit = str(folder / "hotmatte.service")
    done = analyze("security", "--offline=true", f"--threshold={MOST_WITH_NETWORK * 10:g}", unit)
    assert done.returncode == 0, done.stdout
    assert "Service has access to the host's network" in done.stdout
    assert exposure(done.stdout) <= MOST_WITH_NETWORK
    assert analyze("verify", "--man=no", "--recursive-errors=no", unit).stderr == ""


def exposure(said: str) -> float:
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


def test_the_template_differs_from_the_plain_unit_in_places_only() -> None:
    for plain in ("hotmatte", "hotmatte-weights"):
        text = (DEPLOY / f"systemd/{plain}.service").read_text(encoding="utf-8")
        template = (DEPLOY / f"systemd/{plain}@.service").read_text(encoding="utf-8")
        ours = [line for line in text.splitlines() if not line.startswith("#")]
        theirs = [line for line in template.splitlines() if not line.startswith("#")]
        different = {(a.partition("=")[0], "%i" in b) for a, b in zip(ours, theirs, strict=True) if a != b}
        assert {placed for _, placed in different} == {True}
        assert {key for key, _ in different} <= {
            "Description", "After", "Wants", "StateDirectory", "WorkingDirectory", "Environment", "ExecReload"
        }  # fmt: skip


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_the_commands_of_a_unit_are_ones_there_are(unit: Path) -> None:
    for line in unit.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key in ("ExecStart", "ExecReload") and value.startswith(COMMAND):
            words = shlex.split(value)[1:]
            if words[0] == "web" and "web" not in cli.COMMANDS:
                pytest.skip("this version has no web command")
            cli._parser(words[0], cli._module(words[0])).parse_args(words)


@pytest.mark.parametrize("unit", [unit for unit in UNITS if "Type=oneshot" not in unit.read_text()], ids=name)
def test_an_upgrade_stops_and_starts_every_unit_that_runs(unit: Path) -> None:
    """Its code is replaced under it: what it starts later would be of another version."""
    prerm = (DEPLOY / "debian/prerm").read_text(encoding="utf-8")
    patterns = re.findall(r"'(hotmatte\S*\.service)'", prerm)
    instance = unit.name.replace("@.", "@studio.")
    assert any(fnmatch.fnmatchcase(instance, pattern) for pattern in patterns)


def test_the_kernel_limits_we_set_are_those_that_doctor_asks_for() -> None:
    text = (DEPLOY / "sysctl.d/50-hotmatte.conf").read_text(encoding="utf-8")
    ours = dict(re.findall(r"^fs\.inotify\.(\w+) = (\d+)$", text, flags=re.MULTILINE))
    asked = [finding.remedy or "" for finding in inotify({}, budget=1.0)]
    assert set(ours) == {"max_user_watches", "max_user_instances", "max_queued_events"}
    for key, least in (("max_user_watches", 524_288), ("max_user_instances", 1024)):
        assert int(ours[key]) >= least
    for remedy in asked:
        for key, value in re.findall(r"fs\.inotify\.(\w+)=(\d+)", remedy):
            assert int(ours[key]) >= int(value)


@pytest.mark.parametrize("tool", ["sysusers", "tmpfiles"])
def test_systemd_makes_the_user_and_the_first_folders(
    tool: str, tmp_path: Path, real_part: Callable[[str, object, str], None]
) -> None:
    command = shutil.which(f"systemd-{tool}")
    real_part(f"systemd-{tool}", command and os.geteuid() == 0, "apt install systemd, as root")
    (tmp_path / "etc").mkdir()
    for file in ("passwd", "group"):
        (tmp_path / "etc" / file).write_text(
            "root:x:0:\n" if file == "group" else "root:x:0:0::/root:/bin/sh\n"
        )
    users = [
        str(shutil.which("systemd-sysusers")),
        f"--root={tmp_path}",
        str(DEPLOY / "sysusers.d/hotmatte.conf"),
    ]
    subprocess.run(users, check=True, capture_output=True)
    account = re.search(
        r"^hotmatte:x:(\d+):(\d+):.*:/var/lib/hotmatte:(.*)$",
        (tmp_path / "etc/passwd").read_text(),
        re.MULTILINE,
    )
    assert account is not None
    assert account[3].endswith("nologin")
    if tool == "tmpfiles":
        folders = [str(command), "--create", f"--root={tmp_path}", str(DEPLOY / "tmpfiles.d/hotmatte.conf")]
        subprocess.run(folders, check=True, capture_output=True)
        hot = (tmp_path / "srv/hotmatte/hot").stat()
        assert (hot.st_uid, hot.st_gid) == (int(account[1]), int(account[2]))
        assert hot.st_mode & 0o7777 == 0o2775
