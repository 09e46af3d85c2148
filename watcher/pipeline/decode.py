"""File to Frame: the only code that opens a source. Reads it once; decides nothing about retries."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from watcher.domain import Frame, Job, Pixels, Stamp
from watcher.errors import InputChanged, InputNotReady, InputRejected, WatcherError, host_error
from watcher.pipeline import colour
from watcher.pipeline.readers import INLINE, Reads
from watcher.pipeline.scale import eight_bits, resized, unit
from watcher.pipeline.shrink import shrunk

# What an engine sees through the holes of a picture that brought its own alpha.
_BEHIND = 128
_A_PHOTO = "Name a photo."


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Megapixels and megabytes (10^6) above which a source is refused."""

    max_image_mp: float = 200.0
    max_file_mb: float = 2048.0


def decode(
    job: Job,
    path: Path,
    *,
    proxy_size: Callable[[int, int], tuple[int, int]],
    limits: DecodeLimits,
    reserve: Callable[[int], None],
    reads: Reads = INLINE,
) -> Frame:
    """The frame of `job`, whose source lies at `path`.

    `proxy_size` maps (width, height) to the proxy's; `reserve` is called with the number
    of pixels before they are decoded and may block until there is room; `reads` turns bytes
    into pixels, in a process of its own wherever the file is a stranger's.
    Raises InputChanged, InputNotReady, InputRejected or HostError.
    """
    content = _read(path, job, limits)
    digest = hashlib.sha256(content).hexdigest()
    with reads.opened(content) as reading:
        del content  # the reading has its own
        kind, width, height = reading.measure()
        _check_size(width, height, limits)
        reserve(width * height)
        picture = reading.picture()
    height, width = picture.pixels.shape[:2]
    return Frame(
        job=job,
        path=path,
        pixels=picture.pixels,
        opacity=_unless_opaque(picture.opacity),
        profile=picture.profile,
        metadata=picture.metadata,
        proxy=_proxy(picture.pixels, picture.opacity, picture.profile, proxy_size(width, height)),
        sha256=digest,
        format=kind,
        warnings=tuple(picture.warnings),
    )


def _check_size(width: int, height: int, limits: DecodeLimits) -> None:
    if width * height > limits.max_image_mp * 1e6:
        raise InputRejected(
            f"the photo is {width} x {height}, {width * height / 1e6:.0f} megapixels; "
            f"the limit is {limits.max_image_mp:g}",
            remedy="Export it smaller, or raise limits.max_image_mp, then drop it again.",
        )


def part(frame: Frame, box: tuple[int, int, int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Another proxy of `frame`: its `box` (left, top, right, bottom), at `size` (width, height)."""
    left, top, right, bottom = box
    inside = slice(top, bottom), slice(left, right)
    opacity = None if frame.opacity is None else frame.opacity[inside]
    return _proxy(frame.pixels[inside], opacity, frame.profile, size)


def _proxy(
    pixels: Pixels, opacity: Pixels | None, profile: bytes | None, size: tuple[int, int]
) -> NDArray[np.uint8]:
    proxy = colour.proxy_to_srgb(eight_bits(shrunk(pixels, size)), profile)
    if opacity is not None:
        share = unit(resized(opacity, size))[..., None]
        proxy = (proxy * share + _BEHIND * (1 - share) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(proxy)


def _unless_opaque(opacity: Pixels | None) -> Pixels | None:
    if opacity is None or opacity.min() == np.iinfo(opacity.dtype).max:
        return None
    return opacity


# --- The file ------------------------------------------------------------------------------


def _read(path: Path, job: Job, limits: DecodeLimits) -> bytes:
    """The very bytes that were admitted, or an error that says what came instead."""
    try:
        file = _open(path, job.source.relpath)
        try:
            _check(os.fstat(file), job.source.stamp, limits)
            content = _content(file, job.source.stamp.size)
            if Stamp.of(os.fstat(file)) != job.source.stamp or len(content) != job.source.stamp.size:
                raise InputChanged("the file changed while it was read")
            # The name may meanwhile stand for another file than the one still open.
            if Stamp.of(path.lstat()) != job.source.stamp:
                raise InputChanged("the file was replaced while it was read")
        finally:
            os.close(file)
    except OSError as error:
        raise translated(error, path) from error
    return content


def _content(file: int, size: int) -> bytes:
    """`size` bytes, less where there are no more, or more where there are."""
    parts = [os.read(file, size + 1)]
    while parts[-1] and (left := size - sum(map(len, parts))) > 0:
        parts.append(os.read(file, left + 1))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _open(path: Path, relpath: str) -> int:
    """A descriptor of `path`; no part of `relpath` may be a symlink, nor a FIFO hang us."""
    *folders, name = relpath.split("/")
    root = path.parents[len(folders)]
    if root.joinpath(relpath) != path or ".." in folders:
        raise InputRejected(f"the file is not at {relpath} in its hot folder")
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            os.close(place)
            place = inner
        # O_NONBLOCK: opening a FIFO would otherwise wait for a writer, for ever.
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    finally:
        os.close(place)


def _check(status: os.stat_result, admitted: Stamp, limits: DecodeLimits) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InputRejected("this is not a regular file", remedy=_A_PHOTO)
    if Stamp.of(status) != admitted:
        raise InputChanged("the file changed since it settled")
    if status.st_size > limits.max_file_mb * 1e6:
        raise InputRejected(
            f"the file has {status.st_size / 1e6:.0f} MB; the limit is {limits.max_file_mb:g}",
            remedy="Export it smaller, or raise limits.max_file_mb, then drop it again.",
        )


def translated(error: OSError, path: Path) -> WatcherError:
    """What an OSError about the source at `path` means."""
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return InputChanged("the file is gone")
        case errno.ELOOP:
            return InputRejected(
                "this is a symbolic link, which is not followed",
                remedy="Name the photo itself, or a copy of it.",
            )
        case errno.ENXIO:  # a socket, or a device nobody serves
            return InputRejected("this is not a regular file", remedy=_A_PHOTO)
        case errno.EACCES | errno.EPERM:
            return InputNotReady(
                "permission to read the file is denied",
                remedy="Give the user hotmatte runs as read access to the file, then `hotmatte retry`.",
            )
    return host_error(error, f"read {path}") or InputNotReady(f"it cannot be read: {error.strerror or error}")
