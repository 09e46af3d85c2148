"""Two daemons on one folder: the second waits, says so, and takes over when the first is gone."""

from __future__ import annotations

import signal
from pathlib import Path

from daemonrig import drop, jpeg

SHARED = ("path", "output", "archive")


def share(first, second, key, name="in"):
    """Let the second daemon use this place of the first one."""
    second.settings["folders"][name][key] = str(first.place(name, key))
    second.configure()


def test_a_second_daemon_on_a_folder_waits_and_takes_over_when_the_first_is_killed(rig):
    folders = {key: {"source": "archive"} for key in SHARED}
    first = rig("first", folders=folders, card="tiny")
    second = rig("second", folders={**folders, "own": {}}, card="tiny")
    for key in SHARED:
        share(first, second, key, name=key)
    first.start()
    for key in SHARED:
        drop(first.hot(key) / "a.jpg", jpeg(1))
    # A place that was made with the first result is locked when it is looked at next.
    first.wait(lambda: all(locks(first, first.place(key, key)) for key in SHARED), timeout=30)
    second.start()
    for key in SHARED:
        status = second.status()["folders"][key]
        assert status["state"] == "offline"
        assert f"another hotmatte (process {first.pid}) works on {first.place(key, key)}" in status["reason"]
        assert "Stop the other one" in status["reason"]
    # Its other folders go on.
    drop(second.hot("own") / "b.jpg", jpeg(2))
    second.wait_done("b.jpg", "own")
    first.signal(signal.SIGKILL)
    first.child.wait()
    for key in SHARED:
        drop(second.hot(key) / "c.jpg", jpeg(3))
        second.wait(lambda key=key: (second.archive(key) / "c.jpg").exists(), timeout=30)
    assert second.stop() == 0


def locks(daemon, path):
    """Whether it holds a lock on `path`, by the kernel's word: to try one would be in its way."""
    found = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    mine = (str(daemon.pid), str(path.stat().st_ino)) if path.exists() else None
    return mine in {(words[4], words[5].rpartition(":")[2]) for words in found if "FLOCK" in words[:2]}


def test_two_daemons_may_read_the_photos_of_one_folder_and_write_elsewhere(rig):
    first, second = (rig(name, card="tiny") for name in ("first", "second"))
    share(first, second, "path")
    first.start()
    second.start()
    drop(first.hot() / "a.jpg", jpeg(1))
    for daemon in (first, second):
        daemon.wait_done("a.jpg")
        assert len(daemon.sidecars()) == 1
        assert daemon.stop() == 0


def test_folders_of_one_daemon_may_share_an_output_folder_across_a_reload(rig):
    daemon = rig(folders={"in": {}, "more": {}}, card="tiny")
    daemon.settings["folders"]["more"]["output"] = "out/in"
    daemon.configure()
    daemon.out().mkdir(parents=True)
    daemon.start()
    assert {item["state"] for item in daemon.status()["folders"].values()} == {"watching"}
    assert daemon.hotmatte("reload").returncode == 0
    assert {item["state"] for item in daemon.status()["folders"].values()} == {"watching"}
    for number, name in enumerate(("in", "more")):
        drop(daemon.hot(name) / f"{name}.jpg", jpeg(number))
        daemon.wait_done(f"{name}.jpg", name)
    assert len(daemon.sidecars()) == 2
    assert daemon.stop() == 0
