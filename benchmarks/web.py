"""200 clients upload 1080p photos at the same time to a service with a short queue.

Each sends until its photo is accepted, as it is told by 429 and Retry-After, and waits for its
matte. What counts: nobody gets another error, everybody an answer, and memory stays bounded.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks import photos
from benchmarks.service import FAKE, running, write_config
from benchmarks.setting import Setting
from benchmarks.table import Table

TITLE = "Uploads over HTTP"
QUEUE = 20
SIZE = (1920, 1080)
START_S = 30.0
RAMP_S = 2.0


@dataclass
class Tally:
    """`over`: for each answer, seconds beyond the job's own time from admission to its end."""

    statuses: Counter[int] = field(default_factory=Counter)
    over: list[float] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)


def run(setting: Setting) -> list[Table]:
    clients, alone = setting.count(200, quick=12), setting.count(40, quick=5)
    with setting.folder("web") as folder:
        paths = photos.make(setting.photos, folder / "photos", count=8, size=SIZE)
        contents = [path.read_bytes() for path in paths]
        config = _configured(folder)
        with running(config), _serving(config) as (url, pid):
            quiet = _one_by_one(url, contents, alone)
            at_rest = _peak_mb(pid)
            spread = _together(url, contents, clients, within=RAMP_S)
            began = time.monotonic()
            crowd = _together(url, contents, clients, within=0.0)
            seconds = time.monotonic() - began
            peak = _peak_mb(pid)
    return [
        Table(
            TITLE,
            (
                "",
                "clients",
                "answered",
                "errors but 429",
                "429",
                "over p50, ms",
                "over p95, ms",
                "peak RSS, MB",
            ),
            (
                ("one by one", 1, *_row(quiet), round(at_rest)),
                (f"one after another begins, within {RAMP_S:g} s", clients, *_row(spread), ""),
                ("all begin in one moment", clients, *_row(crowd), round(peak)),
            ),
            (
                (
                    f"1080p JPEGs of {len(contents[0]) / 1e3:.0f} kB, an engine that costs nothing, max_waiting {QUEUE};"
                    f" the last crowd took {seconds:.0f} s."
                ),
                "over: from the first byte out to the whole answer, less the job's own time from admission to end.",
            ),
        )
    ]


def _row(tally: Tally) -> tuple[int, int, int, float, float]:
    bad = sum(count for status, count in tally.statuses.items() if status not in (200, 202, 429))
    over = sorted(tally.over)
    p95 = over[max(0, -(-len(over) * 95 // 100) - 1)]
    return tally.states["done"], bad, tally.statuses[429], 1000 * median(over), 1000 * p95


def _configured(folder: Path) -> Path:
    path = write_config(folder, model=FAKE, source="delete")
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["web"] = {
        "listen": "127.0.0.1:0",
        "max_waiting": QUEUE,
        "requests_per_minute": 100_000,
        "wait_s": 600,
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@contextmanager
def _serving(config: Path) -> Iterator[tuple[str, int]]:
    log = config.parent / "web.txt"
    command = [sys.executable, "-m", "watcher", "web", "--config", str(config)]
    with (
        log.open("wb") as words,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words) as service,
    ):
        try:
            deadline = time.monotonic() + START_S
            while not (found := re.search(r"path=(\S+)", log.read_text(encoding="utf-8"))):
                if service.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the service did not start: {log.read_text(encoding='utf-8')}")
                time.sleep(0.05)
            yield found[1], service.pid
        finally:
            service.terminate()
            service.wait(30)


def _one_by_one(url: str, contents: list[bytes], count: int) -> Tally:
    tally = Tally()
    line = _line(url)
    for number in range(count):
        _upload(line, contents[number % len(contents)], tally)
    line.close()
    return tally


def _together(url: str, contents: list[bytes], count: int, *, within: float) -> Tally:
    """A thread for each client, and nothing cleverer than http.client in it: it shares the cores that it measures."""
    tally, start = Tally(), threading.Barrier(count)

    def client(number: int) -> None:
        with closing(_line(url)) as line:
            start.wait()
            time.sleep(number * within / count)
            _upload(line, contents[number % len(contents)], tally)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return tally


def _line(url: str) -> HTTPConnection:
    return HTTPConnection(url.removeprefix("http://").rstrip("/"), timeout=600)


def _upload(line: HTTPConnection, content: bytes, tally: Tally) -> None:
    """Until it is accepted, as the service says when."""
    while True:
        began = time.time()
        try:
            line.request("POST", "/v1/jobs?wait=600", body=content)
            answer = line.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            print(f"   no answer: {error!r}", flush=True)
            tally.statuses[0] += 1
            return
        tally.statuses[answer.status] += 1
        if answer.status != 429:
            break
        time.sleep(float(answer.headers["Retry-After"]) * random.uniform(0.5, 1.0))
    now = time.time()
    if answer.status in (200, 202):
        job: dict[str, Any] = json.loads(body)
        tally.states[job["state"]] += 1
        tally.over.append(now - began - (job["ended_at"] - job["admitted_at"]))


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6  # type: ignore[index]
