"""What the cache costs a photo that comes for the first time, and saves one that comes again."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import photos
from benchmarks.service import REAL
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import tree_cpu_seconds
from watcher.cache import Cache
from watcher.domain import Job, Source, Stamp
from watcher.engine import weights
from watcher.engine.card import card_folders, load_card, proxy_size
from watcher.engine.launch import prepare
from watcher.engine.supervisor import Supervisor
from watcher.pipeline.answers import packed, unpacked
from watcher.pipeline.decode import DecodeLimits, decode
from watcher.pipeline.looks import Answer

COLUMNS = ("step", "CPU ms", "share of one look", "kB")
NOTES = (
    "One look of MODNet on one thread of a CPU; CPU time of this process and the worker, medians over all photos.",
    "keep: pack the answer, write it. find: read it, check it, unpack it. kB: the answer on disk, raw beside the look.",
)


def run(setting: Setting) -> list[Table]:
    card = load_card(REAL, card_folders(None))
    path = weights.ensure(card, weights.cache_folder(None))
    supervisor = Supervisor(prepare(card, path, device="cpu", threads=1))
    looks, keeps, finds, raw, kept = [], [], [], [], []
    try:
        supervisor.start()
        with setting.folder("cache") as folder, tempfile.TemporaryDirectory(dir=folder) as place:
            cache = Cache(Path(place) / "answers", most=10**9)
            count = setting.count(8, quick=2)
            for photo in photos.make(setting.photos, folder / "hot", count=count, size=photos.FULL_HD):
                job = Job(1, Source("hot", photo.name, Stamp.of(photo.stat())), 1, 1)
                frame = decode(
                    job,
                    photo,
                    proxy_size=lambda width, height: proxy_size(width, height, card),
                    limits=DecodeLimits(),
                    reserve=lambda _: None,
                )
                supervisor.infer([frame.proxy], timeout=120.0)
                looks.append(_cpu_ms(lambda frame=frame: supervisor.infer([frame.proxy], timeout=120.0)))  # type: ignore[misc]
                answer = Answer(supervisor.infer([frame.proxy], timeout=120.0)[0], False)
                keeps.append(_cpu_ms(lambda answer=answer: cache.keep("alpha-1", packed(answer))))  # type: ignore[misc]
                finds.append(_cpu_ms(lambda: unpacked(cache.find("alpha-1") or b"")))
                raw.append(answer.alpha.nbytes / 1e3)
                kept.append(len(packed(answer)) / 1e3)
    finally:
        supervisor.close()
    look = statistics.median(looks)
    steps = (("look", looks, raw), ("keep", keeps, kept), ("find", finds, kept))
    rows: list[tuple[Cell, ...]] = [
        (name, statistics.median(spent), statistics.median(spent) / look, statistics.median(size))
        for name, spent, size in steps
    ]
    return [Table("The cache", COLUMNS, tuple(rows), NOTES)]


def _cpu_ms(step: Callable[[], object]) -> float:
    """Of this process and its children, each of whose ticks is 10 ms: as often as it takes to see many."""
    times, spent = 1, 0.0
    while True:
        before = tree_cpu_seconds(os.getpid())
        for _ in range(times):
            step()
        spent = tree_cpu_seconds(os.getpid()) - before
        if spent > 0.2:
            return spent / times * 1000
        times *= 2
