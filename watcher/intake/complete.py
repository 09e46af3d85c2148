"""Is a file all there? Structural checks of its head and its end; decodes nothing.

Goes by content, never by name: cameras and people mislabel files.
"""

from __future__ import annotations

from collections.abc import Callable
from io import FileIO
from typing import BinaryIO

from watcher.intake import lengths, markers
from watcher.intake.view import EndMissing, Verdict, View

__all__ = ["Verdict", "examine"]

_HEAD = 64
_SIGNATURES: tuple[tuple[bytes, Callable[[View], Verdict]], ...] = (
    (b"\xff\xd8\xff", markers.jpeg),
    (b"\x89PNG\r\n\x1a\n", markers.png),
    (b"GIF87a", markers.gif),
    (b"GIF89a", markers.gif),
    (b"BM", lengths.bmp),
    (b"RIFF", lengths.webp),
    (b"II*\0", lengths.tiff),
    (b"MM\0*", lengths.tiff),
    (b"II+\0", lengths.tiff),
    (b"MM\0+", lengths.tiff),
    (b"8BPS", lengths.psd),
    *((signature, lengths.tiff) for signature in (b"IIRO", b"IIRS", b"MMOR", b"IIU\0")),
    (b"FUJIFILMCCD-RAW ", lengths.raf),
    (b"\0\0\0\x0cJXL ", lengths.jxl),
    (b"\0\0\0\x0cjP  ", lengths.jpeg2000),
    (b"\xff\x4f\xff\x51", lengths.jpeg2000),
)


def examine(file: BinaryIO | FileIO) -> Verdict:
    """Whether the end of `file` (seekable, any position) is there. Raises nothing but OSError.

    WHOLE is not yet valid, and cannot be: only decoding tells. INCOMPLETE includes empty
    files and those whose space a copier has reserved but not written.
    """
    view = View(file)
    try:
        head = view.at(0, min(_HEAD, view.size))
        if not any(head):
            return Verdict.INCOMPLETE
        return _check(head)(view)
    except EndMissing:
        return Verdict.INCOMPLETE


def _check(head: bytes) -> Callable[[View], Verdict]:
    """By signature; a file that ends within one has barely begun."""
    for signature, check in _SIGNATURES:
        if signature.startswith(head):
            return _incomplete
        if head.startswith(signature) and (check is not lengths.webp or _begins(head[8:12], b"WEBP")):
            return check
    if head[:2] == b"\0\0" and b"ftyp".startswith(head[4:8]):
        return lengths.boxes if len(head) >= 8 else _incomplete
    return _unknown


def _begins(part: bytes, word: bytes) -> bool:
    """Whether `part` is `word`, as far as it goes, or still zeros."""
    return word.startswith(part) or not any(part)


def _incomplete(view: View) -> Verdict:
    """A beginning of a signature, and nothing more."""
    return Verdict.INCOMPLETE


def _unknown(view: View) -> Verdict:
    return Verdict.UNKNOWN
