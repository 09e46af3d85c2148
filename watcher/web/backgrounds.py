"""Pictures that clients want behind a cutout: the only photos of strangers that this service decodes by itself.

They wait for their matte as the files they came as. Pixels are there only while one is looked at or composed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import ExitStack
from typing import IO

from PIL import Image, UnidentifiedImageError

from watcher.web.photo import look_at
from watcher.web.refusal import Refused
from watcher.web.uploads import SPOOL

# A progressive JPEG has some ten. Each is a walk over the whole picture, and a few bytes are enough for one.
MOST_SCANS = 100
_START_OF_SCAN, _END = 0xDA, 0xD9
# Between scans 0xFF 0x00 stands for a byte of pixels, and eight markers only part them.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def kept(content: IO[bytes], *, max_mp: float, until: ExitStack) -> IO[bytes]:
    """A copy that is there `until` the answer; looked at whole, so that a fault is told now. Raises Refused."""
    file = until.enter_context(tempfile.SpooledTemporaryFile(SPOOL))  # noqa: SIM115  (`until` closes it)
    content.seek(0)
    shutil.copyfileobj(content, file)
    look_at(file, max_mp=max_mp)
    _check_effort(file)
    opened(file)  # and forgotten; close() would close the file as well
    return file


def opened(file: IO[bytes]) -> Image.Image:
    """Its pixels. Raises Refused."""
    file.seek(0)
    try:
        image = Image.open(file)
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise _unreadable() from error
    return image


def _check_effort(file: IO[bytes]) -> None:
    """Raises Refused for what would keep the decoder busy for hours."""
    file.seek(0)
    with Image.open(file) as image:
        kind, inside = image.format, str(image.info.get("compression", ""))
    if kind == "TIFF" and "jpeg" in inside:
        raise _unreadable("A TIFF with JPEG inside is not taken as a background: send a JPEG.")
    file.seek(0)
    if kind in ("JPEG", "MPO") and scans(file.read()) > MOST_SCANS:
        raise _unreadable(f"It has more than {MOST_SCANS} scans: save it anew.")


def scans(content: bytes) -> int:
    """How often a JPEG walks over its picture; what lies in thumbnails, or behind its end, does not count."""
    count, place = 0, 2
    while (found := _MARKER.search(content, place)) is not None:
        marker, place = content[found.start() + 1], found.end()
        if marker == _END:
            break
        count += marker == _START_OF_SCAN
        place += int.from_bytes(content[place : place + 2], "big")
    return count


def _unreadable(detail: str | None = None) -> Refused:
    return Refused(400, "failed_to_read_image", "The background cannot be read", detail=detail)
