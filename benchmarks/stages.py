"""What each stage costs one photo at a time, beside the least that any program would have to do."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from isal import isal_zlib

from benchmarks import photos
from benchmarks.service import REAL
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from benchmarks.usage import children, rise_mb, scheduled, works_on_photos
from watcher.config import Folder, Profile
from watcher.domain import EngineAbout, Frame, Job, Pixels, Source, Stamp
from watcher.engine import weights
from watcher.engine.card import Card, card_folders, load_card, proxy_size
from watcher.engine.launch import prepare
from watcher.engine.supervisor import Supervisor
from watcher.pipeline import encode, publish
from watcher.pipeline.decode import DecodeLimits, decode
from watcher.pipeline.finish import finish
from watcher.pipeline.naming import Names
from watcher.pipeline.pages import keep_pages
from watcher.pipeline.readers import Readers
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.refine import Refined, refine

TITLE = "Stages"
SIZES = {"1080p": photos.FULL_HD, "24 MP": photos.LARGE}
LEAST_S = 0.02
ABOUT = EngineAbout("modnet", "onnx", "onnxruntime", "cpu", None)


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians, milliseconds. `cpu` counts every thread of this process and of the one that reads photos."""

    cpu: float
    wall: float


def run(setting: Setting) -> list[Table]:
    times = setting.count(15, quick=2)
    tables = []
    card = load_card(REAL, card_folders(None))
    supervisor = Supervisor(prepare(card, weights.ensure(card, weights.cache_folder(None)), device="cpu"))
    readers = Readers(timeout=120.0)
    try:
        for name, size in SIZES.items():
            with setting.folder("stages") as folder:
                (photo,) = photos.make(setting.photos[:1], folder / "hot", count=1, size=size)
                stages = _Stages(photo, folder, card, supervisor, readers)
                tables.append(Table(f"{TITLE}, {name}", COLUMNS, tuple(stages.rows(times)), NOTES))
    finally:
        readers.close()
        supervisor.close()
    return tables


COLUMNS = ("stage", "CPU ms", "wall ms", "floor, CPU ms", "floor", "peak, bytes a pixel")
NOTES = (
    "One JPEG, alpha by MODNet, default profile: cutout and matte. Inference is not in it.",
    "Decoded as the daemon does it, in a process of its own, whose CPU is counted; the floor needs none.",
    "Peak: by how much the daemon's process grows, what it makes included, what it is given not.",
    "`whole` is what the daemon runs, in one go: it also hashes, names, reviews and writes the sidecar.",
)


class _Stages:
    """One photo and what each stage made of it, as the next one's input."""

    def __init__(
        self, photo: Path, folder: Path, card: Card, supervisor: Supervisor, readers: Readers
    ) -> None:
        # As the daemon does: photos run side by side, and threads that wait for each other cost.
        cv2.setNumThreads(1)
        keep_pages()
        self._photo = photo
        self._readers = readers
        self._out = folder / "mattes"
        self._out.mkdir()
        self._scratch = folder / "floor.bin"
        source = Source("hot", photo.name, Stamp.of(photo.stat()))
        self._job = Job(1, source, attempts=1, fence=1)
        self._proxy_size = partial(proxy_size, card=card)
        hot = Folder(path=photo.parent, output=self._out)
        self._recipe = Recipe("hot", hot, "portrait", Profile(), lambda: ABOUT, Names())
        self._frame = self._decoded()
        (self._alpha,) = supervisor.infer([self._frame.proxy], timeout=120.0)
        self._refined = self._refine()
        self._contents = self._encoded()
        self._rgba = np.empty((*self._frame.pixels.shape[:2], 4), np.uint8)

    def rows(self, times: int) -> list[tuple[Cell, ...]]:
        jpeg = self._photo.read_bytes()
        filtered = [_up(self._refined.cutout), _up(self._refined.alpha[..., None])]
        stages: list[tuple[str, Callable[[], object], Callable[[], object], str]] = [
            ("decode", self._decoded, lambda: simplejpeg.decode_jpeg(jpeg, "RGB"), "TurboJPEG alone"),
            ("refine", self._refine, self._copied, "read RGB, write RGBA"),
            (
                "encode",
                self._encoded,
                lambda: [isal_zlib.compress(rows, 1) for rows in filtered],
                "ISA-L level 1 alone, rows filtered before",
            ),
            ("publish", self._publish, self._written, "write the same bytes, fsync once"),
        ]
        rows: list[tuple[Cell, ...]] = []
        for name, stage, least, words in stages:
            cost, floor = _cost(stage, times), _cost(least, times)
            rows.append((name, cost.cpu, cost.wall, floor.cpu, words, self._peak(stage)))
        whole = _cost(self._whole, times)
        rows.append(
            (
                "whole",
                whole.cpu,
                whole.wall,
                sum(float(str(row[3])) for row in rows),
                "all of these",
                self._peak(self._whole),
            )
        )
        return rows

    def _peak(self, stage: Callable[[], object]) -> float:
        """What `stage` holds at most besides its input, results included."""
        return rise_mb(stage) * 1e6 / (self._frame.width * self._frame.height)

    # --- Stages ----------------------------------------------------------------------------

    def _decoded(self) -> Frame:
        return decode(
            self._job,
            self._photo,
            proxy_size=self._proxy_size,
            limits=DecodeLimits(),
            reserve=lambda _: None,
            reads=self._readers,
        )

    def _refine(self) -> Refined:
        profile = self._recipe.profile
        return refine(
            self._frame,
            self._alpha,
            method=profile.refine,
            side=profile.refine_side,
            decontaminate=profile.decontaminate,
        )

    def _encoded(self) -> list[tuple[str, bytes]]:
        outputs = self._recipe.profile.outputs
        return [(output.suffix, encode.encode(output, self._refined, self._frame)) for output in outputs]

    def _publish(self) -> None:
        publish.publish_all(self._out, "photo", self._contents, sidecar=b"{}\n", job_id=1)

    def _whole(self) -> None:
        finish(self._decoded(), self._alpha, self._recipe)

    # --- Floors ----------------------------------------------------------------------------

    def _copied(self) -> None:
        cv2.cvtColor(self._frame.pixels, cv2.COLOR_RGB2RGBA, dst=self._rgba)

    def _written(self) -> None:
        place = os.open(self._scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for _, content in self._contents:
            os.write(place, content)
        os.fsync(place)
        os.close(place)


def _up(image: Pixels) -> bytes:
    """The bytes that a PNG of `image` (8 bits, HxWxC) deflates: each row less the one above it."""
    rows = image.reshape(len(image), -1)
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered.tobytes()


def _cpu() -> float:
    """Seconds that this process has computed, and the one that reads photos for it."""
    return time.process_time() + sum(
        scheduled(pid)[0] for pid in children(os.getpid()) if works_on_photos(pid)
    )


def _cost(work: Callable[[], object], times: int) -> Cost:
    """Once for the caches, then `times` times; the quickest work several times in a row each time."""
    began = time.perf_counter()
    work()
    repeat = max(1, int(LEAST_S / (time.perf_counter() - began)))
    spent = []
    for _ in range(times):
        cpu, wall = _cpu(), time.perf_counter()
        for _ in range(repeat):
            work()
        spent.append(((_cpu() - cpu) / repeat, (time.perf_counter() - wall) / repeat))
    return Cost(*(1000 * statistics.median(column) for column in zip(*spent, strict=True)))
