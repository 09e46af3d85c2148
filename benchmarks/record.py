"""What was measured, when and on what: `record.json`, and the tables of docs/benchmarks.md made from it, with drawings."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.curves import plots_of
from benchmarks.plot import as_svg
from benchmarks.table import Table, as_markdown
from watcher import __version__

SCHEMA = 1
HERE = Path(__file__).parent
RECORD = HERE / "record.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"
PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "mnn",
    "openvino",
    "numba",
    "simplejpeg",
    "isal",
    "pillow",
    "watchdog",
)


def machine() -> dict[str, Any]:
    """What the numbers depend on. `load` is the load average when the benchmark began."""
    return {
        "cpu": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "load": round(os.getloadavg()[0], 2),
        "hotmatte": __version__,
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            **{name: _version(name) for name in PACKAGES},
        },
    }


def _line(path: str, key: str) -> str | None:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Of this checkout, with a plus if files were changed since; None outside one."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def entry(tables: Sequence[Table], machine: dict[str, Any], *, quick: bool, seconds: float) -> dict[str, Any]:
    """One benchmark's part of the record."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "quick": quick,
        "seconds": round(seconds, 1),
        "machine": machine,
        "tables": [table.as_json() for table in tables],
    }


def read(path: Path) -> dict[str, Any]:
    """The entries by the benchmark's name; empty where there is no record."""
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["schema"] != SCHEMA:
        raise ValueError(f"{path} has schema {kept['schema']}, not {SCHEMA}")
    entries: dict[str, Any] = kept["benchmarks"]
    return entries


def keep(path: Path, name: str, found: dict[str, Any]) -> None:
    """Replace one benchmark's entry, leave the others."""
    entries = {**read(path), name: found}
    # A line for each benchmark: a new measurement is one changed line, whatever samples it has.
    lines = [f"{json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in entries.items()]
    text = f'{{"schema": {SCHEMA}, "benchmarks": {{\n' + ",\n".join(lines) + "\n}}"
    path.write_text(text + "\n", encoding="utf-8")


# --- The page ------------------------------------------------------------------------------

_PLACE = re.compile(
    r"(?P<begin><!-- begin: (?P<name>\w+) -->\n).*?(?P<end><!-- end: (?P=name) -->)", re.DOTALL
)


def rendered(page: str, entries: dict[str, Any]) -> str:
    """`page` with what stands between `<!-- begin: NAME -->` and its end replaced by NAME's tables."""

    def filled(place: re.Match[str]) -> str:
        found = entries.get(place["name"])
        words = "*Not measured yet.*" if found is None else _section(place["name"], found)
        return f"{place['begin']}{words}\n{place['end']}"

    return _PLACE.sub(filled, page)


def drawings(entries: dict[str, Any]) -> dict[str, str]:
    """SVG by file name, of every benchmark that has curves."""
    return {
        _drawing(name, number): as_svg(plot)
        for name, found in entries.items()
        for number, plot in enumerate(plots_of(name, _tables(found)))
    }


def _drawing(name: str, number: int) -> str:
    return f"benchmarks-{name}{number or ''}.svg"


def _tables(found: dict[str, Any]) -> list[Table]:
    return [Table.from_json(table) for table in found["tables"]]


def _section(name: str, found: dict[str, Any]) -> str:
    tables = _tables(found)
    plots = [f"![{plot.title}]({_drawing(name, i)})" for i, plot in enumerate(plots_of(name, tables))]
    return "\n\n".join([*map(as_markdown, tables), *plots, _stamp(found)])


def _stamp(found: dict[str, Any]) -> str:
    on = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in on["versions"].items() if number)
    quick = " **A quick run: too few samples to quote.**" if found["quick"] else ""
    return (
        f"*{found['date'][:10]}, hotmatte {on['hotmatte']} ({on['commit'] or 'no checkout'}), {on['cpu']},"
        f" {on['cores']} core(s), {on['memory_gb']} GB, Linux {on['kernel']}, load {on['load']} at the"
        f" beginning. {versions}.*{quick}"
    )
