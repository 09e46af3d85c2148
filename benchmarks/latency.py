"""From the end of a copy to the sidecar, less what nobody can save: the quiet period and the inference."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import photos
from benchmarks.service import REAL, Service, running, write_config
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table

TITLE = "Latency of a single photo"
QUIET_S = 2.0
PATIENCE_S = 120.0
LOOK_S = 0.001
STAGES = ("decode", "refine", "encode")


def run(setting: Setting) -> list[Table]:
    count = setting.count(10, quick=2)
    with setting.folder("latency") as folder:
        made = photos.make(setting.photos, folder / "photos", count=count + 1)
        with running(write_config(folder, model=REAL, quiet_s=QUIET_S)) as service:
            drops = [_drop(path, service) for path in made]
    first, rest = drops[0], drops[1:]
    rows = (
        ("first after the start", *_row([first])),
        (f"the {len(rest)} after it", *_row(rest)),
    )
    columns = (
        "photo",
        "overhead, median ms",
        "overhead, max ms",
        "beside all stages, max ms",
        "in all, median ms",
        "inference, median ms",
        *(f"{stage}, median ms" for stage in STAGES),
    )
    notes = (
        f"1080p JPEGs, MODNet on the CPU, native observer, quiet period {QUIET_S:g} s, an idle daemon each time.",
        (
            "Overhead: from close() until the sidecar is there, minus the quiet period, minus `timings_ms.infer`."
            f" The sidecar is looked for every {1000 * LOOK_S:g} ms. Beside all stages: minus all that `timings_ms` says,"
            " what remains is noticing, claiming, handing over and the disk. Some photos take three looks: for"
            " these the looks themselves and their edges take 0.1 s more."
        ),
    )
    return [Table(TITLE, columns, rows, notes, {"drops": drops})]


def _drop(photo: Path, service: Service) -> dict[str, Any]:
    """Copy one photo into the hot folder and wait; milliseconds."""
    content = photo.read_bytes()
    sidecar = service.mattes / f"{photo.stem}.matte.json"
    with (service.hot / photo.name).open("wb") as file:
        file.write(content)
    closed = time.perf_counter()
    while not sidecar.exists():
        if time.perf_counter() - closed > PATIENCE_S:
            raise RuntimeError(f"{photo.name} was not done within {PATIENCE_S:g} s")
        time.sleep(LOOK_S)
    total = 1000 * (time.perf_counter() - closed)
    timings = json.loads(sidecar.read_bytes())["timings_ms"]
    waited = total - 1000 * QUIET_S
    beside = waited - sum(timings.values())
    return {"total": total, "overhead": waited - timings["infer"], "beside": beside, "timings": timings}


def _row(drops: list[dict[str, Any]]) -> tuple[Cell, ...]:
    overhead = [drop["overhead"] for drop in drops]
    timings = [drop["timings"] for drop in drops]
    return (
        statistics.median(overhead),
        max(overhead),
        max(drop["beside"] for drop in drops),
        statistics.median(drop["total"] for drop in drops),
        *(statistics.median(each[stage] for each in timings) for stage in ("infer", *STAGES)),
    )
