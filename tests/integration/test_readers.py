"""Photos are decoded in processes that may die: each fate costs one photo, never the next."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageCms

from watcher.errors import HostError, InputError, InputNotReady, InputRejected
from watcher.pipeline import pixels, readers
from watcher.pipeline.pages import KEPT_BYTES
from watcher.pipeline.readers import INLINE, Readers, Reads


def jpeg(width: int = 64, height: int = 48) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 150, 100)).save(file, "JPEG")
    return file.getvalue()


def scan_bomb(scans: int, side: int = 2000) -> bytes:
    """A small progressive JPEG that repeats its last scan: each costs a walk over the whole picture."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 150, 100)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * scans + b"\xff\xd9"


@pytest.fixture
def pool() -> Iterator[Readers]:
    made = Readers(timeout=20.0)
    yield made
    made.close()


def patient(pool):
    """A second is too little for a new process to start in, on a busy machine."""
    pool._timeout = 60.0
    return pool


def read(pool: Reads, content: bytes) -> pixels.Picture:
    with pool.opened(content) as reading:
        reading.measure()
        return reading.picture()


def reading() -> list[psutil.Process]:
    """What reads photos for this process; other tests of a run may have children of their own."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and "watcher.pipeline.reader" in child.cmdline():
                found.append(child)
    return found


def only_child() -> psutil.Process:
    [child] = reading()
    return child


def test_a_picture_is_the_same_as_if_it_were_read_in_here(pool, variants):
    for name, content in sorted(variants.items()):
        try:
            expected = read(INLINE, content)
        except InputError as error:
            with pytest.raises(type(error)) as caught:
                read(pool, content)
            assert (str(caught.value), caught.value.remedy) == (str(error), error.remedy), name
            continue
        found = read(pool, content)
        for field in dataclasses.fields(expected):
            one, other = getattr(expected, field.name), getattr(found, field.name)
            same = np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
            assert same, f"{name}: {field.name}"
            assert getattr(one, "dtype", None) == getattr(other, "dtype", None)


def large(mode: str, kind: str, **saved: object) -> bytes:
    """More than what is copied out of memory that stays: it is decoded into memory of its own."""
    rows, columns = np.mgrid[:3000, :4000] // 40 % 2
    flags = Image.fromarray(((rows ^ columns) * 200).astype(np.uint8)).convert(mode)
    flags.paste(90, (0, 0, 2000, 700))
    file = io.BytesIO()
    flags.save(file, kind, **saved)
    return file.getvalue()


def test_a_large_picture_is_the_same_too_wherever_it_was_decoded(pool):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    upright = large("RGB", "JPEG", exif=exif, icc_profile=srgb)
    exif[0x0112] = 6
    sideways = large("RGB", "JPEG", exif=exif, icc_profile=srgb)
    for content in (
        upright,
        sideways,
        large("L", "JPEG"),
        large("CMYK", "JPEG"),
        large("RGB", "PNG"),
        upright,
    ):
        expected, found = read(INLINE, content), read(pool, content)
        assert found.pixels.nbytes > KEPT_BYTES
        assert np.array_equal(found.pixels, expected.pixels)
        for name in ("exif", "profile", "warnings"):
            assert getattr(found, name) == getattr(expected, name)


def test_a_large_jpeg_takes_its_memory_once(pool):
    content = jpeg(6000, 4000)
    read(pool, jpeg())
    before = most_ever(only_child().pid)
    picture = read(pool, content)
    assert most_ever(only_child().pid) - before < 1.5 * picture.pixels.nbytes


def test_a_large_picture_lies_where_one_lay_that_is_gone_and_never_where_one_is(pool):
    content, other = large("RGB", "JPEG"), large("L", "JPEG")
    first = read(pool, content)
    [place] = places()
    view, saved = first.pixels[1000:, :, 1], first.pixels.copy()
    del first
    second = read(pool, other)
    assert len(places()) == 2
    assert np.array_equal(view, saved[1000:, :, 1])
    del view
    third = read(pool, content)
    assert place in places() and len(places()) == 2
    assert np.array_equal(third.pixels, saved)
    assert np.array_equal(second.pixels, read(INLINE, other).pixels)


def test_memory_of_large_pictures_is_left_to_others_when_no_more_come(pool, eventually):
    read(pool, jpeg())
    held = shared_files(only_child().pid)
    picture = read(pool, large("RGB", "JPEG"))
    assert shared_files(only_child().pid) > held
    eventually(lambda: shared_files(only_child().pid) == held, timeout=20)
    assert picture.pixels.shape == (3000, 4000, 3)
    assert np.array_equal(read(pool, large("RGB", "JPEG")).pixels, picture.pixels)


def places() -> set[str]:
    """The files, by inode, in which this process has large pictures."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "hotmatte-picture" in line and extent(line) > KEPT_BYTES}


def extent(line: str) -> int:
    first, last = line.split()[0].split("-")
    return int(last, 16) - int(first, 16)


def shared_files(pid: int) -> int:
    """How many files for pictures this process holds."""
    return sum("hotmatte-picture" in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())


def most_ever(pid: int) -> int:
    """Bytes that were in memory at one time, shared ones too."""
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) * 1024


def test_pictures_do_not_overwrite_each_other(pool):
    sizes = [(64, 48), (5000, 3000), (80, 60), (4000, 4000), (32, 32)]
    pictures = [read(pool, jpeg(*size)) for size in sizes]
    for (width, height), picture in zip(sizes, pictures, strict=True):
        assert picture.pixels.shape == (height, width, 3)
        assert (np.abs(picture.pixels.astype(int) - (200, 150, 100)) < 4).all()


def test_a_reader_gives_back_what_a_large_photo_took(pool, eventually):
    read(pool, jpeg())
    before = only_child().memory_full_info()
    picture = read(pool, jpeg(6000, 4000))
    # The picture is in memory once, both of us have it mapped.
    assert only_child().memory_full_info().uss - before.uss < picture.pixels.nbytes / 2
    most = picture.pixels.nbytes / 2
    del picture
    # And once more photos do not come, in none of the two.
    eventually(lambda: only_child().memory_info().rss - before.rss < most)


def test_a_decoder_that_hangs_is_killed_and_the_next_photo_is_read():
    pool = patient(Readers(timeout=1.0))
    try:
        read(pool, jpeg())
        pool._timeout = 1.0
        hung = only_child()
        hung.send_signal(signal.SIGSTOP)
        with pytest.raises(InputRejected, match="longer than 1 s") as caught:
            read(pool, jpeg())
        assert "decode_timeout_s" in caught.value.remedy
        assert not hung.is_running()
        assert read(patient(pool), jpeg()).pixels.shape == (48, 64, 3)
    finally:
        pool.close()


def test_a_small_file_that_would_keep_a_decoder_busy_for_hours_is_given_up():
    bomb = scan_bomb(20_000)
    assert len(bomb) < 10_000_000
    pool = Readers(timeout=1.0)
    try:
        with pytest.raises(InputRejected, match="longer than 1 s"):
            read(pool, bomb)
        assert read(patient(pool), jpeg()).pixels.shape == (48, 64, 3)
    finally:
        pool.close()


def test_a_decoder_that_dies_costs_one_photo(pool):
    read(pool, jpeg())
    with pool.opened(jpeg(3000, 2000)) as reading:
        reading.measure()
        only_child().kill()
        with pytest.raises(InputNotReady, match="signal 9"):
            reading.picture()
    assert read(pool, jpeg()).pixels.shape == (48, 64, 3)


def test_a_small_picture_that_could_not_be_taken_over_blames_no_photo_and_not_the_next_one_either(
    pool, monkeypatch
):
    def refused(fd: int, size: int) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(readers, "mapped", refused)
        with pytest.raises(HostError, match="cannot take the picture over"):
            read(pool, jpeg())
    # Its memory is given once; without it each picture of that process was taken for nonsense.
    assert read(pool, jpeg()).pixels.shape == (48, 64, 3)


def test_a_reader_that_left_for_want_of_work_is_replaced_without_a_word(pool):
    read(pool, jpeg())
    # As if its idle time had run out.
    gone = only_child()
    process = pool._aides.borrow()
    process.close()
    pool._aides.give_back(process)
    assert not gone.is_running()
    assert read(pool, jpeg()).pixels.shape == (48, 64, 3)


def test_readers_beyond_the_first_leave_when_there_is_nothing_to_do(eventually):
    pool = Readers(timeout=20.0, idle_s=0.5)
    try:
        with pool.opened(jpeg()) as one, pool.opened(jpeg()) as other:
            assert one.measure() == other.measure() == ("JPEG", 64, 48)
            assert len(reading()) == 2
        eventually(lambda: len(reading()) == 1, timeout=20)
        for _ in range(3):
            assert read(pool, jpeg()).pixels.shape == (48, 64, 3)
    finally:
        pool.close()


def test_photos_share_a_reader_while_waiting_for_it_costs_less_than_another():
    pool = Readers(timeout=20.0, patience=60.0)
    try:
        with ThreadPoolExecutor(4) as threads:
            pictures = list(threads.map(lambda width: read(pool, jpeg(width)), range(64, 80)))
        assert [picture.pixels.shape[1] for picture in pictures] == list(range(64, 80))
        assert len(reading()) == 1
    finally:
        pool.close()


def test_who_waits_for_a_reader_that_does_not_come_back_gets_one_of_its_own():
    pool = Readers(timeout=20.0, patience=0.2)
    try:
        with pool.opened(jpeg()) as held, ThreadPoolExecutor(3) as threads:
            held.measure()
            shapes = {picture.pixels.shape for picture in threads.map(read, [pool] * 3, [jpeg()] * 3)}
        assert shapes == {(48, 64, 3)}
    finally:
        pool.close()


def test_waits_with_a_free_reader_between_them_do_not_add_up():
    pool = Readers(timeout=20.0, patience=1.0)
    try:
        for _ in range(4):
            with pool.opened(jpeg()) as held, ThreadPoolExecutor(1) as threads:
                held.measure()
                other = threads.submit(read, pool, jpeg())
                time.sleep(0.4)
                held.picture()
                held.end()
                other.result(20)
        assert len(reading()) == 1
    finally:
        pool.close()


def test_more_memory_than_a_photo_may_take_is_refused_and_the_reader_lives(pool):
    read(pool, jpeg())
    child = only_child()
    used = child.memory_info().vms
    resource.prlimit(child.pid, resource.RLIMIT_AS, (used + (40 << 20), used + (40 << 20)))
    with pytest.raises(InputRejected, match="more memory"):
        read(pool, jpeg(9000, 6000))
    assert read(pool, jpeg()).pixels.shape == (48, 64, 3)
    assert only_child() == child


def test_nonsense_from_a_reader_is_noticed(tmp_path):
    fd = os.memfd_create("nonsense", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 100)
    memory = readers._mapped(fd)
    os.close(fd)
    for fields in (
        {"pixels": {"at": 0, "shape": [6, 6, 3], "dtype": "uint8"}},
        {"pixels": {"at": 0, "shape": [6, 6], "dtype": "uint8"}},
        {"pixels": {"at": 0, "shape": [2, 2, 3], "dtype": "float64"}},
        {"pixels": {"at": 0, "shape": [2, 2, 3], "dtype": "float32"}},
        {"pixels": {"at": -16, "shape": [2, 2, 3], "dtype": "uint8"}},
        {"pixels": {"there": 0, "shape": [2, 2, 3], "dtype": "uint8"}},
        {"pixels": {"at": 0, "shape": [2, 2, 3], "dtype": "uint8"}, "surprise": 1},
        {},
    ):
        with pytest.raises((ValueError, TypeError)):
            readers._picture(fields, memory, copies=False)


def test_a_reader_cannot_take_back_memory_it_gave():
    fd = os.memfd_create("given", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 100)
    readers._mapped(fd)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


def test_a_daemon_survives_a_bomb_and_says_why(rig, eventually):
    # Long enough for a reader to start beside other tests: the good photo waits for one.
    daemon = rig(card="tiny", limits={"decode_timeout_s": 4.0})
    daemon.start()
    (daemon.hot() / "bomb.jpg").write_bytes(scan_bomb(20_000))
    daemon.wait_quarantined("bomb.jpg")
    [report] = daemon.reports().values()
    assert "longer than 4 s" in report["reason"]
    (daemon.hot() / "good.jpg").write_bytes(jpeg())
    daemon.wait_done("good.jpg")
    assert Path(f"/proc/{daemon.pid}").exists()
    eventually(lambda: len(daemon.readers()) >= 1)


def test_a_photo_that_is_refused_for_its_measure_takes_no_memory_from_the_next(pool):
    with pool.opened(jpeg()) as opened:
        assert opened.measure() == ("JPEG", 64, 48)
    assert read(pool, jpeg(32, 24)).pixels.shape == (24, 32, 3)
    with pool.opened(jpeg()) as opened:
        opened.measure()
    assert read(pool, jpeg(80, 60)).pixels.shape == (60, 80, 3)
