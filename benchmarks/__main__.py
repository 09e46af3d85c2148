"""`python -m benchmarks [NAME...]`: measure, print, keep. `make bench` runs them all."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import photos, record
from benchmarks.setting import Setting
from benchmarks.table import Table, as_text

NAMES = (
    "startup",
    "journal",
    "engine",
    "stages",
    "cache",
    "gpu",
    "cuda",
    "serial",
    "throughput",
    "slow_disk",
    "runtimes",
    "latency",
    "idle",
    "growth",
    "rembg",
    "outputs",
    "quality",
    "fringe",
    "quality_rembg",
    "web",
    "fleet",
    "fleet_simulation",
)
PHOTO_ENDINGS = (".jpg", ".jpeg", ".png")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if not args.render_only:
        setting = Setting(args.quick, args.scratch, _portraits(args.photos), tuple(args.pairs))
        for name in args.names or NAMES:
            _measure(name, setting, args.record or (None if args.quick else record.RECORD))
    if args.render or args.render_only:
        page = record.PAGE.read_text(encoding="utf-8")
        entries = record.read(args.record or record.RECORD)
        record.PAGE.write_text(record.rendered(page, entries), encoding="utf-8")
        for name, drawing in record.drawings(entries).items():
            record.PAGE.with_name(name).write_text(drawing, encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small counts, only to see that all works; kept only with --record",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="portraits to make photos from, more than once if need be; default: those of the tests",
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="for `quality`: a folder with image/ and alpha/; default: that of the tests",
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir()),
        metavar="DIR",
        help="where hot folders and journals are made: on the kind of disk that matters; default: %(default)s",
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help=f"default: {record.RECORD.name} beside this"
    )
    parser.add_argument("--render", action="store_true", help="then put the tables into docs/benchmarks.md")
    parser.add_argument("--render-only", action="store_true", help="measure nothing, only that")
    return parser


def _portraits(folders: Sequence[Path]) -> tuple[Path, ...]:
    if not folders:
        return photos.SHIPPED
    found = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in PHOTO_ENDINGS]
    if not found:
        sys.exit(f"no photos in {', '.join(map(str, folders))}")
    return tuple(found)


def _measure(name: str, setting: Setting, path: Path | None) -> None:
    if name not in NAMES:
        sys.exit(f"no benchmark is called {name!r} (there are: {', '.join(NAMES)})")
    on, began = record.machine(), time.monotonic()
    print(f"== {name} (load {on['load']})", flush=True)
    tables: list[Table] = importlib.import_module(f"benchmarks.{name}").run(setting)
    seconds = time.monotonic() - began
    for table in tables:
        print(as_text(table), end="\n\n", flush=True)
    print(f"   {name} took {seconds:.0f} s\n", flush=True)
    if path is not None and tables:
        record.keep(path, name, record.entry(tables, on, quick=setting.quick, seconds=seconds))


if __name__ == "__main__":
    sys.exit(main())
