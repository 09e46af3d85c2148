"""What photos take on cores that have nothing else to do: on one of them, or on all at one time, each by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from benchmarks.service import REAL
from benchmarks.usage import cpu_seconds, tree_cpu_seconds
from watcher.config import Folder, Profile
from watcher.domain import EngineAbout, Job, Source, Stamp
from watcher.engine import weights
from watcher.engine.card import card_folders, load_card, proxy_size, sizes_of
from watcher.engine.client import EngineClient
from watcher.engine.launch import prepare
from watcher.pipeline.decode import DecodeLimits
from watcher.pipeline.looks import Canvases, Look, View
from watcher.pipeline.naming import Names
from watcher.pipeline.readers import Readers
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.work import FolderWork

Proxy = NDArray[np.uint8]
Alpha = NDArray[np.float32]
ABOUT = EngineAbout("modnet", "onnx", "onnxruntime", "cpu", None)
# Of a photo (its name, the number of the look, what is looked at): the alpha.
Asked = Callable[[str, int, Proxy], Alpha]


@dataclass(frozen=True, slots=True)
class Least:
    """CPU milliseconds of one photo: in the engine, and in all the rest."""

    engine: float
    rest: float

    @classmethod
    def of(cls, photos: list[Least]) -> Least:
        return cls(mean(photo.engine for photo in photos), mean(photo.rest for photo in photos))

    @property
    def sum(self) -> float:
        return self.engine + self.rest


def count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


# So many photos come first and do not count: with them a worker has had all the memory that photos like these take, which a
# machine may have to fetch from its host (docs/benchmarks.md).
WARM = 4


def alone(made: list[Path], folder: Path, *, told: Path | None = None) -> list[Least]:
    """Each of the photos with nothing beside it, after the first few of them; results go below `folder`.

    `told`: the answers of an engine that lie there (`tell`); None: a worker of one thread computes them.
    """
    stages = _stages(made[:WARM], folder, told)
    try:
        return [stages.took(path) for path in made]
    finally:
        stages.close()


def beside(made: list[Path], folder: Path, *, told: Path | None = None) -> list[Least]:
    """`alone` on every core at one time, until the last photo: each core takes the next one when it is free."""
    processes = min(count(), len(made))
    with ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_begin, initargs=(made[:WARM], folder, told)
    ) as pool:
        return list(pool.map(_next, made))


def tell(made: list[Path], folder: Path) -> Path:
    """A folder below `folder` with the alphas of all looks at `made`; one photo after the other, on all cores."""
    told = folder / "told"
    told.mkdir(parents=True)
    client = _engine(threads=0)

    def ask(name: str, number: int, proxy: Proxy) -> Alpha:
        (alpha,) = client.infer([proxy], timeout=120.0)
        np.save(_told(told, name, number), alpha)
        return alpha

    stages = _Stages(made[:1], folder / "telling", ask)
    try:
        for path in made[1:]:
            stages.took(path)
    finally:
        stages.close()
        client.close()
    return told


def _told(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{number}.npy"


def _engine(*, threads: int) -> EngineClient:
    card = load_card(REAL, card_folders(None))
    graph = weights.ensure(card, weights.cache_folder(None))
    launch = prepare(card, graph, device="cpu", threads=threads)
    client = EngineClient(launch.python, launch.engine_file, arena_bytes=launch.arena_bytes)
    client.boot(launch.hello, timeout=launch.boot_timeout)
    return client


_process: list[_Stages] = []  # of a process of that pool; they end with it


def _begin(warm: list[Path], folder: Path, told: Path | None) -> None:
    # Each with results of its own: all begin with the same photos.
    _process.append(_stages(warm, folder / str(os.getpid()), told))


def _next(path: Path) -> Least:
    return _process[0].took(path)


def _stages(warm: list[Path], folder: Path, told: Path | None) -> _Stages:
    if told is None:
        client = _engine(threads=1)
        return _Stages(warm, folder, lambda _, __, proxy: client.infer([proxy], timeout=120.0)[0], client)
    return _Stages(warm, folder, lambda name, number, _: np.load(_told(told, name, number)))


class _Stages:
    """All stages of one photo after the other, with a process that reads. `warm` come first.

    `client`: the engine whose CPU time is counted by itself, and which is closed in the end.
    """

    def __init__(
        self, warm: list[Path], folder: Path, ask: Asked, client: EngineClient | None = None
    ) -> None:
        card = load_card(REAL, card_folders(None))
        self._ask = ask
        self._client = client
        self._readers = Readers(timeout=120.0)
        hot = Folder(path=warm[0].parent, output=folder)
        self._work = FolderWork(
            {"hot": Recipe("hot", hot, "portrait", Profile(), lambda: ABOUT, Names())},
            proxy_size=partial(proxy_size, card=card),
            canvases=lambda width, height: Canvases((width, height), *sizes_of(width, height, card)),
            limits=DecodeLimits(),
            reads=self._readers,
        )
        for path in warm:
            self._pass(path)

    def took(self, path: Path) -> Least:
        engine, all_ = self._inside(), tree_cpu_seconds(os.getpid())
        self._pass(path)
        inside = self._inside() - engine
        # The processes that read photos are below this one, too.
        return Least(1000 * inside, 1000 * (tree_cpu_seconds(os.getpid()) - all_ - inside))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._readers.close()

    def _inside(self) -> float:
        return cpu_seconds(self._client.pid) if self._client is not None else 0.0

    def _pass(self, path: Path) -> None:
        """With as many looks as the daemon takes."""
        job = Job(1, Source("hot", path.name, Stamp.of(path.stat())), attempts=1, fence=1)
        frame = self._work.decode(job, reserve=lambda _: None)
        views: list[View] = []
        look, proxy = None, frame.proxy
        while True:
            alpha = self._ask(path.name, len(views), proxy)
            views.append(View(look or Look.whole((alpha.shape[1], alpha.shape[0])), alpha))
            look = self._work.next_look(frame, views)
            if look is None:
                break
            proxy = self._work.show(frame, look)
        self._work.deliver(self._work.render(frame, self._work.conclude(views), timings={}), timings={})
