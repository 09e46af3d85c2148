"""Compare mattes with the truth: SAD, MAD, MSE, Grad and Conn (Rhemann et al. 2009).

  hotmatte evaluate matte.png truth.png
  hotmatte evaluate mattes/ truth/             by name: a.matte.png, a.cutout.png or a.png against
                                               truth/a.png, sub-folders too; also tif, jxl, psd ...
  hotmatte evaluate mattes/ truth/ --json

A picture with an alpha channel counts by that, any other by its grey levels. SAD, Grad and
Conn are in thousands. "band" is the unknown region of the trimap: of --trimap DIR (by name;
128 is unknown), else the true soft edge widened by 12 pixels. Sizes must be equal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from watcher.domain import Pixels, printable
from watcher.endings import ENDINGS
from watcher.errors import InputError, InputRejected
from watcher.exits import OK, SOME_FAILED
from watcher.metrics import Field, Scores, scores, unknown_band

NEEDS_SETTINGS = False
# What a result of ours may be called, seen from the photo's name: the surest first.
KINDS = (".matte", ".cutout", "")
FORMATS = ("png", "tif", "tiff", "jxl", "psd", "psb", "webp", "avif")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("predicted", type=Path, metavar="PREDICTED", help="a matte, or a folder of mattes")
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="the true alpha, or a folder of them")
    parser.add_argument("--trimap", type=Path, metavar="PATH", help="a trimap, or a folder of them")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    pairs, problems = _pairs(args.predicted, args.truth)
    measured: dict[str, dict[str, Scores]] = {}
    for name, predicted, truth in pairs:
        try:
            measured[printable(name)] = _measure(predicted, truth, _trimap(args.trimap, name, args.truth))
        except (InputRejected, ValueError) as error:
            problems.append(f"{name}: {error}")
    problems = [printable(problem) for problem in problems]
    if args.json:
        print(json.dumps(_record(measured, problems), indent=2, ensure_ascii=False))
    elif measured:
        print("\n".join(_table(measured)))
    for problem in problems:
        print(f"hotmatte evaluate: {problem}", file=sys.stderr)
    return SOME_FAILED if problems or not measured else OK


def _pairs(predicted: Path, truth: Path) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """(name, predicted, truth) for each true alpha, and what has no counterpart."""
    lacking = [path for path in (predicted, truth) if not path.exists()]
    if lacking:
        return [], [f"{path}: there is no such file or folder" for path in lacking]
    if not truth.is_dir() and not predicted.is_dir():
        return [(truth.stem, predicted, truth)], []
    found, problems = [], []
    for name, path in _pictures(truth):
        candidates = (predicted / f"{name}{kind}.{ending}" for kind in KINDS for ending in FORMATS)
        match = next((candidate for candidate in candidates if candidate.is_file()), None)
        if match is None:
            words = " or ".join(f"{path.stem}{kind}.png" for kind in KINDS)
            problems.append(f"{name}: there is no {words}, nor one as tif, jxl or psd, in {predicted}")
        else:
            found.append((name, match, path))
    if not found and not problems:
        problems.append(f"{truth}: there is no picture in it")
    return found, problems


def _pictures(root: Path) -> list[tuple[str, Path]]:
    """(name, path) of each picture below `root`; its name is its path there without the ending."""
    if not root.is_dir():
        return [(root.stem, root)]
    paths = (path for path in root.rglob("*") if path.suffix[1:].lower() in ENDINGS and path.is_file())
    inside = [(path.relative_to(root), path) for path in paths]
    return sorted(
        (str(relative.with_suffix("")), path)
        for relative, path in inside
        if not any(part.startswith(".") for part in relative.parts)
    )


def _trimap(given: Path | None, name: str, truth: Path) -> Path | None:
    """The trimap of the picture called `name`. Raises ValueError where there is none."""
    if given is None or (given.is_file() and not truth.is_dir()):
        return given
    if given.is_file():
        raise ValueError(f"{given} is one trimap for many pictures; name a folder of them")
    found = dict(_pictures(given)).get(name) if given.is_dir() else None
    if found is None:
        raise ValueError(f"there is no trimap {name} in {given}")
    return found


def _measure(predicted: Path, truth: Path, trimap: Path | None) -> dict[str, Scores]:
    first, second = read_alpha(predicted), read_alpha(truth)
    if first.shape != second.shape:
        raise ValueError(
            f"{predicted.name} is {_size(first)}, but the truth {_size(second)}: they must be of one size"
        )
    measured = {"whole": scores(first, second)}
    if trimap is None:
        band = unknown_band(second)
    else:
        levels = read_alpha(trimap)
        if levels.shape != second.shape:
            raise ValueError(f"the trimap {trimap.name} is {_size(levels)}, but the truth {_size(second)}")
        band = (levels > 0.25) & (levels < 0.75)
    if band.any():
        measured["band"] = scores(first, second, band)
    return measured


def _size(field: Field) -> str:
    return f"{field.shape[1]} x {field.shape[0]}"


def read_alpha(path: Path) -> Field:
    """The alpha channel of a picture, or its grey levels, as HxW in 0..1. Raises InputRejected."""
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputRejected(f"{path} cannot be read: {error.strerror}") from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    picture: NDArray[Any] | None = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if picture is None:
        return _read_as_photo(path, content.tobytes())
    if picture.dtype not in (np.uint8, np.uint16):
        raise InputRejected(f"{path} is not a picture of 8 or 16 bits")
    if picture.ndim == 3:
        picture = picture[..., 3] if picture.shape[2] == 4 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return np.asarray(picture / np.float32(np.iinfo(picture.dtype).max), np.float32)


def _read_as_photo(path: Path, content: bytes) -> Field:
    """What OpenCV cannot read, but we write: TIFFs with Zstandard, JPEG XL, PSD. Raises InputRejected."""
    # Only now: they bring what reads pictures, which --help can do without.
    from watcher.pipeline import pixels, sniff
    from watcher.pipeline.scale import unit

    try:
        picture = pixels.read(content, sniff.kind_of(content))
    except InputError as error:
        raise InputRejected(f"{path} is not a picture that can be read: {error}") from error
    if picture.opacity is not None:
        return unit(picture.opacity)
    return unit(cast(Pixels, cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2GRAY)))


def _mean(measured: Sequence[Scores]) -> Scores:
    means = {f.name: sum(getattr(one, f.name) for one in measured) / len(measured) for f in fields(Scores)}
    return Scores(**{**means, "pixels": round(means["pixels"])})


def _means(measured: dict[str, dict[str, Scores]]) -> dict[str, Scores]:
    regions = [region for region in ("whole", "band") if any(region in one for one in measured.values())]
    return {region: _mean([one[region] for one in measured.values() if region in one]) for region in regions}


def _record(measured: dict[str, dict[str, Scores]], problems: list[str]) -> dict[str, Any]:
    images = {name: {region: asdict(s) for region, s in one.items()} for name, one in measured.items()}
    return {
        "images": images,
        "mean": {region: asdict(s) for region, s in _means(measured).items()} if measured else {},
        "problems": problems,
    }


def _table(measured: dict[str, dict[str, Scores]]) -> list[str]:
    rows: list[tuple[str, ...]] = [("image", "region", "SAD", "MAD e-3", "MSE e-3", "Grad", "Conn")]
    for name, one in [*measured.items(), ("MEAN", _means(measured))]:
        rows += [(name, region, *_cells(found)) for region, found in one.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _cells(found: Scores) -> tuple[str, ...]:
    values = (found.sad, found.mad * 1000, found.mse * 1000, found.grad, found.conn)
    return tuple(f"{value:.3f}" if value < 10 else f"{value:.2f}" for value in values)
