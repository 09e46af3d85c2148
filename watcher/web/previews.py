"""Small pictures for the page, and the picture at full size in sRGB: made when asked for, kept for a while."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path

import anyio
from PIL import Image, ImageOps

from watcher.web.colours import to_srgb

# Together; a thumbnail has some 15 kB.
KEPT_BYTES = 48 << 20
# Widths that can be asked for, so that nobody fills the memory with all the others.
WIDTHS = (320, 640, 1280)
# Decoders hold whole photos: only so many at one time.
AT_ONCE = 2

Stamp = tuple[int, int]
Key = tuple[str, Stamp, int]


class Previews:
    """Thread-safe. Pictures are known by path, stamp and width: a new version is another picture."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Not a lock: those who wait for their turn must not hold the threads that everybody else needs.
        self.making = anyio.CapacityLimiter(AT_ONCE)
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._size = 0

    async def picture(self, path: Path, width: int) -> bytes:
        """WebP, upright, in sRGB, at most `width` wide and high; 0: as large as it is.

        Raises OSError or ValueError where it is no picture that Pillow reads.
        """
        known = await anyio.to_thread.run_sync(self._known, path, width)
        if known is not None:
            return known
        return await anyio.to_thread.run_sync(self._new, path, width, limiter=self.making)

    def _known(self, path: Path, width: int) -> bytes | None:
        key = _key(path, width)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _new(self, path: Path, width: int) -> bytes:
        # Somebody who waited before us may have asked for the same.
        if (known := self._known(path, width)) is not None:
            return known
        key, content = _key(path, width), _made(path, width)
        if width:
            self._keep(key, content)
        return content

    def _keep(self, key: Key, content: bytes) -> None:
        with self._lock:
            self._size += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self._size > KEPT_BYTES:
                self._size -= len(self._kept.popitem(last=False)[1])


def _key(path: Path, width: int) -> Key:
    status = path.stat()
    return str(path), (status.st_size, status.st_mtime_ns), width


def _made(path: Path, width: int) -> bytes:
    try:
        with Image.open(path) as opened:
            if width:
                opened.draft("RGB", (width, width))
            image = to_srgb(ImageOps.exif_transpose(opened))
    except (SyntaxError, EOFError, MemoryError) as error:
        raise ValueError(str(error)) from error
    if width:
        # Resampled with its colours weighed by alpha, or the edges would grow a fringe.
        image = _thumbnail(image, width)
    out = io.BytesIO()
    if width:
        image.save(out, "WEBP", quality=82, method=2)
    else:
        image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _thumbnail(image: Image.Image, width: int) -> Image.Image:
    if image.mode != "RGBA":
        image.thumbnail((width, width), Image.Resampling.LANCZOS, reducing_gap=2.0)
        return image
    weighed = image.convert("RGBa")
    weighed.thumbnail((width, width), Image.Resampling.BOX, reducing_gap=None)
    return weighed.convert("RGBA")
