from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from daemonrig import CHECKOUT, write_card

from watcher import cli, mounts
from watcher.commands import doctor, doctor_engines, doctor_journal, doctor_places
from watcher.commands.findings import Finding, Verdict, answered, exit_of, fail, ok, warn
from watcher.config import Settings, load
from watcher.domain import Source, Stamp
from watcher.exits import CONFIG, IO, OK, UNAVAILABLE
from watcher.health import JOURNAL, StateDir
from watcher.journal import Journal

Configured = Callable[..., Settings]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """Settings with one hot folder and the fake engine; the folder gets `own` settings."""
    write_card(tmp_path / "cards", "fake")

    def of(*, profile: dict[str, Any] | None = None, **own: Any) -> Settings:
        folder = {"path": "hot", "output": "out", **own}
        raw = {
            "folders": {"in": folder},
            "state_dir": "state",
            "profiles": {"portrait": {"model": "fake", "device": "cpu", **(profile or {})}},
            "models": {"cards": "cards", "cache": "cache"},
        }
        file = tmp_path / "hotmatte.yaml"
        file.write_text(yaml.safe_dump(raw))
        for name in ("hot", "out", "state"):
            (tmp_path / name).mkdir(exist_ok=True)
        return load(file)

    return of


def failures(findings: list[Finding]) -> list[str]:
    return [finding.words for finding in findings if finding.verdict is Verdict.FAIL]


def warnings(findings: list[Finding]) -> list[str]:
    return [finding.words for finding in findings if finding.verdict is Verdict.WARN]


def look(settings: Settings) -> list[Finding]:
    folder = settings.folders["in"]
    return doctor_places.hot_folder("in", folder) + doctor_places.results("in", folder)


# --- The whole -----------------------------------------------------------------------------


def test_a_machine_that_is_fine_exits_with_0_and_nothing_is_left_behind(
    configured: Configured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = configured()
    before = sorted(tmp_path.rglob("*"))
    assert doctor.run(Namespace(json=False, timeout=10.0), settings) == OK
    said = capsys.readouterr().out
    assert "FAIL" not in said
    assert "in.output" in said
    assert "does not run" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_json_holds_every_finding_with_its_remedy(
    configured: Configured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configured()
    (tmp_path / "hot").rmdir()
    status = cli.main(["doctor", "--json", "--config", str(tmp_path / "hotmatte.yaml")])
    findings = json.loads(capsys.readouterr().out)
    assert status == IO
    (failed,) = [finding for finding in findings if finding["verdict"] == "FAIL"]
    assert failed["subject"] == "in"
    assert "is not there" in failed["words"]
    assert failed["remedy"]


def test_a_wrong_configuration_is_what_doctor_says_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hotmatte.yaml"
    file.write_text("folders: {}\n")
    assert cli.main(["doctor", "--config", str(file)]) == CONFIG
    assert "hotmatte.yaml:1: folders" in capsys.readouterr().err


def test_what_keeps_run_from_starting_decides_the_exit_status() -> None:
    io, engine = fail("a", "x", "y"), fail("b", "x", "y", status=UNAVAILABLE)
    assert exit_of([ok("a", "x"), warn("b", "x", "y")]) == OK
    assert exit_of([io, engine]) == UNAVAILABLE
    assert exit_of([io, engine, fail("c", "x", "y", status=CONFIG)]) == CONFIG


def test_a_name_cannot_forge_a_finding() -> None:
    assert len(fail("a\nok", "b\nok    c", "d\x1b[2J").lines().splitlines()) == 2


# --- Folders -------------------------------------------------------------------------------


def test_a_folder_that_hangs_does_not_answer_and_the_others_do(configured: Configured) -> None:
    dead = threading.Event()

    def hang() -> list[Finding]:
        dead.wait(30.0)
        return []

    try:
        (finding,) = answered("nas", hang, timeout=0.05)
    finally:
        dead.set()
    assert finding.verdict is Verdict.FAIL
    assert "does not answer" in finding.words
    assert failures(look(configured())) == []


def test_a_folder_that_breaks_is_a_finding_too() -> None:
    def stale() -> list[Finding]:
        raise OSError(errno.ESTALE, "Stale file handle")

    assert "Stale file handle" in failures(answered("nas", stale, timeout=5.0))[0]


def test_an_absent_hot_folder_fails_unless_it_will_be_made(configured: Configured, tmp_path: Path) -> None:
    settings = configured()
    (tmp_path / "hot").rmdir()
    assert "is not there" in failures(look(settings))[0]
    assert failures(look(configured(path="other", create=True))) == []


def test_a_file_in_place_of_a_folder_fails(configured: Configured, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    assert "is not a folder" in failures(look(configured(path="photo.jpg")))[0]
    assert "cannot be written" in failures(look(configured(output="photo.jpg")))[0]


def test_an_output_that_cannot_be_written_fails_with_the_reason(configured: Configured) -> None:
    # /proc refuses new files to everybody, root included.
    (said,) = failures(look(configured(output="/proc")))[:1]
    assert said.startswith("/proc cannot be written")


def test_a_place_that_can_be_made_is_fine_and_one_that_cannot_fails(configured: Configured) -> None:
    assert failures(look(configured(output="new/deep"))) == []
    assert any(
        "cannot be made in /proc" in words for words in failures(look(configured(quarantine="/proc/x/y")))
    )


def test_the_observer_is_named_and_so_is_a_native_one_on_a_share(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = configured()
    assert "native events" in look(settings)[0].words
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"40 22 0:50 / {tmp_path}/hot rw - cifs //nas/in rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", mountinfo)
    assert "(cifs), observed by polling every 5 s" in look(settings)[0].words
    assert "does not tell what others write" in warnings(look(configured(observer="native")))[0]


def test_an_archive_on_another_file_system_is_a_warning(
    configured: Configured, real_part: Callable[..., None], tmp_path: Path
) -> None:
    other = Path("/dev/shm")
    differs = other.is_dir() and other.stat().st_dev != tmp_path.stat().st_dev
    real_part("a second file system", differs, "/dev/shm lies on the same one")
    archive = other / f"hotmatte-test-{os.getpid()}"
    said = warnings(look(configured(source="archive", archive=str(archive))))
    assert said == ["the archive is on another file system: photos are copied, checked and then deleted"]
    assert warnings(look(configured(source="archive", archive="archive"))) == []


@pytest.mark.parametrize(("offset", "word"), [(3600.0, "ahead"), (-3600.0, "behind")])
def test_a_file_server_with_another_clock_is_a_warning(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, offset: float, word: str
) -> None:
    really = time.time
    # Ours is wrong instead of the server's: the difference is the same.
    monkeypatch.setattr(doctor_places.time, "time", lambda: really() - offset)
    (said,) = warnings(look(configured()))
    assert f"3600 s {word}" in said


def test_a_journal_of_a_newer_version_is_what_keeps_the_daemon_from_starting(configured: Configured) -> None:
    settings = configured()
    assert doctor_journal.journal(settings) == []
    with Journal(settings.state_dir / JOURNAL) as journal:
        assert [finding.verdict for finding in doctor_journal.journal(settings)] == [Verdict.OK]
        with journal.writing() as db:
            db.execute("PRAGMA user_version = 99")
    (finding,) = doctor_journal.journal(settings)
    assert (finding.verdict, finding.status) == (Verdict.FAIL, CONFIG)
    assert "written by a newer hotmatte" in finding.words


def test_a_hot_folder_that_is_another_one_than_before_is_no_fine_folder(configured: Configured) -> None:
    settings = configured()
    with Journal(settings.state_dir / JOURNAL) as journal:
        journal.remember_folder("in", "nfs4 nas:/studio /hot")
        assert exit_of(doctor_journal.journal(settings)) == OK, "nothing is known of it: the daemon takes it"
        journal.admit(Source("in", "a.jpg", Stamp(1, 1)))
    (_, finding) = doctor_journal.journal(settings)
    assert (finding.subject, finding.verdict, finding.status) == ("in", Verdict.FAIL, IO)
    assert "is another folder than before" in finding.words
    assert "before nfs4 nas:/studio /hot" in finding.words
    # Another name would make all photos new ones.
    assert "`hotmatte accept in`" in str(finding.remedy)


def test_a_state_folder_in_memory_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"40 22 0:50 / {tmp_path} rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", mountinfo)
    assert any("is in memory (tmpfs)" in words for words in warnings(doctor_places.state(tmp_path)))


@pytest.mark.parametrize(
    ("blocks", "inodes", "verdict"),
    [
        (10_000_000, 1_000_000, Verdict.OK),
        (100_000, 1_000_000, Verdict.WARN),
        (100, 1_000_000, Verdict.FAIL),
        (10_000_000, 500, Verdict.WARN),
        (10_000_000, 3, Verdict.FAIL),
    ],
)
def test_little_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, inodes: int, verdict: Verdict
) -> None:
    status = os.statvfs_result((4096, 4096, blocks, blocks, blocks, 2_000_000, inodes, inodes, 0, 255))
    monkeypatch.setattr(doctor_places.os, "statvfs", lambda _: status)
    (finding,) = doctor_places.room("out", tmp_path / "not" / "there")
    assert finding.verdict is verdict


def test_inotify_limits_that_are_too_low_come_with_the_sysctl(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, limits = configured(), tmp_path / "inotify"
    limits.mkdir()
    (limits / "max_user_watches").write_text("1001\n")
    (limits / "max_user_instances").write_text("128\n")
    monkeypatch.setattr(doctor_places, "LIMITS", limits)
    assert warnings(doctor_places.inotify(settings.folders, budget=5.0)) == []
    for name in ("a", "a/b", ".hidden", "out"):
        (tmp_path / "hot" / name).mkdir()
    findings = doctor_places.inotify(settings.folders, budget=5.0)
    # The hidden one is never watched.
    assert warnings(findings) == ["fs.inotify.max_user_watches is 1001, for 4 folders to watch"]
    assert "sysctl fs.inotify.max_user_watches=524288" in findings[0].remedy


def test_a_running_daemon_is_told(configured: Configured) -> None:
    settings = configured()
    state = StateDir(settings.state_dir)
    try:
        assert doctor.daemon(settings).words == f"runs as process {os.getpid()}"
    finally:
        state.release()


@pytest.fixture
def mask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_a_umask_that_hides_results_is_a_warning(mask: Callable[[int], int]) -> None:
    mask(0o077)
    assert any("cannot read the results" in words for words in warnings(doctor.machine()))
    mask(0o002)
    assert not any("cannot read the results" in words for words in warnings(doctor.machine()))


# --- Engines -------------------------------------------------------------------------------


def test_a_model_without_a_card_fails_as_configuration(configured: Configured) -> None:
    (finding,) = doctor_engines.engines(configured(profile={"model": "nosuch"}))
    assert (finding.verdict, finding.status) == (Verdict.FAIL, CONFIG)
    assert "nosuch" in finding.words


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "cannot be started: No such file"),
        ("#!/bin/sh\nexit 3\n", "gave no answer and exited with status 3"),
        ('#!/bin/sh\necho \'{"error": "ImportError: libx.so"}\'\n', "ImportError: libx.so"),
    ],
)
def test_an_interpreter_that_does_not_work_fails(
    configured: Configured, tmp_path: Path, script: str | None, words: str
) -> None:
    python = tmp_path / "python"
    if script:
        python.write_text(script)
        python.chmod(0o755)
    write_card(tmp_path / "cards", "other", python=str(python))
    findings = doctor_engines.engines(configured(profile={"model": "other"}))
    (finding,) = [finding for finding in findings if finding.verdict is Verdict.FAIL]
    assert words in finding.words
    assert finding.status == UNAVAILABLE


def test_onnx_runtime_is_asked_in_another_process(configured: Configured, tmp_path: Path) -> None:
    write_card(tmp_path / "cards", "graph", engine="onnx")
    configured(profile={"model": "graph"})
    code = "import sys; from watcher import cli; cli.main(sys.argv[1:]); print('onnxruntime' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--config", str(tmp_path / "hotmatte.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=CHECKOUT,
        check=True,
    )
    assert "with onnxruntime 1." in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("offline", "content", "verdict"),
    [(False, None, Verdict.WARN), (True, None, Verdict.FAIL), (False, b"half", Verdict.FAIL)],
)
def test_weights_that_are_missing_or_damaged_are_told(
    configured: Configured, tmp_path: Path, offline: bool, content: bytes | None, verdict: Verdict
) -> None:
    weights = {
        "file": "w.onnx",
        "sha256": "0" * 64,
        "size": 4,
        "sources": [{"kind": "url", "url": "http://127.0.0.1:9/w.onnx"}],
    }
    write_card(tmp_path / "cards", "heavy", weights=weights)
    settings = configured(profile={"model": "heavy"})
    if offline:
        settings = settings.model_copy(
            update={"models": settings.models.model_copy(update={"offline": True})}
        )
    if content is not None:
        (tmp_path / "cache" / "heavy").mkdir(parents=True)
        (tmp_path / "cache" / "heavy" / "w.onnx").write_bytes(content)
    findings = doctor_engines.engines(settings)
    assert findings[0].verdict is verdict
    assert "hotmatte models pull heavy" in findings[0].remedy


@pytest.mark.parametrize(
    ("device", "gpus", "cuda", "verdict"),
    [
        ("auto", [], False, Verdict.OK),
        ("auto", [doctor_engines.Gpu("H200")], True, Verdict.OK),
        ("auto", [doctor_engines.Gpu("H200")], False, Verdict.WARN),
        ("cuda", [], True, Verdict.FAIL),
        ("cuda:1", [doctor_engines.Gpu("H200")], False, Verdict.FAIL),
        ("cuda", [doctor_engines.Gpu("H200")], True, Verdict.OK),
    ],
)
def test_a_gpu_that_is_asked_for_must_be_usable(
    configured: Configured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpus: list[doctor_engines.Gpu],
    cuda: bool,
    verdict: Verdict,
) -> None:
    write_card(tmp_path / "cards", "graph", engine="onnx")
    settings = configured(profile={"model": "graph", "device": device})
    monkeypatch.setattr(doctor_engines, "graphics_cards", lambda: gpus)
    monkeypatch.setattr(
        doctor_engines, "_ask", lambda *_: {"python": "3.11", "version": "1.20", "cuda": cuda}
    )
    assert doctor_engines.engines(settings)[-1].verdict is verdict


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an `nvidia-smi` of our own on PATH: a shell script."""

    def answer(script: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return answer


def test_graphics_cards_are_those_the_driver_names(smi: Callable[[str], None]) -> None:
    smi("echo 'NVIDIA H200, 9.0, 570.86.15'")
    assert doctor_engines.graphics_cards() == [doctor_engines.Gpu("NVIDIA H200", "9.0", "570.86.15")]
    smi(
        "case $1 in *compute_cap*) echo 'Field \"compute_cap\" is not valid'; exit 2;; *) echo 'Tesla T4';; esac"
    )
    assert doctor_engines.graphics_cards() == [doctor_engines.Gpu("Tesla T4")]
    smi("echo 'NVIDIA-SMI has failed'; exit 9")
    assert doctor_engines.graphics_cards() == []


def test_for_bshm_it_is_said_which_tensorflow_suits_the_gpu(
    configured: Configured, tmp_path: Path, smi: Callable[[str], None]
) -> None:
    """An interpreter that says it has TensorFlow 1.15.5, on a GPU that no build of it knows."""
    python = tmp_path / "python37"
    said = '{"python": "3.7.16", "version": "1.15.5", "cuda": true}'
    python.write_text(f"#!/bin/sh\necho '{said}'\n")
    python.chmod(0o755)
    write_card(tmp_path / "cards", "studio", engine="bshm", python=str(python))
    settings = configured(profile={"model": "studio", "device": "cuda"})
    smi("echo 'NVIDIA H200, 9.0, 570.86.15'")
    [finding] = [f for f in doctor_engines.engines(settings) if "does not know this GPU" in f.words]
    assert finding.verdict is Verdict.WARN
    assert "bshm-onnx" in finding.remedy
    smi("echo 'Tesla T4, 7.5, 450.80.02'")
    assert any("tensorflow-gpu 1.15.5" in f.words for f in doctor_engines.engines(settings))
