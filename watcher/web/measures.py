"""Numbers for Prometheus: read from the journal and the snapshot when somebody asks for them.

Histograms and counters count what has ended since this process began, as scrapers expect.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from watcher import __version__
from watcher.desk import Desk
from watcher.domain import JobState
from watcher.health import holder, read_snapshot
from watcher.journal import Record
from watcher.web.notices import Notices
from watcher.web.results import words_of

STAGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
STATES = ("starting", "watching", "offline", "paused")
# The driver is asked at most this often: it takes some tens of milliseconds.
GPU_EVERY = 10.0
GPU_QUERY = ("--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits")


class Measures:
    def __init__(self, state_dir: Path, desk: Desk, notices: Notices | None = None) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(_Now(state_dir, desk))
        if notices is not None:
            self._registry.register(_Told(notices))
        self._stages = Histogram(
            "hotmatte_stage_seconds",
            "Time in each stage of a photo; wait_ stages are time in a queue",
            ("folder", "stage"),
            buckets=STAGE_BUCKETS,
            registry=self._registry,
        )
        self._jobs = Histogram(
            "hotmatte_job_seconds",
            "From the claim of a photo to its sidecar",
            ("folder",),
            buckets=STAGE_BUCKETS,
            registry=self._registry,
        )
        self._ended = Counter(
            "hotmatte_jobs_ended", "Photos that came to an end", ("folder", "state"), registry=self._registry
        )
        self._requests = Histogram(
            "hotmatte_http_request_seconds",
            "Requests to this service, waiting included",
            ("method", "route", "status"),
            buckets=STAGE_BUCKETS,
            registry=self._registry,
        )

    def ended(self, record: Record) -> None:
        """A job has come to an end."""
        folder = record.job.source.folder
        self._ended.labels(folder, record.state.value).inc()
        words = words_of(record)
        if record.state is JobState.DONE and isinstance(words.get("seconds"), int | float):
            self._jobs.labels(folder).observe(words["seconds"])
        for stage, spent in words.get("stages_ms", {}).items():
            self._stages.labels(folder, stage).observe(spent / 1000)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        return bytes(generate_latest(self._registry))


class _Now:
    """What is true at the moment of the scrape."""

    def __init__(self, state_dir: Path, desk: Desk) -> None:
        self._state_dir = state_dir
        self._desk = desk
        self._gpu = _Gpu()

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering must not ask the driver."""
        return []

    def collect(self) -> Iterator[Metric]:
        pid = holder(self._state_dir)
        snapshot = read_snapshot(self._state_dir) if pid else {}
        build = GaugeMetricFamily("hotmatte_build", "The version of this service", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield _plain("hotmatte_daemon_up", "A daemon holds the state folder", bool(pid))
        yield _plain(
            "hotmatte_daemon_ready", "Engines warm, every folder listed", bool(snapshot.get("ready"))
        )
        yield _plain("hotmatte_running_jobs", "Photos under way", len(snapshot.get("running", ())))
        yield _plain(
            "hotmatte_to_review", "Mattes a person should look at", len(self._desk.to_review(limit=10_000))
        )
        if "written_at" in snapshot:
            age = max(0.0, time.time() - snapshot["written_at"])
            yield _plain("hotmatte_snapshot_age_seconds", "Since the daemon last told of itself", age)
        yield from self._journal(snapshot.get("folders"))
        yield from _folders(snapshot.get("folders", {}))
        yield from _engines(snapshot.get("engines", []))
        yield from _fleets(snapshot.get("fleet", []))
        yield from _cache(snapshot.get("cache", {}))
        yield from self._gpu.collect()

    def _journal(self, folders: Collection[str] | None) -> Iterator[Metric]:
        """`folders`: those that are watched, None while nobody knows."""
        jobs = GaugeMetricFamily("hotmatte_jobs", "Photos in each state", labels=["folder", "state"])
        for folder, states in self._desk.counts().items():
            for state in JobState:
                jobs.add_metric([folder, state.value], states.get(state.value, 0))
        yield jobs
        oldest = GaugeMetricFamily(
            "hotmatte_queue_age_seconds", "How long the oldest waiting photo waits", labels=["folder"]
        )
        for folder, since in self._desk.oldest_waiting().items():
            # What a folder left behind that is no longer configured would raise the alarm for ever.
            if folders is None or folder in folders:
                oldest.add_metric([folder], max(0.0, time.time() - since))
        yield oldest


def _plain(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=float(value))


def _folders(folders: dict[str, Any]) -> Iterator[Metric]:
    state = GaugeMetricFamily("hotmatte_folder_state", "1 for the present state", labels=["folder", "state"])
    figures = {
        "files": GaugeMetricFamily("hotmatte_folder_files", "At the last listing", labels=["folder"]),
        "listing_s": GaugeMetricFamily(
            "hotmatte_folder_listing_seconds", "What the last listing took", labels=["folder"]
        ),
        "unsettled": GaugeMetricFamily(
            "hotmatte_folder_unsettled", "Files that are not whole yet", labels=["folder"]
        ),
    }
    for name, folder in folders.items():
        for word in STATES:
            state.add_metric([name, word], float(folder["state"] == word))
        for key, family in figures.items():
            family.add_metric([name], float(folder.get(key) or 0))
    yield state
    yield from figures.values()


def _engines(engines: list[dict[str, Any]]) -> Iterator[Metric]:
    labels = ["model", "device"]
    restarts = CounterMetricFamily("hotmatte_worker_restarts", "Since the daemon's start", labels=labels)
    paused = GaugeMetricFamily("hotmatte_engine_paused", "1 while it cannot work", labels=labels)
    # Two profiles (device: auto and cpu) may have an engine each of one model on one device: one line of both.
    found: dict[tuple[str, str], tuple[int, bool]] = {}
    for engine in engines:
        about = str(engine.get("model")), str(engine.get("device"))
        times, waits = found.get(about, (0, False))
        found[about] = times + engine.get("restarts", 0), waits or bool(engine.get("paused"))
    for about, (times, waits) in found.items():
        restarts.add_metric(about, times)
        paused.add_metric(about, float(waits))
    yield restarts
    yield paused


def _fleets(fleets: list[dict[str, Any]]) -> Iterator[Metric]:
    """Nothing where there is no fleet."""
    if not fleets:
        return
    broker = GaugeMetricFamily("hotmatte_broker_up", "The broker answers", labels=["model"])
    out = GaugeMetricFamily(
        "hotmatte_fleet_in_flight", "Photos with the nodes or the broker", labels=["model"]
    )
    again = CounterMetricFamily("hotmatte_fleet_resent", "Photos sent once more", labels=["model"])
    alive = GaugeMetricFamily("hotmatte_node_up", "1 while it gives signs of life", labels=["model", "node"])
    holds = GaugeMetricFamily("hotmatte_node_holds", "Photos in its hands", labels=["node"])
    made = CounterMetricFamily("hotmatte_node_photos", "Done since its start", labels=["node"])
    # A node tells of all its models at once, and is told of with each.
    nodes: dict[str, tuple[float, float]] = {}
    for fleet in fleets:
        model = str(fleet["model"])
        broker.add_metric([model], float(not fleet["broker_lost"]))
        out.add_metric([model], fleet["in_flight"])
        again.add_metric([model], fleet["resent"])
        for node in fleet["nodes"]:
            name, up = str(node["node"]), node["state"] != "silent"
            alive.add_metric([model, name], float(up))
            held, done = nodes.get(name, (0.0, 0.0))
            nodes[name] = max(held, float(node["holds"]) if up else 0.0), max(done, float(node["done"] or 0))
    for name, (held, done) in nodes.items():
        holds.add_metric([name], held)
        made.add_metric([name], done)
    yield from (broker, out, again, alive, holds, made)


def _cache(cache: dict[str, Any]) -> Iterator[Metric]:
    if not cache:
        return
    yield _plain("hotmatte_cache_bytes", "What the cache of answers takes", cache["bytes"])
    yield _plain("hotmatte_cache_limit_bytes", "What it may take: cache.size_mb", cache["most_bytes"])
    yield _plain("hotmatte_cache_entries", "Answers and photos by URL", cache["entries"])
    photos = CounterMetricFamily(
        "hotmatte_cache_photos", "Photos whose answer was known, or not", labels=["known"]
    )
    photos.add_metric(["true"], cache["found"])
    photos.add_metric(["false"], cache["asked"] - cache["found"])
    yield photos


class _Told:
    def __init__(self, notices: Notices) -> None:
        self._notices = notices

    def collect(self) -> Iterator[Metric]:
        messages = CounterMetricFamily(
            "hotmatte_notices", "Messages by the `notify` section, or given up", labels=["sent"]
        )
        for word, number in zip(("true", "false"), self._notices.figures, strict=True):
            messages.add_metric([word], number)
        yield messages


class _Gpu:
    """Memory of NVIDIA's cards, by nvidia-smi where there is one."""

    def __init__(self) -> None:
        self._tool = shutil.which("nvidia-smi")
        self._known: tuple[float, list[list[str]]] = (float("-inf"), [])

    def collect(self) -> Iterator[Metric]:
        if self._tool is None:
            return
        family = GaugeMetricFamily(
            "hotmatte_gpu_memory_bytes", "Of the whole card, whoever uses it", labels=["gpu", "kind"]
        )
        for index, used, total in self._rows(self._tool):
            family.add_metric([index, "used"], float(used) * (1 << 20))
            family.add_metric([index, "total"], float(total) * (1 << 20))
        yield family

    def _rows(self, tool: str) -> list[list[str]]:
        when, rows = self._known
        if time.monotonic() - when < GPU_EVERY:
            return rows
        try:
            said = subprocess.run([tool, *GPU_QUERY], capture_output=True, text=True, timeout=5, check=True)
        except (OSError, subprocess.SubprocessError):
            rows = []
        else:
            split = [[word.strip() for word in line.split(",")] for line in said.stdout.splitlines()]
            rows = [row for row in split if len(row) == 3 and all(word.isdigit() for word in row)]
        self._known = (time.monotonic(), rows)
        return rows
