"""What each format of a cutout costs to write, and how large it gets, beside Pillow's PNG."""

from __future__ import annotations

import ctypes
import io
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import photos
from benchmarks.setting import Setting
from benchmarks.table import Cell, Table
from watcher.domain import Frame, Job, Metadata, Pixels, Source, Stamp
from watcher.outputs import Output
from watcher.pipeline import encode
from watcher.pipeline.refine import Refined, refine

TITLE = "Outputs"
COLUMNS = ("output", "CPU ms", "MB", "size, to Pillow's PNG")
OUTPUTS: dict[str, dict[str, object]] = {
    **{f"PNG, compression {n}": {"suffix": ".png", "compression": n} for n in range(4)},
    "TIFF, deflate": {"suffix": ".tif"},
    "TIFF, zstd": {"suffix": ".tif", "pack": "zstd"},
    "TIFF, lzw": {"suffix": ".tif", "pack": "lzw"},
    "TIFF, none": {"suffix": ".tif", "pack": "none"},
    "PSD": {"suffix": ".psd"},
    "JPEG XL, lossless": {"suffix": ".jxl", "compression": 0},
    "JPEG XL, quality 90": {"suffix": ".jxl", "lossless": False, "quality": 90, "compression": 0},
    "WebP, lossless": {"suffix": ".webp", "compression": 0},
    "WebP, quality 85": {"suffix": ".webp", "lossless": False, "quality": 85},
    "AVIF, quality 80": {"suffix": ".avif", "quality": 80},
    "JPEG over white": {"kind": "composite", "suffix": ".jpg"},
    "JPEG over a blurred original": {"kind": "composite", "suffix": ".jpg", "background": "blur"},
    "PNG, foreground": {"kind": "foreground", "suffix": ".png"},
    "PNG, trimap": {"kind": "trimap", "suffix": ".png"},
    "PNG, matte": {"kind": "matte", "suffix": ".png"},
}
# Encoded by a process of its own each, so that its peak is its own.
PEAKS = ("PNG, compression 1", "TIFF, deflate", "PSD", "WebP, lossless", "JPEG over a blurred original")
PEAK_SIZE = (8192, 5464)


def run(setting: Setting) -> list[Table]:
    times = setting.count(3, quick=1)
    frame, refined = scene(setting.photos, photos.FULL_HD if setting.quick else photos.LARGE)
    notes = (
        f"One portrait of {frame.width} x {frame.height}, 8 bits, an ellipse as alpha; medians of {times}.",
        "A cutout unless it says otherwise. Pillow: `save(..., 'PNG')` as it is without options.",
    )
    rows = tuple(_rows(frame, refined, times))
    tables = [Table(TITLE, COLUMNS, rows, notes)]
    if not setting.quick:
        tables.append(Table(f"{TITLE}, memory", PEAK_COLUMNS, tuple(_peaks(setting)), PEAK_NOTES))
    return tables


def scene(portraits: tuple[Path, ...], size: tuple[int, int]) -> tuple[Frame, Refined]:
    """A photo of `size` made of the first portrait, and its cutout by an ellipse with soft edges."""
    with Image.open(portraits[0]) as image:
        pixels = np.array(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    height, width = pixels.shape[:2]
    y, x = np.mgrid[: height // 8, : width // 8].astype(np.float32) * 8
    distance = np.hypot((x - width / 2) / (0.28 * width), (y - height * 0.6) / (0.55 * height))
    alpha = np.clip((1 - distance) * 20 + 0.5, 0, 1)
    job = Job(1, Source("hot", "a.jpg", Stamp(1, 1)), 1, 1)
    proxy = np.zeros((8, 8, 3), np.uint8)
    frame = Frame(job, Path("a.jpg"), pixels, None, None, Metadata(), proxy, "0" * 64, "JPEG")
    return frame, refine(frame, alpha, method="bilinear", decontaminate=True)


def output_of(settings: dict[str, object]) -> Output:
    return Output.model_validate({"kind": "cutout", **settings})


def _rows(frame: Frame, refined: Refined, times: int) -> list[tuple[Cell, ...]]:
    cost, size = _cost(lambda: _by_pillow(refined.cutout), times)
    rows: list[tuple[Cell, ...]] = [("PNG by Pillow", cost, size / 1e6, 1.0)]
    for name, settings in OUTPUTS.items():
        output = output_of(settings)
        cost, own = _cost(lambda: encode.encode(output, refined, frame), times)  # noqa: B023  (called at once)
        rows.append((name, cost, own / 1e6, own / size))
    return rows


def _by_pillow(cutout: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(cutout).save(buffer, "PNG")
    return buffer.getvalue()


def _cost(work: Callable[[], bytes], times: int) -> tuple[float, int]:
    """Median CPU milliseconds, and how many bytes came of it."""
    work()
    spent = []
    for _ in range(times):
        began = time.process_time()
        content = work()
        spent.append(1000 * (time.process_time() - began))
    return statistics.median(spent), len(content)


# --- Memory --------------------------------------------------------------------------------

PEAK_COLUMNS = ("output", "MB before", "MB more at the peak", "MB of the file")
PEAK_NOTES = (
    f"{PEAK_SIZE[0]} x {PEAK_SIZE[1]} (45 megapixels), 8 bits. Frame (134 MB) and cutout (179 MB) are in `before`.",
    "The file is in the peak.",
)


def _peaks(setting: Setting) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for name in PEAKS:
        command = [sys.executable, "-m", "benchmarks.outputs", name, str(setting.photos[0])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        before, peak, size = (int(word) / 1e6 for word in done.stdout.split())
        rows.append((name, before, peak - before, size))
    return rows


def _peak(name: str, portrait: Path) -> None:
    """In a process of its own: bytes resident before, at the peak, and of the file."""
    frame, refined = scene((portrait,), PEAK_SIZE)
    output = output_of(OUTPUTS[name])
    small, cut = scene((portrait,), (64, 48))
    encode.encode(output, cut, small)  # compiles
    ctypes.CDLL(None).malloc_trim(0)  # or what the scene took would hide what encoding takes
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _status("VmRSS")
    content = encode.encode(output, refined, frame)
    print(before, _status("VmHWM"), len(content))


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    _peak(sys.argv[1], Path(sys.argv[2]))
