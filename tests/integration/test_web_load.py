"""200 clients at the same time before a short queue: nobody meets anything but 429, everybody is answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from daemonrig import DaemonRig, jpeg
from webrig import WebRig

CLIENTS = 200
QUEUE = 10


@pytest.fixture
def web(rig: Callable[..., DaemonRig]) -> Iterator[WebRig]:
    daemon = rig(folders={"in": {"source": "delete"}}, card="tiny")
    service = WebRig(daemon, {"max_waiting": QUEUE, "max_uploads": 4, "requests_per_minute": 100_000})
    try:
        daemon.start()
        service.start()
        yield service
    finally:
        service.close()


def peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


async def crowd(url: str, seen: Counter[int]) -> list[int]:
    async def one(number: int, client: httpx.AsyncClient) -> int:
        while True:
            answer = await client.post("/v1/jobs", params={"wait": 60}, content=jpeg(number))
            seen[answer.status_code] += 1
            if answer.status_code != 429:
                job = answer.json()
                assert (answer.status_code, job.get("state")) == (200, "done"), job
                return int(job["job"])
            assert int(answer.headers["retry-after"]) >= 1
            # Sooner than asked: more knocking than the polite do.
            await asyncio.sleep(0.2 + number % 7 / 10)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=110, limits=limits, trust_env=False) as client:
        return await asyncio.gather(*(one(number, client) for number in range(CLIENTS)))


def test_a_crowd_before_a_short_queue_is_answered_to_the_last(web: WebRig) -> None:
    assert web.child is not None
    before = peak_mb(web.child.pid)
    seen: Counter[int] = Counter()
    jobs = asyncio.run(crowd(web.url, seen))
    assert len(set(jobs)) == CLIENTS
    assert set(seen) == {200, 429}
    assert seen[200] == CLIENTS
    assert web.daemon.counts() == {"done": CLIENTS}
    # Connections and threads, not photos.
    assert peak_mb(web.child.pid) - before < 100
    assert not web.daemon.leftovers()
