"""`python -m benchmarks.decode_memory [MEGAPIXELS...]`: peak memory and CPU time of reading one photo.

Each file is made and read in a process of its own; the peak is that process's, with the file,
Python and the decoders in it, as in a reader process of the daemon. Not part of `make bench`.
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from watcher.domain import Pixels

SIZES = (24, 45, 100, 151)
SLOW = ("heic10", "avif10")  # their encoders take minutes for more than this
SLOW_MOST = 45
KINDS = ("jpeg", "png16", "tiff16", "psd16", "jxl8", "jxl16", "webp", "dng", *SLOW)
WEBP_SIDE = 16383


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_memory", description=__doc__)
    parser.add_argument("megapixels", nargs="*", type=int, default=SIZES)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--step", choices=("make", "read"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        return _step(args.step, (args.kind or KINDS)[0], args.megapixels[0], args.file)
    print("| format | " + " | ".join(f"{size} MP" for size in args.megapixels) + " |", flush=True)
    for kind in args.kind or KINDS:
        cells = [_measured(kind, size) for size in args.megapixels]
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)
    return 0


def _measured(kind: str, size: int) -> str:
    if kind in SLOW and size > SLOW_MOST:
        return "-"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "photo")
        for step in ("make", "read"):
            command = [sys.executable, "-m", "benchmarks.decode_memory", str(size), "--kind", kind]
            done = subprocess.run(
                [*command, "--step", step, "--file", str(file)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                return done.stderr.strip().splitlines()[-1][:60]
    return done.stdout.strip()


def _step(step: str, kind: str, size: int, file: Path) -> int:
    if step == "make":
        file.write_bytes(_encoded(kind, size))
        return 0
    from watcher.pipeline import pixels, sniff

    content = file.read_bytes()
    began = time.process_time()
    found = sniff.kind_of(content)
    width, height = sniff.size_of(content, found)
    picture = pixels.read(content, found)
    assert picture.pixels.shape[:2] == (height, width)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:.0f} MB, {time.process_time() - began:.1f} s")
    return 0


def _photo(size: int, depth: type) -> Pixels:
    """Soft shapes and a little grain, 3:2."""
    width = round((size * 1.5e6) ** 0.5)
    height = round(size * 1e6 / width)
    chance = np.random.default_rng(1)
    few = chance.integers(0, 200, (12, 18, 3), np.uint8)
    soft = np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    soft += np.resize(chance.integers(0, 8, 1_000_003, np.uint8), soft.shape)
    return soft if depth is np.uint8 else soft.astype(np.uint16) * 257


def _encoded(kind: str, size: int) -> bytes:
    import imagecodecs
    import tifffile

    photo = _photo(size, np.uint8 if kind in ("jpeg", "jxl8", "webp") else np.uint16)
    buffer = io.BytesIO()
    match kind:
        case "jpeg":
            return cv2.imencode(".jpg", photo)[1].tobytes()
        case "png16":
            return cv2.imencode(".png", photo)[1].tobytes()
        case "webp":
            if max(photo.shape) > WEBP_SIDE:
                raise SystemExit(f"no WebP is wider than {WEBP_SIDE}")
            return cv2.imencode(".webp", photo, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()
        case "tiff16":
            tifffile.imwrite(
                buffer, photo, photometric="rgb", compression="zlib", predictor=True, rowsperstrip=64
            )
        case "psd16":
            return _psd(photo)
        case "jxl8" | "jxl16":
            return bytes(imagecodecs.jpegxl_encode(photo, lossless=True, effort=1))
        case "dng":
            return _dng(photo)
        case "avif10":
            return bytes(imagecodecs.avif_encode(photo >> 6, bitspersample=10, level=80, speed=10))
        case "heic10":
            import pillow_heif

            made = pillow_heif.from_bytes("RGB;16", (photo.shape[1], photo.shape[0]), photo.tobytes())
            made.save(buffer, quality=50, enc_params={"preset": "ultrafast"})
    return buffer.getvalue()


def _psd(photo: Pixels) -> bytes:
    height, width = photo.shape[:2]
    head: bytes = b"8BPS\0\2" + bytes(6) + (3).to_bytes(2) + height.to_bytes(4) + width.to_bytes(4)
    head += (16).to_bytes(2) + (3).to_bytes(2) + bytes(4 + 4 + 8) + b"\0\0"
    return head + photo.transpose(2, 0, 1).astype(">u2").tobytes()


def _dng(photo: Pixels) -> bytes:
    import tifffile

    matrix = [32405, 10000, -15371, 10000, -4985, 10000, -9693, 10000, 18760, 10000, 416, 10000]
    matrix += [556, 10000, -2040, 10000, 10572, 10000]
    tags = [
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, bytes([0, 1, 1, 2]), True),
        (50706, "B", 4, bytes([1, 4, 0, 0]), True),
        (50708, "s", 0, "Benchmark", True),
        (50717, "I", 1, 65535, True),
        (50721, "2i", 9, matrix, True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
    ]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, photo[..., 1].copy(), photometric=32803, extratags=tags, metadata=None)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
