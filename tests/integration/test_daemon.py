"""The daemon from outside: a real process, real folders, the journal as its commands read it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from daemonrig import check_set, drop, jpeg, sha256, write_card

from watcher.domain import JobState


def only_sidecar(rig, name="in"):
    [(path, content)] = rig.sidecars(name).items()
    check_set(path, content, rig.out(name))
    return content


def test_a_photo_becomes_a_whole_set_of_results_and_stays(rig):
    daemon = rig()
    daemon.start()
    content = jpeg(1)
    drop(daemon.hot() / "shoot" / "a.jpg", content)
    daemon.wait_done("shoot/a.jpg")
    sidecar = only_sidecar(daemon)
    assert sidecar["source"]["sha256"] == sha256(content)
    assert sidecar["source"]["path"] == "shoot/a.jpg"
    assert {item["kind"] for item in sidecar["outputs"]} == {"cutout", "matte"}
    assert sidecar["attempts"] == 1
    assert {"decode", "infer", "refine", "encode"} <= set(sidecar["timings_ms"])
    assert (daemon.hot() / "shoot" / "a.jpg").read_bytes() == content
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


def test_who_waits_for_ready_finds_in_the_status_what_is_ready(rig, tmp_path, real_part):
    real_part("systemd-python", importlib.util.find_spec("systemd.daemon"), "pip install 'hotmatte[systemd]'")
    daemon = rig()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(120)
        for _ in range(2):  # the second over the status that the first left
            daemon.start(ready=False, NOTIFY_SOCKET=str(tmp_path / "notify"))
            while b"READY=1" not in systemd.recv(4096):
                pass
            daemon.signal(signal.SIGSTOP)  # what it says after it does not count
            assert daemon.is_ready()
            assert daemon.status()["folders"]["in"]["state"] == "watching"
            daemon.signal(signal.SIGCONT)
            assert daemon.stop() == 0


def test_a_second_start_does_nothing_again(rig):
    daemon = rig()
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    before = only_sidecar(daemon)
    daemon.stop()
    daemon.start()
    drop(daemon.hot() / "b.jpg", jpeg(2))
    daemon.wait_done("b.jpg")
    assert daemon.sidecars()[daemon.out() / "a.matte.json"] == before


def test_a_photo_that_changes_is_done_anew_and_its_results_replaced_as_a_whole(rig):
    daemon = rig()
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    newer = jpeg(2, width=40, height=30)
    drop(daemon.hot() / "a.jpg", newer)
    daemon.wait(lambda: daemon.record("a.jpg").job.source.stamp.size == len(newer), timeout=20)
    daemon.wait_done("a.jpg")
    assert only_sidecar(daemon)["source"]["sha256"] == sha256(newer)
    assert {path.name for path in daemon.out().iterdir()} == {"a.cutout.png", "a.matte.png", "a.matte.json"}


def test_sources_are_archived_or_deleted_only_when_their_results_are_safe(rig):
    daemon = rig(folders={"keep": {"source": "archive"}, "drop": {"source": "delete"}})
    daemon.start()
    for name in ("keep", "drop"):
        drop(daemon.hot(name) / "sub" / "a.jpg", jpeg(1))
        daemon.wait(lambda name=name: not (daemon.hot(name) / "sub" / "a.jpg").exists(), timeout=20)
        only_sidecar(daemon, name)
    assert (daemon.archive("keep") / "sub" / "a.jpg").read_bytes() == jpeg(1)
    # The same photo again is new work, and overwrites nothing in the archive.
    drop(daemon.hot("keep") / "sub" / "a.jpg", jpeg(1))
    daemon.wait(lambda: len(list((daemon.archive("keep") / "sub").iterdir())) == 2, timeout=20)


def test_two_photos_of_one_name_keep_both_results(rig):
    daemon = rig()
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    png = cv2.imencode(".png", np.full((9, 9, 3), 77, np.uint8))[1]
    drop(daemon.hot() / "a.png", png.tobytes())
    daemon.wait_done("a.png")
    assert {content["source"]["path"] for content in daemon.sidecars().values()} == {"a.jpg", "a.png"}
    assert {path.name for path in daemon.sidecars()} == {"a.matte.json", "a_2.matte.json"}


def test_reload_applies_new_folders_and_loses_no_job(rig):
    daemon = rig(folders={"in": {}}, profile={}, card="slow", cards=slow_cards(rig))
    daemon.start()
    for i in range(12):
        drop(daemon.hot() / f"{i}.jpg", jpeg(i))
    daemon.wait(lambda: daemon.counts().get("running"), timeout=10)
    daemon.settings["folders"]["more"] = daemon._folder("more", {})
    daemon.configure()
    answer = daemon.hotmatte("reload")
    assert answer.returncode == 0, answer.stderr
    assert "2 folders" in answer.stdout
    drop(daemon.hot("more") / "new.jpg", jpeg(99))
    daemon.wait_done("new.jpg", "more", timeout=30)
    daemon.wait(lambda: daemon.counts() == {"done": 13}, timeout=30)
    # Draining charged nobody: each was claimed once.
    with daemon.journal() as journal:
        assert {record.job.attempts for record in journal.records(JobState.DONE)} == {1}


def slow_cards(rig, latency_s: float = 0.2) -> Path:
    folder = rig("cards").root
    write_card(folder, "slow", latency_s=latency_s, max_batch=1, max_batch_cpu=1)
    return folder


def test_results_and_archived_photos_are_no_work_where_they_lay_before_a_reload_either(rig):
    inside = {"output": "hot/in/mattes", "archive": "hot/in/_done", "source": "archive"}
    daemon = rig(card="tiny", folders={"in": inside})
    daemon.start()
    drop(daemon.hot() / "shoot" / "a.jpg", jpeg(1))
    daemon.wait(lambda: (daemon.archive() / "shoot" / "a.jpg").exists(), timeout=20)
    before = {path: path.read_bytes() for path in daemon.hot().rglob("*") if path.is_file()}
    assert len(before) == 4

    daemon.settings["folders"]["in"].update(output="hot/in/results", archive="hot/in/_archive")
    # The worst that could become of them.
    daemon.settings["folders"]["in"]["source"] = "delete"
    daemon.configure()
    assert daemon.hotmatte("reload").returncode == 0
    drop(daemon.hot() / "b.jpg", jpeg(2))
    daemon.wait_done("b.jpg")
    daemon.wait(lambda: not (daemon.hot() / "b.jpg").exists(), timeout=20)
    assert daemon.hotmatte("rescan").returncode == 0
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.stop() == 0
    assert daemon.counts() == {"done": 2}
    assert {path: path.read_bytes() for path in before} == before
    assert "mattes is left out: it was the output folder before" in daemon.log()
    assert "_done is left out: it was the archive folder before" in daemon.log()

    # Whoever means it says so.
    daemon.settings["folders"]["in"]["source"] = "leave"
    daemon.configure()
    assert daemon.hotmatte("accept", "in").returncode == 0
    daemon.start()
    daemon.wait_done("_done/shoot/a.jpg")


def test_a_folder_that_is_away_says_so_although_it_is_paused_by_hand(rig):
    daemon = rig(card="tiny", folders={"in": {"create": False}})
    daemon.start()
    assert daemon.hotmatte("pause", "in").returncode == 0
    daemon.wait(lambda: "cannot be reached" in daemon.hotmatte("status").stdout, timeout=30, every=0.5)
    shown = daemon.hotmatte("status").stdout
    assert "in: offline" in shown and "Also paused by hand" in shown and "`hotmatte resume in`" in shown
    daemon.hot().mkdir(parents=True)
    daemon.wait(lambda: daemon.status()["folders"]["in"]["state"] == "paused", timeout=30)
    assert "cannot be reached" not in daemon.hotmatte("status").stdout


def test_a_broken_configuration_is_refused_and_the_old_one_stays_in_force(rig):
    daemon = rig()
    daemon.start()
    daemon.config.write_text(daemon.config.read_text() + "typo: true\n")
    answer = daemon.hotmatte("reload")
    assert answer.returncode == 78
    assert "typo: unknown setting" in answer.stderr
    daemon.signal(signal.SIGHUP)
    daemon.wait(lambda: daemon.status().get("refused"), timeout=10)
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    daemon.configure()
    answer = daemon.hotmatte("reload")
    assert answer.returncode == 0
    assert not daemon.status()["refused"]


def test_a_reload_without_an_answer_in_time_says_so_and_fails(rig):
    daemon = rig()
    daemon.start()
    generation = daemon.status()["generation"]
    daemon.signal(signal.SIGSTOP)
    answer = daemon.hotmatte("reload", "--timeout", "0.2")
    daemon.signal(signal.SIGCONT)
    assert answer.returncode == 75
    assert "has not answered within 0.2 s" in answer.stderr and "hotmatte status" in answer.stderr
    # It was asked all the same.
    daemon.wait(lambda: daemon.status()["generation"] == generation + 1, timeout=20)


def test_stopping_drains_what_runs_and_keeps_what_waits(rig):
    daemon = rig(card="slow", cards=slow_cards(rig), limits={"max_in_flight": 2})
    daemon.start()
    for i in range(10):
        drop(daemon.hot() / f"{i}.jpg", jpeg(i))
    daemon.wait(lambda: daemon.counts().get("done"), timeout=20)
    assert daemon.stop() == 0
    counts = daemon.counts()
    assert "running" not in counts
    assert counts.get("queued", 0) + counts["done"] == 10
    assert len(daemon.sidecars()) == counts["done"]
    daemon.start()
    daemon.wait(lambda: daemon.counts() == {"done": 10}, timeout=20)


def test_a_drain_that_takes_too_long_hands_its_jobs_back_uncharged(rig):
    daemon = rig(card="slow", cards=slow_cards(rig, latency_s=20.0), limits={"drain_timeout_s": 0.2})
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait(lambda: daemon.counts().get("running"), timeout=20)
    assert daemon.stop() == 0
    # Not waited for: it would have been done.
    assert daemon.counts() == {"queued": 1}
    assert daemon.record("a.jpg").job.attempts == 0


def test_a_second_signal_leaves_at_once_and_loses_nothing(rig):
    daemon = rig(card="slow", cards=slow_cards(rig, 5.0))
    daemon.start()
    for i in range(10):
        drop(daemon.hot() / f"{i}.jpg", jpeg(i))
    daemon.wait(lambda: daemon.counts().get("running"), timeout=20)
    daemon.signal(signal.SIGTERM)
    daemon.wait(lambda: "stopping" in daemon.log(), timeout=20)
    daemon.signal(signal.SIGTERM)
    daemon.wait_exit(timeout=20)
    assert "leaving at once" in daemon.log()
    slow_cards(rig, 0.0)
    daemon.start()
    daemon.wait(lambda: daemon.counts() == {"done": 10}, timeout=20)


def test_a_second_daemon_on_one_state_folder_is_refused(rig):
    daemon = rig()
    daemon.start()
    answer = daemon.hotmatte("run")
    assert answer.returncode == 78
    assert f"process {daemon.pid}" in answer.stderr
    assert daemon.is_alive()


def test_a_folder_that_goes_away_takes_nothing_with_it_and_comes_back(rig):
    daemon = rig(folders={"in": {"create": False}, "other": {}})
    daemon.hot().mkdir(parents=True)
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    aside = daemon.root / "aside"
    daemon.hot().rename(aside)
    daemon.wait(lambda: daemon.status()["folders"]["in"]["state"] == "offline", timeout=20)
    answer = daemon.hotmatte("status")
    assert "OFFLINE" in answer.stdout
    drop(daemon.hot("other") / "b.jpg", jpeg(2))
    daemon.wait_done("b.jpg", "other")
    drop(aside / "c.jpg", jpeg(3))
    aside.rename(daemon.hot())
    daemon.wait_done("c.jpg", timeout=30)
    assert daemon.record("a.jpg").job.attempts == 1
    assert daemon.counts() == {"done": 3}


def test_what_failed_is_listed_with_its_reason_and_can_be_tried_again(rig):
    daemon = rig()
    daemon.start()
    drop(daemon.hot() / "notes.jpg", b"these are not the photos you are looking for")
    record = daemon.wait_quarantined("notes.jpg")
    report = json.loads((daemon.out() / "notes.error.json").read_bytes())
    assert report["reason"]
    assert report["remedy"]
    listed = json.loads(daemon.hotmatte("failed", "--json").stdout)
    assert [item["file"] for item in listed] == ["notes.jpg"]
    assert report["reason"] in daemon.hotmatte("failed").stdout
    assert daemon.hotmatte("retry", "in/nobody.jpg").returncode == 65
    assert daemon.hotmatte("retry", "²").returncode == 65  # a digit, and no number
    assert "queued again" in daemon.hotmatte("retry", str(record.job.id)).stdout
    daemon.wait(lambda: daemon.record("notes.jpg").job.fence == 2, timeout=10)
    daemon.wait_quarantined("notes.jpg")
    # Mended: the same name with a photo in it is done, and its report is withdrawn.
    drop(daemon.hot() / "notes.jpg", jpeg(5))
    daemon.wait_done("notes.jpg")
    assert daemon.reports() == {}
    assert daemon.hotmatte("failed").stdout == "nothing failed\n"
    told = daemon.hotmatte("status").stdout
    assert "0 files at the last full listing" in told
    assert "; since then the observer tells" in told, "or it would seem to deny what is done"
    assert "1 done, 0 in quarantine" in told, "the status tells what the list of failures tells"


def test_a_retry_for_a_hot_folder_that_is_not_there_any_more_says_that_it_waits(rig):
    daemon = rig(card="tiny")
    daemon.start()
    drop(daemon.hot() / "bad.jpg", b"no photo at all")
    daemon.wait_quarantined("bad.jpg")
    assert daemon.stop() == 0
    daemon.settings["folders"] = {"other": daemon.settings["folders"]["in"]}
    daemon.configure()
    said = daemon.hotmatte("retry", "--all")
    assert said.returncode == 0 and "queued again: " in said.stdout
    assert "no hot folder is called 'in' any more: its photos wait until one is" in said.stderr


def test_the_report_of_a_photo_that_is_renamed_or_deleted_goes_with_it(rig):
    daemon = rig()
    daemon.start()
    for name in ("cut.jpg", "notes.jpg", "other.jpg"):
        drop(daemon.hot() / name, f"these are not the photos of {name}".encode())
        daemon.wait_quarantined(name)
    # Somebody keeps one for himself, another is no longer about the photo that goes.
    copy = daemon.out() / "copy.error.json"
    copy.write_bytes((daemon.out() / "cut.error.json").read_bytes())
    strange = (daemon.out() / "other.error.json").read_text().replace('"size": ', '"size": 1')
    (daemon.out() / "other.error.json").write_text(strange)
    (daemon.hot() / "cut.jpg").rename(daemon.hot() / "cut.txt")
    (daemon.hot() / "notes.jpg").unlink()
    (daemon.hot() / "other.jpg").unlink()
    daemon.wait(lambda: daemon.record("other.jpg").gone, timeout=10)
    daemon.wait(lambda: not (daemon.out() / "notes.error.json").exists(), timeout=10)
    assert [path.name for path in daemon.reports()] == ["copy.error.json", "other.error.json"]
    # Without a daemon as well: the next one finds out.
    drop(daemon.hot() / "late.jpg", b"nor are these")
    daemon.wait_quarantined("late.jpg")
    daemon.stop()
    (daemon.hot() / "late.jpg").unlink()
    daemon.start()
    assert [path.name for path in daemon.reports()] == ["copy.error.json", "other.error.json"]


def test_a_reload_that_comes_while_it_is_starting_is_heard_when_it_can_be(rig):
    daemon = rig()
    text = daemon.config.read_text()
    daemon.config.rename(daemon.root / "aside.yaml")
    os.mkfifo(daemon.config)
    daemon.start(ready=False)
    with daemon.config.open("w") as pipe:  # waits until somebody reads: it is starting
        daemon.signal(signal.SIGHUP)
        (daemon.root / "aside.yaml").replace(daemon.config)
        pipe.write(text)
    daemon.wait(lambda: daemon.is_ready() and daemon.status()["generation"] == 2, timeout=30)


def test_submit_is_durable_before_it_returns_even_without_a_daemon(rig, tmp_path):
    daemon = rig()
    photo = tmp_path / "mine.jpg"
    photo.write_bytes(jpeg(7))
    (tmp_path / "notes.txt").write_text("no")
    for _ in range(2):
        answer = daemon.hotmatte("submit", str(photo))
        assert answer.returncode == 0, answer.stderr
    refused = daemon.hotmatte("submit", str(tmp_path / "notes.txt"))
    assert refused.returncode == 65
    assert "nothing was copied" in refused.stderr
    (daemon.root / "empty.jpg").touch()
    refused = daemon.hotmatte("submit", str(daemon.root / "empty.jpg"))
    assert (refused.returncode, refused.stdout) == (65, "")
    assert "empty.jpg: it is empty; nothing was copied" in refused.stderr
    assert not (daemon.hot() / "empty.jpg").exists()
    assert daemon.counts() == {"queued": 2}
    assert sorted(path.name for path in daemon.hot().iterdir()) == ["mine.jpg", "mine_2.jpg"]
    daemon.start()
    daemon.wait(lambda: daemon.counts() == {"done": 2}, timeout=20)


def test_status_tells_people_and_programs_the_same(rig):
    daemon = rig()
    assert daemon.hotmatte("status").returncode == 69
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    facts = json.loads(daemon.hotmatte("status", "--json").stdout)
    assert facts["running_pid"] == daemon.pid
    assert facts["counts"]["in"]["done"] == 1
    assert facts["folders"]["in"]["observer"] == "native"
    assert facts["engines"][0]["model"] == "fake"
    words = daemon.hotmatte("status").stdout
    assert "1 done" in words
    assert str(daemon.hot()) in words


@pytest.mark.parametrize("kind", ["composite"])
def test_a_composite_is_one_of_the_outputs_a_profile_can_have(rig, kind):
    outputs = [{"kind": kind, "suffix": ".web.jpg", "background": "#3366cc"}]
    daemon = rig(profile={"outputs": outputs})
    daemon.start()
    drop(daemon.hot() / "dark.jpg", jpeg(0, width=64, height=64))
    daemon.wait_done("dark.jpg")
    only_sidecar(daemon)
    pixels = cv2.imread(str(daemon.out() / "dark.web.jpg"))
    # The fake engine's alpha is luminance: black is background.
    assert np.abs(pixels[8, 8].astype(int) - [0xCC, 0x66, 0x33]).max() < 12


def test_out_of_memory_ends_in_a_smaller_proxy_and_a_warning_never_in_a_dead_daemon(rig):
    cards = rig("cards").root
    write_card(
        cards,
        "small",
        input={"short_side": None, "multiple": 1, "max_side": 4000},
        options={"most_pixels": 2_100_000},
        max_batch_cpu=2,
        max_delay_ms=200,
    )
    daemon = rig(card="small", cards=cards)
    daemon.start()
    for name in ("a.jpg", "b.jpg"):
        drop(daemon.hot() / name, jpeg(len(name), width=3000, height=2000))
    for name in ("a.jpg", "b.jpg"):
        daemon.wait_done(name, timeout=60)
    for sidecar in daemon.sidecars().values():
        assert "ran out of memory at 3000 x 2000" in sidecar["warnings"][0]
        assert (sidecar["source"]["width"], sidecar["outputs"][0]["width"]) == (3000, 3000)
        assert sidecar["attempts"] == 1
    assert daemon.status()["engines"][0]["restarts"] == 0


def test_memory_that_never_suffices_ends_in_quarantine(rig):
    cards = rig("cards").root
    write_card(cards, "none", options={"most_pixels": 100}, max_batch_cpu=1)
    daemon = rig(card="none", cards=cards)
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    record = daemon.wait_quarantined("a.jpg", timeout=60)
    assert record.job.attempts == 3
    [report] = daemon.reports().values()
    assert "out of memory" in report["reason"]
    assert report["remedy"]


def test_the_real_model_cuts_out_a_real_person(rig, photos):
    daemon = rig(card="modnet", models={})
    daemon.start()
    shutil.copy(photos / "astronaut.png", daemon.hot())
    daemon.wait_done("astronaut.png", timeout=60)
    sidecar = only_sidecar(daemon)
    assert 0.4 < sidecar["coverage"] < 0.65
    assert sidecar["review"]["flags"] == []
    cutout = cv2.imread(str(daemon.out() / "astronaut.cutout.png"), cv2.IMREAD_UNCHANGED)
    source = cv2.imread(str(photos / "astronaut.png"))
    alpha = cutout[..., 3]
    assert alpha[200, 230] == 255  # her face
    assert alpha[100, 20] == 0  # the flag
    assert np.array_equal(cutout[alpha == 255][:, :3], source[alpha == 255])


def test_a_status_that_is_watched_through_a_pipe_is_said_again_and_again(rig):
    daemon = rig()
    # Also where the tests run in the background of a shell, which has its children ignore Ctrl-C.
    command = ["env", "--default-signal=INT", *daemon.command("status", "--watch")]
    with subprocess.Popen(command, env=daemon.environment(), stdout=subprocess.PIPE, text=True) as watched:
        said = ""
        while said.count("hotmatte is not running") < 2:
            said += watched.stdout.readline()
        watched.send_signal(signal.SIGINT)
    assert watched.returncode == 130
    assert "\x1b" not in said


def test_no_ml_framework_is_in_the_daemon(rig):
    daemon = rig()
    daemon.start()
    mapped = Path(f"/proc/{daemon.pid}/maps").read_text()
    assert "onnxruntime" not in mapped
    assert "_mnncengine" not in mapped
    assert "tensorflow" not in mapped


def test_the_worker_does_not_outlive_the_daemon(rig, eventually):
    daemon = rig()
    daemon.start()
    workers = daemon.workers()
    assert workers
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.child.wait()
    eventually(lambda: not any(worker.is_running() for worker in workers))
