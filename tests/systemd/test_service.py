"""The installed package as a service of a systemd that was really booted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from configured import CARD, QUICK, ROOT, settings
from daemonrig import jpeg
from machine import Machine

pytestmark = pytest.mark.timeout(400)

HOT, OUT = "/srv/hotmatte/hot", "/srv/hotmatte/mattes"
CONFIG = "/etc/hotmatte/hotmatte.yaml"
STATUS = "/var/lib/hotmatte/status.json"
Status = dict[str, Any]


def status(machine: Machine) -> Status:
    snapshot: Status = json.loads(machine.read(STATUS))
    return snapshot


def is_done(machine: Machine, name: str, out: str = OUT) -> bool:
    return machine.exists(f"{out}/{name}.matte.json")


def done_lines(machine: Machine, *matches: str, after: int = 0) -> list[dict[str, Any]]:
    return [entry for entry in machine.entries(*matches, after=after) if entry["MESSAGE"].startswith("done ")]


@pytest.fixture
def stopped(installed: Machine) -> Iterator[Machine]:
    """Stopped, with the plain configuration of the tests, whatever the last one did to it."""
    installed.write("/etc/hotmatte/cards/quick.yaml", CARD.format(name="quick", latency_s=0))
    installed.write("/etc/hotmatte/cards/slow.yaml", CARD.format(name="slow", latency_s=0.7))
    installed.write(CONFIG, settings())
    installed.run("systemctl", "reset-failed", "hotmatte", check=False)
    yield installed
    installed.run("systemctl", "stop", "hotmatte")
    installed.run("sh", "-c", f"rm -rf {HOT}/* {OUT}/*")


@pytest.fixture
def service(stopped: Machine) -> Machine:
    """Running on that configuration."""
    stopped.run("systemctl", "start", "hotmatte")
    return stopped


# --- Start ---------------------------------------------------------------------------------


def test_the_package_brings_a_service_that_starts_at_boot_and_runs_confined(service: Machine) -> None:
    unit = service.show("hotmatte", "UnitFileState", "User", "ActiveState", "StatusText", "NRestarts")
    assert unit["UnitFileState"] == "enabled"
    assert (unit["User"], unit["ActiveState"]) == ("hotmatte", "active")
    assert unit["StatusText"]
    facts = service.read(f"/proc/{service.pid()}/status").decode()
    assert "CapEff:\t0000000000000000" in facts
    assert "NoNewPrivs:\t1" in facts
    assert "Seccomp:\t2" in facts
    # No network but loopback, and that one down: nothing can leave.
    devices = service.read(f"/proc/{service.pid()}/net/dev").decode().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]
    assert service.owner(HOT) == "hotmatte:hotmatte 2775"


def test_start_returns_when_the_engine_is_warm_and_the_folder_listed(stopped: Machine) -> None:
    stopped.write(f"{HOT}/before.jpg", jpeg(1))
    stopped.write(CONFIG, settings(profiles={"portrait": {"model": "slow", "device": "cpu"}}))
    began = stopped.moment()
    stopped.run("systemctl", "start", "hotmatte")
    now = status(stopped)
    assert now["ready"]
    assert now["folders"]["hot"]["state"] == "watching"
    assert now["folders"]["hot"]["files"] == 1
    said = [entry["MESSAGE"].split()[0] for entry in stopped.entries(after=began)]
    order = [said.index(word) for word in ("Starting", "engine", "watching", "Started")]
    assert order == sorted(order)


def test_a_wrong_configuration_fails_once_and_says_where(stopped: Machine) -> None:
    stopped.write(CONFIG, settings(limits={"max_in_flight": "many"}))
    began = stopped.moment()
    assert stopped.run("systemctl", "restart", "hotmatte", check=False).returncode != 0
    unit = stopped.show("hotmatte", "ActiveState", "ExecMainStatus", "NRestarts")
    assert unit == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    assert any("limits.max_in_flight" in entry["MESSAGE"] for entry in stopped.entries(after=began))
    stopped.write(CONFIG, settings())


# --- Reload --------------------------------------------------------------------------------


def test_weights_are_looked_for_before_each_start_and_reload(service: Machine) -> None:
    """A changed configuration, or an upgrade, may need others than those of the boot, and the daemon has no network."""

    def looked() -> int:
        word = "ExecMainStartTimestampMonotonic"
        return int(service.show("hotmatte-weights", word)[word])

    times = [looked()]
    service.run("systemctl", "restart", "hotmatte")
    times.append(looked())
    service.run("systemctl", "reload", "hotmatte")
    times.append(looked())
    killed = service.pid()
    service.run("kill", "-KILL", str(killed))
    service.eventually(lambda: service.pid() not in (0, killed) and service.is_active())
    times.append(looked())
    assert times == sorted(set(times))


def test_reload_returns_when_the_new_configuration_is_in_force(service: Machine) -> None:
    pid = service.pid()
    for number in range(5):
        names = [f"more{n}" for n in range(number + 1)]
        folders = {
            name: {**QUICK, "path": f"/srv/hotmatte/{name}", "output": f"/srv/hotmatte/{name}-out"}
            for name in names
        }
        service.write(f"{HOT}/r{number}.jpg", jpeg(number))
        base = yaml.safe_load(settings())
        service.write(CONFIG, settings(folders={**base["folders"], **folders}))
        service.run("systemctl", "reload", "hotmatte")
        now = status(service)
        assert now["ready"]
        assert set(now["folders"]) == {"hot", *names}
    assert service.pid() == pid
    service.eventually(lambda: all(is_done(service, f"r{number}") for number in range(5)))
    # Once each: a reload interrupts nothing.
    assert len(done_lines(service, f"_PID={pid}")) == 5


def test_reload_of_a_wrong_configuration_fails_and_changes_nothing(service: Machine) -> None:
    before, pid = status(service), service.pid()
    service.write(CONFIG, "folders: 17\n")
    assert service.run("systemctl", "reload", "hotmatte", check=False).returncode != 0
    assert (service.is_active(), service.pid()) == (True, pid)
    assert status(service)["generation"] == before["generation"]
    service.write(f"{HOT}/a.jpg", jpeg(1))
    service.eventually(lambda: is_done(service, "a"))
    service.write(CONFIG, settings())


def cmdline(service: Machine, which: str) -> bytes:
    pid = service.show("hotmatte", which)[which]
    return service.run("cat", f"/proc/{pid}/cmdline", check=False).stdout.encode()


def test_a_stop_during_a_reload_is_no_failure(service: Machine) -> None:
    service.run("kill", "-STOP", str(service.pid()))  # so that the reload lasts
    service.run("systemctl", "reload", "--no-block", "hotmatte")
    service.eventually(lambda: b"hotmatte\0reload" in cmdline(service, "ControlPID"))
    service.run("systemctl", "stop", "hotmatte")
    unit = service.show("hotmatte", "ActiveState", "Result", "ExecMainStatus")
    assert unit == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}


# --- Death ---------------------------------------------------------------------------------


def test_a_daemon_that_hangs_is_killed_by_the_watchdog_and_its_photos_are_done(stopped: Machine) -> None:
    stopped.write(CONFIG, settings(profiles={"portrait": {"model": "slow", "device": "cpu"}}))
    names = [f"w{number}" for number in range(5)]
    with stopped.drop_in("[Service]\nWatchdogSec=2\n"):
        began = stopped.moment()
        stopped.run("systemctl", "restart", "hotmatte")
        for number, name in enumerate(names):
            stopped.write(f"{HOT}/{name}.jpg", jpeg(number))
        stopped.eventually(lambda: status(stopped)["running"])
        hung = stopped.pid()
        stopped.run("kill", "-STOP", str(hung))
        stopped.eventually(lambda: stopped.is_active() and stopped.pid() != hung)
        stopped.eventually(lambda: all(is_done(stopped, name) for name in names))
        said = [entry["MESSAGE"] for entry in stopped.entries(after=began)]
        assert any("Watchdog timeout" in words for words in said)
        assert any(words.startswith("recovered from a crash") for words in said)
        lines = done_lines(stopped, after=began)
        assert sorted(line["HOTMATTE_FILE"] for line in lines) == [f"{name}.jpg" for name in names]
        # Those that were running when it stopped were tried twice.
        assert {"2"} <= {line["HOTMATTE_ATTEMPTS"] for line in lines} <= {"1", "2"}


@contextmanager
def held(machine: Machine, loop: str) -> Iterator[None]:
    """One thread of the daemon sleeps until the block ends, as under a debugger; everything else goes on."""
    # Threads that it has started have its name, too, and higher numbers.
    named = f"grep -lx {loop} /proc/{machine.pid()}/task/*/comm | cut -d/ -f5 | sort -n | head -1"
    thread = machine.out("sh", "-c", named)
    assert thread.isdigit()
    # As a wait that is interrupted goes on: it is held in the sleep that it is in.
    waits = "restart_syscall,futex"
    trace = f"strace -e trace={waits} -e inject={waits}:delay_enter=1000s -p {thread}"
    tracer = machine.out("sh", "-c", f"setsid {trace} </dev/null >/dev/null 2>&1 & echo $!")
    try:
        yield
    finally:
        # What is traced is not gone before its tracer has seen it.
        machine.run("kill", "-KILL", tracer, check=False)


def test_a_daemon_of_which_one_loop_hangs_is_killed_by_the_watchdog_as_well(
    stopped: Machine, real_part: Callable[[str, object, str], None]
) -> None:
    real_part("strace", shutil.which("strace"), "it holds threads")
    with stopped.drop_in("[Service]\nWatchdogSec=4\n"):
        began = stopped.moment()
        stopped.run("systemctl", "restart", "hotmatte")
        hung = stopped.pid()

        def said(words: str) -> bool:
            return any(words in entry["MESSAGE"] for entry in stopped.entries(after=began))

        with held(stopped, "dispatch-hot"):
            stopped.write(f"{HOT}/unseen.jpg", jpeg(1))
            stopped.eventually(lambda: said("Watchdog timeout"), timeout=60, every=0.5)
        assert said("the loop dispatch-hot hangs: it waits for what does not come")
        stopped.eventually(lambda: stopped.is_active() and stopped.pid() != hung)
        stopped.eventually(lambda: is_done(stopped, "unseen"))


def test_a_daemon_that_is_killed_is_back_within_seconds_without_its_old_worker(service: Machine) -> None:
    first = service.pid()
    group = service.show("hotmatte", "ControlGroup")["ControlGroup"]
    procs = f"$(ls -d /sys/fs/cgroup/systemd{group} /sys/fs/cgroup{group} 2>/dev/null | head -1)/cgroup.procs"
    before = set(service.out("sh", "-c", f"cat {procs}").split())
    service.run("kill", "-KILL", str(first))
    service.write(f"{HOT}/a.jpg", jpeg(1))
    service.eventually(lambda: service.pid() not in (0, first) and service.is_active())
    service.eventually(lambda: is_done(service, "a"))
    assert not before & set(service.out("sh", "-c", f"cat {procs}").split())
    assert int(service.show("hotmatte", "NRestarts")["NRestarts"]) == 1


def test_stop_finishes_what_runs_and_leaves_the_rest_for_the_next_start(stopped: Machine) -> None:
    slow = {"portrait": {"model": "slow", "device": "cpu"}}
    stopped.write(CONFIG, settings(profiles=slow, limits={"max_in_flight": 2}))
    stopped.run("systemctl", "restart", "hotmatte")
    began = stopped.moment()
    for number in range(5):
        stopped.write(f"{HOT}/s{number}.jpg", jpeg(number))
    running = stopped.eventually(lambda: status(stopped)["running"])
    stopped.run("systemctl", "stop", "hotmatte")
    unit = stopped.show("hotmatte", "Result", "ExecMainStatus")
    assert unit == {"Result": "success", "ExecMainStatus": "0"}
    for job in running:
        assert is_done(stopped, job["file"].removesuffix(".jpg"))
    assert not all(is_done(stopped, f"s{number}") for number in range(5))
    stopped.run("systemctl", "start", "hotmatte")
    stopped.eventually(lambda: all(is_done(stopped, f"s{number}") for number in range(5)))
    lines = done_lines(stopped, after=began)
    # Once each, at the first try: nothing was lost and nothing was cut short.
    assert sorted(line["HOTMATTE_FILE"] for line in lines) == [f"s{number}.jpg" for number in range(5)]
    assert {line["HOTMATTE_ATTEMPTS"] for line in lines} == {"1"}


# --- The journal ---------------------------------------------------------------------------


def test_the_journal_is_asked_by_fields_and_names_cannot_forge_lines(service: Machine) -> None:
    began = service.moment()
    service.write(f"{HOT}/plain.jpg", jpeg(1))
    service.write(f"{HOT}/two\ndone job=99 file=forged.jpg", jpeg(2))
    service.eventually(lambda: is_done(service, "plain"))
    service.eventually(lambda: len(done_lines(service, "HOTMATTE_FOLDER=hot", after=began)) == 2)
    plain, forged = sorted(
        done_lines(service, "HOTMATTE_FOLDER=hot", after=began), key=lambda line: line["HOTMATTE_FILE"]
    )
    assert plain["HOTMATTE_FILE"] == "plain.jpg"
    assert plain["HOTMATTE_ATTEMPTS"] == "1"
    assert (plain["PRIORITY"], plain["SYSLOG_IDENTIFIER"]) == ("6", "hotmatte")
    assert plain["HOTMATTE_JOB"].isdigit()
    assert float(plain["HOTMATTE_MS"]) > 0
    assert "\n" not in forged["MESSAGE"]
    assert forged["HOTMATTE_FILE"].startswith("two\\n")


# --- A fleet -------------------------------------------------------------------------------


def test_a_fleet_is_set_up_as_the_page_says_and_a_watcher_without_a_network_says_what_it_lacks(
    stopped: Machine, real_part: Callable[[str, object, str], None]
) -> None:
    real_part("Redis", shutil.which("redis-server"), "apt install redis-server")
    folder = {**QUICK, "path": "share://studio/hot", "output": "share://studio/mattes", "where": "fleet"}
    shared = settings(
        folders={"weddings": folder},
        shares={"studio": "/srv/studio"},
        queue={"url": "redis://127.0.0.1:6379/0"},
    )
    stopped.write(CONFIG, shared)
    stopped.run("install", "-d", "-o", "hotmatte", "-g", "hotmatte", "-m", "2775", "/srv/studio")
    secret = "HOTMATTE_QUEUE_URL=redis://:secret@127.0.0.1:6379/0\n"
    stopped.write("/etc/hotmatte/queue.env", secret)
    stopped.run("chown", "root:root", "/etc/hotmatte/queue.env")
    stopped.run("chmod", "600", "/etc/hotmatte/queue.env")
    redis = ("redis-server", "--port", "6379", "--bind", "127.0.0.1", "--requirepass", "secret", "--save", "")
    stopped.run("systemd-run", "--unit=broker", *redis)
    try:
        stopped.run("systemctl", "start", "hotmatte")
        stopped.eventually(lambda: status(stopped)["fleet"][0]["broker_lost"])
        assert "this service may not use any network" in status(stopped)["fleet"][0]["broker_lost"]
        told, *_ = [entry for entry in stopped.entries() if "may not use any network" in entry["MESSAGE"]]
        assert "fleet.conf" in told["HOTMATTE_REMEDY"]
        example = stopped.read("/usr/share/doc/hotmatte/examples/fleet.conf").decode()
        with stopped.drop_in(example, name="fleet"):
            stopped.run("systemctl", "restart", "hotmatte")
            stopped.run("systemctl", "start", "hotmatte-node@gpu")
            stopped.write("/srv/studio/hot/a.jpg", jpeg(1))
            stopped.eventually(lambda: is_done(stopped, "a", "/srv/studio/mattes"))
            stopped.run("systemctl", "stop", "hotmatte-node@gpu", "hotmatte")
    finally:
        stopped.run("systemctl", "stop", "broker", "hotmatte-node@gpu", check=False)
        stopped.run("rm", "-rf", "/etc/hotmatte/queue.env", "/srv/studio")


# --- Other people's folders ----------------------------------------------------------------


def test_a_share_of_a_group_is_worked_on_under_full_confinement(stopped: Machine) -> None:
    stopped.run("sh", "-c", "getent group photo || groupadd photo")
    stopped.run("sh", "-c", "id alice 2>/dev/null || useradd -M -G photo -g photo alice")
    stopped.run(
        "install", "-d", "-o", "alice", "-g", "photo", "-m", "2770", "/data/in", "/data/out", "/data/old"
    )
    archived = {
        **QUICK,
        "path": "/data/in",
        "output": "/data/out",
        "source": "archive",
        "archive": "/data/old",
    }
    stopped.write(CONFIG, settings(folders={"studio": archived}))
    example = (ROOT / "deploy/systemd/examples/share.conf").read_text()
    as_alice = ("setpriv", "--reuid=alice", "--regid=photo", "--init-groups", "sh", "-c")
    stopped.write("/tmp/a.jpg", jpeg(7))
    with stopped.drop_in(example, name="share"):
        stopped.run("systemctl", "restart", "hotmatte")
        stopped.run(*as_alice, "umask 007; mkdir -p /data/in/shoot; cp /tmp/a.jpg /data/in/shoot/a.jpg")
        stopped.eventually(lambda: is_done(stopped, "shoot/a", "/data/out"))
        stopped.eventually(lambda: stopped.exists("/data/old/shoot/a.jpg"))
        assert stopped.owner("/data/out/shoot") == "hotmatte:photo 2775"
        assert stopped.owner("/data/out/shoot/a.matte.png") == "hotmatte:photo 664"
        assert stopped.owner("/data/old/shoot/a.jpg").startswith("alice:photo")
        assert not stopped.exists("/data/in/shoot/a.jpg")
        # What came of her photo is hers to clear away.
        stopped.run(*as_alice, "echo x >> /data/out/shoot/a.matte.json && rm -r /data/out/shoot")


def test_a_place_that_is_not_opened_to_the_service_pauses_its_folder_and_says_so(service: Machine) -> None:
    service.run("install", "-d", "-o", "hotmatte", "-m", "755", "/elsewhere")
    base = yaml.safe_load(settings())["folders"]
    closed = {**QUICK, "path": "/srv/hotmatte/closed", "output": "/elsewhere/out"}
    service.write(CONFIG, settings(folders={**base, "closed": closed}))
    service.run("systemctl", "reload", "hotmatte")
    service.write("/srv/hotmatte/closed/a.jpg", jpeg(1))
    service.eventually(lambda: status(service)["folders"]["closed"]["state"] == "paused")
    assert "ead-only" in status(service)["folders"]["closed"]["reason"]
    service.write(f"{HOT}/b.jpg", jpeg(2))
    service.eventually(lambda: is_done(service, "b"))
    with service.drop_in("[Service]\nReadWritePaths=/elsewhere\n"):
        service.run("systemctl", "restart", "hotmatte")
        service.eventually(lambda: is_done(service, "a", "/elsewhere/out"))


def test_shares_that_are_mounted_later_and_again_are_seen_from_inside(stopped: Machine) -> None:
    # One below a folder that is open anyway, one whose mount point itself was opened.
    places = {"nas": "/mnt/nas", "raid": "/raid/nas"}
    folders = {}
    for name, place in places.items():
        stopped.run("mkdir", "-p", place)
        stopped.run("install", "-d", "-o", "hotmatte", f"/var/{name}/hot", f"/var/{name}/out")
        folders[name] = {**QUICK, "create": False, "path": f"{place}/hot", "output": f"{place}/out"}
    stopped.write(CONFIG, settings(folders=folders))

    def states() -> set[str]:
        return {folder["state"] for folder in status(stopped)["folders"].values()}

    with stopped.drop_in("[Service]\nReadWritePaths=/raid/nas\n"):
        stopped.run("systemctl", "start", "hotmatte")
        assert states() == {"offline"}
        for number in range(2):
            for name, place in places.items():
                stopped.run("mount", "--bind", f"/var/{name}", place)
                stopped.write(f"{place}/hot/n{number}.jpg", jpeg(number))
            stopped.run("hotmatte", "rescan")
            for place in places.values():
                stopped.eventually(lambda place=place, n=number: is_done(stopped, f"n{n}", f"{place}/out"))
                # -l: folders that are written to are locked, see docs/reliability.md.
                stopped.run("umount", "-l", place, timeout=20)
            stopped.run("hotmatte", "rescan")
            stopped.eventually(lambda: states() == {"offline"})


# --- Limits --------------------------------------------------------------------------------


def test_limits_of_a_drop_in_hold_for_the_daemon_and_its_worker(stopped: Machine) -> None:
    with stopped.drop_in("[Service]\nMemoryMax=600M\nTasksMax=100\n"):
        stopped.run("systemctl", "restart", "hotmatte")
        stopped.write(f"{HOT}/a.jpg", jpeg(1))
        stopped.eventually(lambda: is_done(stopped, "a"))
        now = stopped.show("hotmatte", "MemoryCurrent", "TasksCurrent", "MemoryMax", "TasksMax")
        assert (now["MemoryMax"], now["TasksMax"]) == (str(600 << 20), "100")
        assert 0 < int(now["MemoryCurrent"]) <= 600 << 20
        assert 2 <= int(now["TasksCurrent"]) <= 100


def test_a_photo_that_needs_more_memory_than_there_is_costs_that_photo_only(stopped: Machine) -> None:
    import cv2
    import numpy as np

    retry = {"max_attempts": 2, "base_delay_s": 0.1, "max_delay_s": 0.2}
    stopped.write(CONFIG, settings(retry=retry))
    huge = cv2.imencode(".png", np.zeros((9000, 9000, 3), np.uint8))[1].tobytes()
    with stopped.drop_in("[Service]\nMemoryMax=450M\nMemorySwapMax=0\nRestartSec=0\n"):
        stopped.run("systemctl", "restart", "hotmatte")
        began = stopped.moment()
        stopped.write(f"{HOT}/huge.png", huge)
        stopped.eventually(lambda: stopped.exists(f"{OUT}/huge.error.json"), timeout=60)
        # Whichever process it was: the photographer is told in the report, and the administrator by the journal.
        report = json.loads(stopped.read(f"{OUT}/huge.error.json"))
        assert "memory" in report["reason"] + report["remedy"], report
        said = [entry["MESSAGE"] for entry in stopped.entries(after=began)]
        assert any("quarantined: " in words and "memory" in words for words in said), said
        stopped.eventually(stopped.is_active)
        stopped.write(f"{HOT}/small.jpg", jpeg(1))
        stopped.eventually(lambda: is_done(stopped, "small"))


def test_instances_of_the_template_live_side_by_side(service: Machine) -> None:
    for name in ("north", "south"):
        state = {"state_dir": f"/var/lib/hotmatte/instances/{name}"}
        hot, out = f"/srv/{name}/hot", f"/srv/{name}/out"
        service.run("install", "-d", "-o", "hotmatte", f"/srv/{name}")
        service.write(f"/etc/hotmatte/{name}.yaml", settings(hot, out, **state))
        service.run("systemctl", "start", f"hotmatte@{name}")
        service.write(f"{hot}/{name}.jpg", jpeg(3))
    for name in ("north", "south"):
        service.eventually(lambda name=name: is_done(service, name, f"/srv/{name}/out"))
        entries = service.entries("HOTMATTE_FOLDER=hot", unit=f"hotmatte@{name}")
        assert {entry.get("HOTMATTE_FILE") for entry in entries} - {None} == {f"{name}.jpg"}
    assert service.is_active()
    for name in ("north", "south"):
        service.run("systemctl", "stop", f"hotmatte@{name}")
