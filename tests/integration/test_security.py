"""What docs/security.md promises, on a real daemon: where it writes, through what, and with which rights."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from daemonrig import DaemonRig, drop, jpeg

# A call that changes a file system, its paths and its result, as `strace -y` tells it.
_CALL = re.compile(r"(?:\d+ +)?(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>\d+)")
_PATH = re.compile(r'(?:(?P<at>AT_FDCWD|\d+)(?:<(?P<folder>[^>]*)>)?, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_CHANGES = (
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "link",
    "symlink",
    "mknod",
    "truncate",
    "chmod",
    "chown",
    "utime",
)
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")


def changed(traces: Path, cwd: Path) -> Iterator[tuple[str, Path]]:
    """(call, path) of everything that was created, opened for writing, renamed or removed."""
    # A file for each thread: in a common one, calls that wait for others are torn into two lines.
    for line in (
        line for trace in traces.iterdir() for line in trace.read_text(errors="replace").splitlines()
    ):
        match = _CALL.match(line)
        if match is None:
            continue
        name, arguments = match["name"], match["arguments"]
        if name in ("open", "openat", "creat"):
            if name != "creat" and not _WRITES.search(arguments):
                continue
        elif not name.startswith(_CHANGES):
            continue
        for found in _PATH.finditer(arguments):
            yield name, Path(os.path.normpath(cwd / (found["folder"] or "") / found["path"]))


def test_nothing_is_written_outside_the_folders_that_are_for_it(rig, tmp_path, real_part, eventually):
    real_part("strace", shutil.which("strace"), "it tells which files a process touches")
    folders = {
        "in": {"quarantine": "failed", "source": "archive"},
        "gone": {"source": "delete"},
    }
    daemon: DaemonRig = rig(folders=folders, card="tiny", cache={"size_mb": 64})
    # Under the eyes of a tracer, compiling takes a minute.
    daemon.start()
    assert daemon.stop() == 0
    traces, spare = tmp_path / "traces", tmp_path / "spare"
    traces.mkdir()
    spare.mkdir()
    watched = (
        "trace=open,openat,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat"
    )
    daemon.start(
        command=[
            "strace",
            "-D",
            "-ff",
            "-y",
            "-q",
            "-e",
            watched,
            "-o",
            str(traces / "of"),
            *daemon.command("run"),
        ],
        HOME=str(spare),
        XDG_CACHE_HOME=str(spare),
        TMPDIR=str(spare),
    )
    drop(daemon.hot() / "a.jpg", jpeg(1))
    drop(daemon.hot() / "shoot" / "b.jpg", jpeg(2))
    drop(daemon.hot() / "bad.jpg", b"not a photo")
    drop(daemon.hot("gone") / "c.jpg", jpeg(3))
    daemon.wait_done("a.jpg", timeout=60)
    daemon.wait_done("shoot/b.jpg", timeout=60)
    daemon.wait_done("c.jpg", "gone", timeout=60)
    daemon.wait_quarantined("bad.jpg", timeout=60)
    daemon.wait(lambda: not (daemon.hot("gone") / "c.jpg").exists(), timeout=20)
    daemon.wait(lambda: (daemon.archive() / "shoot" / "b.jpg").exists(), timeout=20)
    assert daemon.stop() == 0
    # The tracer may be behind.
    eventually(lambda: "+++ exited with 0 +++" in (traces / f"of.{daemon.pid}").read_text(errors="replace"))

    seen = list(changed(traces, Path.cwd()))
    outputs = [daemon.out(), daemon.out("gone"), daemon.archive(), daemon.place("in", "quarantine")]
    outputs.append(daemon.root / "cache" / "answers")
    hot = [daemon.hot(), daemon.hot("gone")]
    loops = Path(os.environ["NUMBA_CACHE_DIR"])
    allowed = [*outputs, daemon.state, spare, loops, Path("/dev"), Path("/proc/self"), Path("/memfd:")]
    strange = [
        (name, path)
        for name, path in seen
        if not any(path.is_relative_to(place) for place in allowed)
        # What measures the tests themselves, if they are measured.
        and not path.name.startswith(".coverage.")
        # Sources leave hot folders; nothing is opened for writing there.
        and not (name.startswith(("rename", "unlink", "rmdir", "link")) and _below(path, hot))
        # What leads to these folders is made where it is missing.
        and not (name.startswith("mkdir") and any(place.is_relative_to(path) for place in [*allowed, *hot]))
    ]
    assert strange == []
    # And it has been seen at all.
    assert {path for name, path in seen if name.startswith("rename")} > {daemon.out() / "a.matte.json"}
    assert any(name.startswith("unlink") and path.is_relative_to(daemon.hot("gone")) for name, path in seen)


def _below(path: Path, places: list[Path]) -> bool:
    return any(path != place and path.is_relative_to(place) for place in places)


def test_results_belong_to_the_group_of_the_share_and_may_be_changed_by_it(rig):
    daemon: DaemonRig = rig(card="tiny")
    group = 54321 if os.geteuid() == 0 else os.getegid()
    daemon.out().mkdir(parents=True)
    os.chown(daemon.out(), -1, group)
    daemon.out().chmod(0o2775)
    # As the unit has it: UMask=0002.
    daemon.start(command=["sh", "-c", 'umask 0002; exec "$@"', "sh", *daemon.command("run")])
    drop(daemon.hot() / "shoot" / "a.jpg", jpeg(1))
    drop(daemon.hot() / "shoot" / "bad.jpg", b"not a photo")
    daemon.wait_done("shoot/a.jpg")
    daemon.wait_quarantined("shoot/bad.jpg")
    daemon.stop()
    folder = daemon.out() / "shoot"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2775
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["a.cutout.png", "a.matte.json", "a.matte.png", "bad.error.json"]
    for path in folder.iterdir():
        assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (group, 0o664), path.name
    # What is nobody else's business: names of photos are in it.
    assert stat.S_IMODE((daemon.state / "journal.sqlite").stat().st_mode) & 0o002 == 0


def test_a_configuration_cannot_run_code(rig):
    daemon: DaemonRig = rig(card="tiny")
    mark = daemon.root / "mark"
    evil = f'!!python/object/apply:os.system ["touch {mark}"]'
    daemon.config.write_text(f"folders: {{in: {{path: hot, output: out, profile: {evil}}}}}\n")
    done = daemon.hotmatte("check-config")
    assert done.returncode == 78
    cards = daemon.root / "cards"
    cards.mkdir()
    (cards / "evil.yaml").write_text(f"name: {evil}\n")
    daemon.settings["models"]["cards"] = str(cards)
    daemon.settings["profiles"]["portrait"]["model"] = "evil"
    daemon.configure()
    assert daemon.hotmatte("run", timeout=60).returncode == 78
    assert not mark.exists()


def test_a_reader_of_photos_gains_no_privileges_and_leaves_no_core(rig):
    daemon: DaemonRig = rig(card="tiny")
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    reader = daemon.readers()[0]
    status = Path(f"/proc/{reader.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    limits = Path(f"/proc/{reader.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)
    address = re.search(r"Max address space +(\d+) ", limits)
    assert address and int(address[1]) < 16 << 30
    assert sys.executable in reader.cmdline()[0]
