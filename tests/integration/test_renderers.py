"""Photos may be rendered in processes: the same bytes come of it, and each death costs one photo a try, never the daemon."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from daemonrig import check_set, drop, jpeg
from PIL import Image, ImageCms

from watcher.config import Output, Profile
from watcher.domain import Frame, Job, Metadata, Source, Stamp
from watcher.errors import HostError, InputNotReady, InputRejected, WatcherError
from watcher.pipeline.looks import Answer
from watcher.pipeline.readers import Readers
from watcher.pipeline.render import Rendered, Style
from watcher.pipeline.renderers import HERE, Renderers
from watcher.pipeline.rooms import Memory, memory_of

CACHE = Path(os.environ["NUMBA_CACHE_DIR"])
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def pool() -> Iterator[Renderers]:
    made = Renderers(most=2, cache=CACHE)
    yield made
    made.close()


def alpha_of(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.clip((0.4 * height - np.hypot(x - width / 2, y - height / 2)) / 3 + 0.5, 0, 1)


def frame_of(pixels: np.ndarray, **more: object) -> Frame:
    settings: dict[str, object] = {
        "opacity": None,
        "profile": None,
        "metadata": Metadata(),
        "proxy": np.ascontiguousarray(pixels[::4, ::4].astype(np.uint8)),
        **more,
    }
    source = Source("hot", "sub/a \udcff.jpg", Stamp(9, 1_700_000_000_123_456_789))
    return Frame(
        job=Job(7, source, 1, 1),
        path=Path("/nowhere"),
        pixels=pixels,
        sha256="0" * 64,
        format="JPEG",
        warnings=("odd",),
        **settings,
    )  # type: ignore[arg-type]


def noise(height: int, width: int, dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(height).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def style(**profile: object) -> Style:
    return Style("hot", "portrait", Profile(**profile))  # type: ignore[arg-type]


def made(renders: Renderers, frame: Frame, asked: Style, *, disagree: bool = False) -> Rendered:
    height, width = frame.proxy.shape[:2]
    return renders.render(frame, Answer(alpha_of(height, width), disagree, cached=True), asked, timings={})


EVERY_KIND = tuple(
    Output(kind=kind, suffix=f".{kind}{ending}", **more)  # type: ignore[arg-type]
    for kind, ending, more in (
        ("cutout", ".png", {}),
        ("cutout", ".tif", {"alpha": "premultiplied", "pack": "zstd"}),
        ("cutout", ".webp", {}),
        ("cutout", ".psd", {}),
        ("matte", ".png", {"depth": 16}),
        ("composite", ".jpg", {"background": "blur"}),
        ("composite", ".png", {"background": "#102030 #ffffff"}),
        ("trimap", ".png", {}),
        ("foreground", ".jxl", {}),
    )
)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("opaque", [True, False])
def test_a_process_makes_the_same_bytes_as_a_thread(pool, dtype, opaque):
    frame = frame_of(
        noise(240, 160, dtype),
        opacity=None if opaque else noise(240, 160, dtype, 1),
        profile=SRGB,
        metadata=Metadata(exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0", xmp=b"<x:xmpmeta/>", dpi=(300.0, 240.0)),
    )
    for asked in (style(), style(outputs=EVERY_KIND, looks="all", edges=("close", "islands"))):
        ours, theirs = made(HERE, frame, asked, disagree=True), made(pool, frame, asked, disagree=True)
        assert theirs.contents == ours.contents
        assert (theirs.review, theirs.lost, theirs.cached) == (ours.review, ours.lost, True)
        assert "looks_disagree" in theirs.review.flags
        assert (theirs.frame.job, theirs.frame.width, theirs.frame.height) == (frame.job, 160, 240)
        assert theirs.frame.proxy.size == 0 and theirs.frame.warnings == ("odd",)


def test_a_process_gives_way_to_those_that_bring_it_work(pool):
    made(pool, frame_of(noise(24, 16, np.uint8)), style())
    found = [child for child in psutil.Process().children() if "watcher.pipeline.renderer" in child.cmdline()]
    assert {child.nice() for child in found} == {psutil.Process().nice() + 5}


def test_names_from_templates_are_filled_in_alike(pool):
    named = Output(kind="matte", name="{stem}-{width}x{height}-{date}-{model}-{ext}.png")
    frame = frame_of(noise(64, 48))
    [ours], [theirs] = (made(one, frame, style(outputs=(named,))).contents for one in (HERE, pool))
    assert theirs == ours and "48x64" in theirs.suffix and "jpg" in theirs.suffix


def test_a_large_picture_stays_where_its_reader_put_it(pool):
    """A copy for each process would be 72 MB at 24 megapixels."""
    file = io.BytesIO()
    Image.fromarray(noise(3000, 4000)).save(file, "JPEG", quality=80)
    readers = Readers(timeout=60.0)
    try:
        with readers.opened(file.getvalue()) as reading:
            reading.measure()
            picture = reading.picture()
        memory = memory_of(picture.pixels)
        assert isinstance(memory, Memory) and memory.place_of(picture.pixels[1:]) is not None
        assert memory.place_of(picture.pixels[:, 1:]) is None, "in pieces"
        assert memory_of(picture.pixels.copy()) is None
        proxy = np.ascontiguousarray(picture.pixels[::8, ::8])
        frame = frame_of(picture.pixels, proxy=proxy)
        ours = made(HERE, frame, style(refine="bilinear"))
        theirs = made(pool, frame, style(refine="bilinear"))
        assert theirs.contents == ours.contents
        room = pool._aides._idle[0]._room
        assert room is not None and room.size < picture.pixels.nbytes, "the pixels were copied"
        before = len(os.listdir("/proc/self/fd"))
        del picture, frame, memory, ours, theirs
        assert len(os.listdir("/proc/self/fd")) < before, "its descriptor goes with it"
    finally:
        readers.close()


def test_what_cannot_be_made_of_a_photo_is_said_in_the_same_words(pool):
    wide = frame_of(noise(8, 70_000), proxy=noise(8, 64))
    too_wide = style(outputs=(Output(kind="composite", suffix=".jpg"),))
    said = []
    for renders in (HERE, pool):
        with pytest.raises(InputRejected) as caught:
            made(renders, wide, too_wide)
        said.append((str(caught.value), caught.value.remedy))
    assert said[0] == said[1]
    assert len(made(pool, frame_of(noise(64, 48)), style()).contents) == 2, "and the process goes on"


def test_a_background_that_is_missing_is_nobody_s_photo_s_fault(pool, tmp_path):
    behind = Output(kind="composite", suffix=".jpg", picture=str(tmp_path / "gone.png"))
    with pytest.raises(HostError, match=r"gone\.png cannot be read"):
        made(pool, frame_of(noise(64, 48)), style(outputs=(behind,)))


def test_a_bug_is_told_as_one_with_its_traceback_in_the_log(pool, caplog):
    broken = frame_of(noise(64, 48))
    object.__setattr__(broken, "proxy", noise(16, 12).astype(np.float32))
    with pytest.raises(WatcherError, match="rendering it failed: ") as caught:
        pool.render(broken, Answer(np.full((0, 0), 0.5, np.float32), False), style(), timings={})
    assert "bug in hotmatte" in caught.value.remedy
    assert "Traceback" in caplog.text
    assert len(made(pool, frame_of(noise(64, 48)), style()).contents) == 2


def rendering_children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and "watcher.pipeline.renderer" in child.cmdline():
                found.append(child)
    return found


def test_a_process_that_is_killed_costs_its_photo_a_try(pool):
    frame = frame_of(noise(64, 48))
    made(pool, frame, style())
    [child] = rendering_children()
    child.suspend()
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(made, pool, frame, style())
        time.sleep(0.3)
        child.kill()
        with pytest.raises(InputNotReady, match=r"rendered it was killed \(signal 9\)"):
            asked.result(30)
    assert len(made(pool, frame, style()).contents) == 2


def test_a_process_that_crashes_costs_its_photo_a_try(pool):
    frame = frame_of(noise(64, 48))
    made(pool, frame, style())
    [child] = rendering_children()
    child.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(made, pool, frame, style())
        time.sleep(0.3)
        child.send_signal(signal.SIGSEGV)
        child.send_signal(signal.SIGCONT)
        with pytest.raises(InputNotReady, match=r"died \(signal 11\)"):
            asked.result(30)
    assert len(made(pool, frame, style()).contents) == 2


def test_one_that_does_not_answer_is_stopped():
    pool = Renderers(most=1, cache=CACHE, timeout=60.0)
    try:
        frame = frame_of(noise(64, 48))
        made(pool, frame, style())
        [child] = rendering_children()
        child.suspend()
        pool._timeout = 0.5
        with pytest.raises(InputRejected, match=r"took longer than 0\.5 s, and was stopped"):
            made(pool, frame, style())
        assert not child.is_running()
        pool._timeout = 60.0
        assert len(made(pool, frame, style()).contents) == 2
    finally:
        pool.close()


def test_one_that_left_for_want_of_work_is_replaced_without_a_word(eventually):
    pool = Renderers(most=2, cache=CACHE, idle_s=0.2, patience=0.0)
    try:
        frame = frame_of(noise(64, 48))
        held = pool._aides.borrow()
        made(pool, frame, style())
        assert len(rendering_children()) == 2
        eventually(lambda: len(rendering_children()) == 1, timeout=20)
        made(pool, frame, style())  # the seat is borrowed: it asks the one that left
        pool._aides.give_back(held)
    finally:
        pool.close()
    assert rendering_children() == []


def test_there_are_never_more_than_allowed():
    pool = Renderers(most=2, cache=CACHE, patience=0.0)
    seen, done = [0], threading.Event()

    def count() -> None:
        while not done.wait(0.01):
            seen[0] = max(seen[0], len(rendering_children()))

    counting = threading.Thread(target=count)
    counting.start()
    try:
        frame = frame_of(noise(64, 48))
        with ThreadPoolExecutor(6) as threads:
            all_made = list(threads.map(lambda _: made(pool, frame, style()).contents, range(18)))
        assert all(one == all_made[0] for one in all_made)
    finally:
        done.set()
        counting.join()
        pool.close()
    assert seen[0] == 2


def test_a_process_holds_no_memory_of_large_results_when_there_is_nothing_to_do(pool, eventually):
    large = frame_of(noise(2400, 3200), proxy=noise(240, 320))
    plain = style(refine="bilinear", outputs=(Output(kind="foreground", suffix=".tif", pack="none"),))
    made(pool, large, plain)
    [aide] = pool._aides._idle
    assert aide._results is not None and os.fstat(aide._results).st_size <= 32 << 20
    wide = style(
        refine="bilinear",
        outputs=tuple(Output(kind="foreground", suffix=f".{n}.tif", pack="none") for n in range(3)),
    )
    made(pool, large, wide)
    assert os.fstat(aide._results).st_size > 32 << 20
    eventually(lambda: os.fstat(aide._results).st_size <= 32 << 20, timeout=20)


# --- In a daemon -----------------------------------------------------------------------------


def test_a_daemon_whose_renderers_are_killed_makes_every_matte(rig):
    daemon = rig(
        card="tiny",
        limits={"rendering": "processes", "threads": 2},
        retry={"max_attempts": 50, "base_delay_s": 0.1, "max_delay_s": 0.3},
    )
    daemon.start()
    for number in range(30):
        drop(daemon.hot() / f"{number:02}.jpg", jpeg(number, width=320, height=240))
    for _ in range(4):
        daemon.wait(daemon.renderers, timeout=20)
        for process in daemon.renderers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.5)
    daemon.wait(lambda: daemon.counts().get("done") == 30, timeout=60)
    for sidecar, content in daemon.sidecars().items():
        check_set(sidecar, content, daemon.out())
        assert {"refine", "encode"} <= set(content["timings_ms"])
    assert len(daemon.sidecars()) == 30 and not daemon.reports() and not daemon.leftovers()
    processes = daemon.renderers()
    assert daemon.stop() == 0
    assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_renderers_die_with_the_daemon(rig):
    daemon = rig(card="tiny", limits={"rendering": "processes", "threads": 2})
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    processes = daemon.renderers()
    assert processes
    daemon.kill()
    assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_without_a_gpu_threads_render(rig):
    daemon = rig(card="tiny")
    daemon.start()
    drop(daemon.hot() / "a.jpg", jpeg(1))
    daemon.wait_done("a.jpg")
    assert daemon.renderers() == []
