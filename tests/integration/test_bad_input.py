"""Whatever lands in a hot folder: it ends as it should, and the next good photo is done.

One daemon for all of them, so that each also proves that those before it did no harm.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from daemonrig import DaemonRig, check_set, drop, jpeg, sha256, write_card
from PIL import Image

from watcher.domain import JobState, printable

EVIL = "evil\n2026-01-01 00:00:00 ERROR forged\x1b[31m.jpg"
NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")
LONGEST = "ü" * 125 + "x.jpg"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRig]:
    rig = DaemonRig(tmp_path_factory.mktemp("bad"), folders={"in": {"incomplete_s": 0.5}}, card="tiny")
    rig.start()
    yield rig
    rig.close()


@pytest.fixture(autouse=True)
def _a_good_photo_is_done_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "daemon" in request.fixturenames:
        rig = request.getfixturevalue("daemon")
        name = f"good {request.node.name[:80]}.jpg".replace("/", " ")
        drop(rig.hot() / name, jpeg(time.time_ns() % 2**24))
        rig.wait_done(name)


# --- Files that end in quarantine ----------------------------------------------------------


def photo(kind: str, *, width: int = 64, height: int = 48) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(f".{kind}", noise)[1].tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb() -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + chunk(b"IEND", b"")
    )


def jpeg_bomb() -> bytes:
    content = photo("jpg")
    frame = content.index(b"\xff\xc0") + 5
    return content[:frame] + struct.pack(">HH", 60_000, 60_000) + content[frame + 4 :]


REJECTED: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "the file is empty"),
    "notes.jpg": (b"Dear photographer,\n" * 10, "this is a text file"),
    "page.png": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "zeros.jpg": (bytes(10_000), "only zeros"),
    "noise.jpg": (bytes(range(255, 0, -1)) * 20, "not an image"),
    "cut.jpg": (photo("jpg")[:2000], "its end is missing"),
    "cut.png": (photo("png")[:5000], "its end is missing"),
    "cut.tif": (photo("tiff")[:5000], "end is missing|damaged"),
    "bomb.png": (png_bomb(), "60000 x 60000"),
    "bomb.jpg": (jpeg_bomb(), "60000 x 60000"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_be_done_is_quarantined_with_a_reason_and_a_remedy(daemon, name):
    content, reason = REJECTED[name]
    drop(daemon.hot() / name, content)
    daemon.wait_quarantined(name)
    [report] = [report for report in daemon.reports().values() if report["source"]["path"] == name]
    assert re.search(reason, report["reason"]), report
    assert report["remedy"].endswith(".")
    listed = daemon.hotmatte("failed")
    assert f"in/{name}" in listed.stdout
    assert report["reason"] in listed.stdout
    assert report["remedy"] in listed.stdout
    assert (daemon.hot() / name).read_bytes() == content
    assert not [path for path in daemon.sidecars() if path.name.startswith(f"{Path(name).stem}.")]


def test_a_bomb_never_gets_as_far_as_memory(daemon):
    for name, content in (("again.png", png_bomb()), ("again.jpg", jpeg_bomb())):
        drop(daemon.hot() / name, content)
        daemon.wait_quarantined(name)
    assert daemon.peak_rss_mb() < 500


# --- Odd files that are done all the same --------------------------------------------------


def gif() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "green")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def cmyk() -> bytes:
    file = io.BytesIO()
    Image.new("CMYK", (20, 10), (0, 128, 255, 0)).save(file, "JPEG")
    return file.getvalue()


def deep_grey() -> bytes:
    ramp = np.linspace(0, 65535, 20 * 10).astype(np.uint16).reshape(10, 20)
    return cv2.imencode(".png", ramp)[1].tobytes()


ODD: dict[str, tuple[bytes, tuple[int, int], type]] = {
    "moving.gif": (gif(), (10, 20), np.uint8),
    "print.jpg": (cmyk(), (10, 20), np.uint8),
    "deep.png": (deep_grey(), (10, 20), np.uint16),
    "dot.png": (photo("png", width=1, height=1), (1, 1), np.uint8),
    "PNG inside.jpg": (photo("png"), (48, 64), np.uint8),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_photos_are_done_at_their_own_size_and_depth(daemon, name):
    content, size, depth = ODD[name]
    drop(daemon.hot() / name, content)
    daemon.wait_done(name)
    path = daemon.out() / f"{Path(name).stem}.matte.json"
    sidecar = json.loads(path.read_bytes())
    check_set(path, sidecar, daemon.out())
    cutout = cv2.imread(str(daemon.out() / f"{Path(name).stem}.cutout.png"), cv2.IMREAD_UNCHANGED)
    assert cutout.shape == (*size, 4)
    assert cutout.dtype == depth
    assert sidecar["source"]["sha256"] == sha256(content)


@pytest.mark.parametrize("name", [NOT_UTF8, LONGEST, EVIL], ids=["not UTF-8", "255 bytes", "newline"])
def test_no_name_is_too_odd(daemon, name):
    (daemon.hot() / name).write_bytes(jpeg(len(name)))
    daemon.wait_done(name)
    [(path, sidecar)] = [
        (path, content)
        for path, content in daemon.sidecars().items()
        if content["source"]["path"] == printable(name)
    ]
    check_set(path, sidecar, daemon.out())


def test_a_name_cannot_forge_lines_nor_colours_in_the_log(daemon):
    (daemon.hot() / "a").mkdir()
    (daemon.hot() / "a" / EVIL).write_bytes(b"no photo at all")
    record = daemon.wait_quarantined(f"a/{EVIL}")
    lines = daemon.log().splitlines()
    assert "\x1b" not in daemon.log()
    assert not [line for line in lines if re.match(r"\S+ \S+ ERROR forged", line)]
    assert [line for line in lines if f"job={record.job.id} " in line and "forged" in line]
    told = daemon.hotmatte("failed").stdout
    assert "\x1b" not in told
    assert "evil\\n2026" in told


def test_what_is_not_a_file_is_left_alone(daemon, tmp_path):
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(jpeg(1))
    os.mkfifo(daemon.hot() / "pipe.jpg")
    (daemon.hot() / "link.jpg").symlink_to(outside)
    (daemon.hot() / "linked").symlink_to(tmp_path)
    (daemon.hot() / "folder.jpg").mkdir()
    (daemon.hot() / "clip.mov").write_bytes(b"a video")
    drop(daemon.hot() / "folder.jpg" / "inner.jpg", jpeg(2))
    daemon.wait_done("folder.jpg/inner.jpg")
    daemon.hotmatte("rescan")
    daemon.wait(lambda: daemon.status()["folders"]["in"]["symlinks_ignored"] == 2, timeout=10)
    known = [daemon.state_of(name) for name in ("pipe.jpg", "link.jpg", "linked/outside.jpg", "folder.jpg")]
    assert known == [None] * 4
    told = daemon.hotmatte("status").stdout
    assert "2 symbolic links ignored" in told
    # The pipe, the video, and what the other tests of this daemon left.
    assert int(re.search(r"(\d+) other files ignored", told)[1]) >= 2


@pytest.mark.parametrize("year", [1500, 2400])
def test_a_date_that_no_64_bits_hold_stops_nobody(daemon, year):
    """In nanoseconds; file systems hold more than 1677 to 2262, and broken clients write it."""
    name, seconds = f"of {year}.jpg", (year - 1970) * 31_556_952
    aside = daemon.hot() / f".{name}.part"
    aside.write_bytes(jpeg(year))
    os.utime(aside, (seconds, seconds))
    aside.replace(daemon.hot() / name)
    drop(daemon.hot() / f"beside {year}.jpg", jpeg(year + 1))
    daemon.wait_done(f"beside {year}.jpg")
    daemon.wait_done(name)
    assert "intake of folder" not in daemon.log()


def test_a_file_in_the_place_of_the_output_folder_is_no_photos_fault(daemon):
    drop(daemon.hot() / "before it.jpg", jpeg(1))
    daemon.wait_done("before it.jpg")
    aside = daemon.out().with_name("aside")
    daemon.out().rename(aside)
    daemon.out().write_text("no folder")
    drop(daemon.hot() / "placed.jpg", jpeg(2))
    (daemon.hot() / "unplaced.jpg").write_bytes(b"no photo at all")
    daemon.wait(lambda: daemon.status()["folders"]["in"]["state"] == "paused", timeout=20)
    assert "is not a folder" in daemon.status()["folders"]["in"]["reason"]
    daemon.out().unlink()
    aside.rename(daemon.out())
    daemon.wait_done("placed.jpg")
    daemon.wait_quarantined("unplaced.jpg")
    assert (daemon.out() / "unplaced.error.json").exists()


# --- Photos that change at the wrong moment ------------------------------------------------


@pytest.fixture
def slow(rig) -> DaemonRig:
    """A daemon whose engine takes a second, in which a photo can change."""
    cards = rig("cards").root
    write_card(cards, "slow", latency_s=1.0)
    daemon: DaemonRig = rig(card="slow", cards=cards)
    daemon.start()
    return daemon


def test_a_photo_that_goes_while_it_is_worked_on_leaves_nothing(slow):
    drop(slow.hot() / "a.jpg", jpeg(1))
    slow.wait(lambda: slow.state_of("a.jpg") is JobState.RUNNING, timeout=20)
    (slow.hot() / "a.jpg").unlink()
    slow.wait(lambda: slow.record("a.jpg") is None, timeout=20)
    assert list(slow.out().glob("*")) == []
    drop(slow.hot() / "b.jpg", jpeg(2))
    slow.wait_done("b.jpg")
    assert "quarantined" not in slow.counts()


def test_only_the_last_version_of_a_photo_is_published(slow):
    drop(slow.hot() / "a.jpg", jpeg(1))
    slow.wait(lambda: slow.state_of("a.jpg") is JobState.RUNNING, timeout=20)
    newer = jpeg(22, width=30)
    drop(slow.hot() / "a.jpg", newer)
    slow.wait(lambda: slow.sidecars(), timeout=20)
    [sidecar] = slow.sidecars().values()
    assert sidecar["source"]["sha256"] == sha256(newer)
    assert slow.counts().get("quarantined") is None


# --- Disks that refuse ---------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "hotmatte", str(place)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"may not mount here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def _paused(daemon: DaemonRig) -> str:
    folder = daemon.status()["folders"]["in"]
    return str(folder["reason"]) if folder["state"] == "paused" else ""


def test_work_waits_for_a_full_disk_and_resumes_alone(rig, small_disk):
    daemon = rig(folders={"in": {"output": str(small_disk / "out")}, "other": {}}, card="tiny")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    daemon.start()
    for number in range(5):
        # A folder that no UTF-8 text can name: the reason to wait names it, wherever it is told.
        sub = daemon.hot() / os.fsdecode(b"\xe9t\xe9")
        drop(sub / f"{number}.jpg", photo("jpg", width=200, height=200) + bytes([number]))
    reason = daemon.wait(lambda: _paused(daemon), timeout=20)
    assert "No space left" in reason
    assert "No space left" in daemon.hotmatte("status").stdout
    drop(daemon.hot("other") / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg", "other")
    assert list((small_disk / "out").rglob("*.json")) == []
    ballast.unlink()
    daemon.wait(lambda: daemon.counts() == {"done": 6}, timeout=20)
    for path, sidecar in daemon.sidecars().items():
        check_set(path, sidecar, daemon.out())
        assert sidecar["attempts"] == 1
    assert list(small_disk.rglob("*.tmp")) == []


def test_work_waits_for_a_disk_that_is_read_only_and_resumes_alone(rig, small_disk):
    daemon = rig(folders={"in": {"output": str(small_disk / "out")}}, card="tiny")
    (small_disk / "out").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    assert "Read-only" in daemon.wait(lambda: _paused(daemon), timeout=20)
    drop(daemon.hot() / "notes.jpg", b"no photo, and no place for its report")
    daemon.wait(lambda: daemon.counts() == {"queued": 2}, timeout=20)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    daemon.wait_done("a.jpg")
    # Not before: without its report nobody would learn of it.
    daemon.wait_quarantined("notes.jpg")
    assert len(daemon.reports()) == 1
    assert daemon.counts() == {"done": 1, "quarantined": 1}


def test_a_full_disk_under_the_journal_loses_nothing(rig, small_disk):
    daemon = rig(card="tiny", state_dir=str(small_disk / "state"))
    daemon.state = small_disk / "state"
    daemon.start()
    drop(daemon.hot() / "first.jpg", jpeg(1))
    daemon.wait_done("first.jpg")
    # Room enough for SQLite's log at its longest (4 MB), once the ballast is gone.
    subprocess.run(["mount", "-o", "remount,size=12m", str(small_disk)], check=True)
    ballast = (small_disk / "ballast").open("wb", buffering=0)
    with ballast, pytest.raises(OSError, match="No space left"):
        while True:
            ballast.write(bytes(4096))
    for number in range(50):
        drop(daemon.hot() / f"{number}.jpg", jpeg(number + 10))
    daemon.wait(lambda: "disk is full" in daemon.log(), timeout=20)
    assert daemon.hotmatte("failed").stdout == "nothing failed\n"
    assert daemon.is_alive()
    (small_disk / "ballast").unlink()
    daemon.wait(lambda: daemon.counts() == {"done": 51}, timeout=40)


def test_a_copy_of_the_journal_that_finds_no_room_says_so_and_leaves_nothing(rig, small_disk):
    daemon = rig(card="tiny")
    daemon.start()
    (small_disk / "ballast").write_bytes(bytes(1_000_000))
    said = daemon.hotmatte("backup", str(small_disk / "copy.sqlite"))
    assert said.returncode == 74
    assert "full" in said.stderr and "Free space there" in said.stderr
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


# --- Files that nobody may read ------------------------------------------------------------


def bound_by_permissions(words: list[str]) -> list[str]:
    """The same command without root's powers over files."""
    if os.geteuid():
        return words
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *words]


def test_a_photo_of_another_user_is_said_in_status_and_log_and_done_when_it_may_be_read(rig):
    daemon = rig(card="tiny", folders={"in": {"incomplete_s": 0.5}})
    drop(daemon.hot() / "a.jpg", jpeg(1))
    (daemon.hot() / "a.jpg").chmod(0)
    daemon.start(command=bound_by_permissions(daemon.command("run")))
    reason = daemon.wait(lambda: daemon.status()["folders"]["in"]["reason"], timeout=20)
    assert reason.startswith("no permission to read a.jpg (it is "), reason
    shown = daemon.hotmatte("status").stdout
    assert f"NOTE: {reason}" in shown and "Work goes on by itself" in shown and "in: watching" in shown
    assert daemon.log_file.read_text().count("no permission to read") == 1
    (daemon.hot() / "a.jpg").chmod(0o640)
    assert daemon.hotmatte("rescan").returncode == 0
    daemon.wait_done("a.jpg")
    daemon.wait(lambda: not daemon.status()["folders"]["in"]["reason"], timeout=20)
    assert daemon.log_file.read_text().count("no permission to read") == 1
    assert daemon.stop() == 0


def test_what_a_disk_and_a_server_keep_in_a_folder_does_not_keep_it_from_starting(rig):
    """`lost+found` is root's own, a colleague's folder his; a snapshot has caught our temporaries and is read-only."""
    daemon = rig(card="tiny", folders={"in": {"source": "archive"}})
    roots = (daemon.hot(), daemon.out(), daemon.archive())
    for root in roots:
        caught = root / "#snapshot" / "GMT-2026.11.27-10.00.00"
        caught.mkdir(parents=True)
        for name in (".a.cutout.png.7.hotmatte.tmp", ".b.jpg.7.aside.hotmatte.tmp", "old.jpg"):
            (caught / name).write_bytes(jpeg(7))
        caught.chmod(0o555)
        for name in ("lost+found", "private"):
            (root / name).mkdir()
            (root / name).chmod(0)
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.start(command=bound_by_permissions(daemon.command("run")))
    daemon.wait_done("a.jpg")
    daemon.wait(lambda: (daemon.archive() / "a.jpg").exists(), timeout=20)
    status = daemon.status()["folders"]["in"]
    # Of what is no server's own somebody shall know: a photographer may wait for it.
    assert (status["state"], status["unreadable"]) == ("watching", ["private"])
    assert "private" in status["reason"] and "lost+found" not in status["reason"]
    assert daemon.stop() == 0
    assert daemon.counts() == {"done": 1}
    for root in roots:
        assert len(list((root / "#snapshot" / "GMT-2026.11.27-10.00.00").iterdir())) == 3
        for name in ("lost+found", "private"):
            (root / name).chmod(0o755)


def test_a_sub_folder_of_the_results_that_refuses_us_stops_its_own_photos_only(rig):
    daemon = rig(card="tiny", limits={"max_in_flight": 2})
    closed = daemon.out() / "closed"
    closed.mkdir(parents=True)
    closed.chmod(0o555)
    for number in range(12):
        drop(daemon.hot() / "closed" / f"{number}.jpg", jpeg(number))
    daemon.start(command=bound_by_permissions(daemon.command("run")))
    reason = daemon.wait(lambda: daemon.status()["folders"]["in"]["reason"], timeout=20)
    assert reason == f"cannot write to {closed}: Permission denied"
    drop(daemon.hot() / "open" / "a.jpg", jpeg(99))
    daemon.wait_done("open/a.jpg")
    assert daemon.status()["folders"]["in"]["state"] == "watching"
    closed.chmod(0o755)
    daemon.wait(lambda: daemon.counts() == {"done": 13}, timeout=30)
    with daemon.journal() as journal:
        assert {record.job.attempts for record in journal.records(JobState.DONE)} == {1}
    assert daemon.stop() == 0
