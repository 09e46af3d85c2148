"""The plots of the documentation, made from the tables of the record."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.plot import Plot, Point
from benchmarks.table import Cell, Table


def plots_of(name: str, tables: Sequence[Table]) -> list[Plot]:
    """What there is to draw of the benchmark `name`."""
    match name:
        case "journal":
            return [_journal(tables[0])]
        case "growth":
            return [_memory(tables[0])]
        case "gpu":
            return [_gpu(tables[0])]
        case "fleet_simulation":
            return [_fleet(tables[0])]
    return []


def _number(cell: Cell) -> float:
    assert isinstance(cell, int | float)
    return float(cell)


def _journal(table: Table) -> Plot:
    """CPU: what a disk takes to sync does not depend on the queue, but on who else writes."""
    what, waiting, cpu = (table.columns.index(name) for name in ("what", "waiting jobs", "CPU ms"))
    lines: dict[str, list[Point]] = {}
    for row in table.rows:
        if str(row[what]) in ("admit one", "claim one", "finish one"):
            lines.setdefault(str(row[what]), []).append((_number(row[waiting]), _number(row[cpu])))
    return Plot("What the journal costs a photo", "jobs in the journal", "CPU ms", lines, decades=True)


def _memory(table: Table) -> Plot:
    lines: dict[str, list[Point]] = {}
    for engine, points in table.samples.items():
        last = points[-1][0] or 1
        # A hundred points are a curve.
        some = points[:: max(1, len(points) // 100)]
        for place, who in ((1, "daemon"), (2, "worker")):
            lines[f"{who}, {engine}"] = [(100 * point[0] / last, float(point[place])) for point in some]
    return Plot("Memory over a long run", "% of the photos", "RSS, MB", lines)


def _gpu(table: Table) -> Plot:
    columns = ("ms an image", "in batches of", "workers", "computing, % of the time")
    speed, batch, workers, busy = (table.columns.index(name) for name in columns)
    lines: dict[str, list[Point]] = {}
    for row in table.rows:
        name = f"{row[workers]} worker(s), batches of {row[batch]}"
        lines.setdefault(name, []).append((_number(row[speed]), _number(row[busy])))
    return Plot("How much of its time a simulated GPU computes", "ms an image", "% of the time", lines)


def _fleet(table: Table) -> Plot:
    share, nodes, rate = (
        table.columns.index(name) for name in ("share, ms a look", "nodes", "photos a second")
    )
    lines: dict[str, list[Point]] = {}
    for row in table.rows:
        name = f"share: {row[share]} ms a look"
        lines.setdefault(name, []).append((_number(row[nodes]), _number(row[rate])))
    return Plot("A simulated fleet, nodes of 5 photos a second", "nodes", "photos a second", lines)
