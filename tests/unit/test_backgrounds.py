"""Backgrounds of cutouts: what may be decoded here, and what would take too long."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import Any

import pytest
from PIL import Image

from watcher.web import backgrounds
from watcher.web.refusal import Refused


def saved(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, kind, **options)
    return file.getvalue()


def bomb(count: int) -> bytes:
    content = saved("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + b"\xff\xd9"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (saved("JPEG"), 1),
        (saved("JPEG", progressive=True), 10),
        (saved("JPEG", restart_marker_blocks=1), 1),
        (saved("JPEG", exif=b"Exif\0\0" + bomb(50)), 1),
        (saved("JPEG") + b"\xff\xda\x00\x02" * 500, 1),
        (bomb(50), 60),
        (b"\xff\xd8\xff", 0),
        (b"", 0),
    ],
    ids=["plain", "progressive", "restarts", "thumbnail", "film behind it", "bomb", "cut", "nothing"],
)
def test_the_scans_of_a_jpeg_are_counted_and_nothing_else(content: bytes, expected: int) -> None:
    assert backgrounds.scans(content) == expected


@pytest.mark.parametrize("content", [bomb(200), saved("TIFF", compression="jpeg")], ids=["jpeg", "tiff"])
def test_what_may_take_hours_is_refused_before_it_is_decoded(content: bytes) -> None:
    with ExitStack() as until, pytest.raises(Refused) as refused:
        backgrounds.kept(io.BytesIO(content), max_mp=1, until=until)
    assert (refused.value.status, refused.value.code) == (400, "failed_to_read_image")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
def test_a_background_is_there_until_the_answer(kind: str) -> None:
    with ExitStack() as until:
        file = backgrounds.kept(io.BytesIO(saved(kind)), max_mp=1, until=until)
        assert backgrounds.opened(file).size == (256, 256)
    assert file.closed


def test_one_that_is_cut_off_is_refused_at_once() -> None:
    with ExitStack() as until, pytest.raises(Refused, match="background cannot be read"):
        backgrounds.kept(io.BytesIO(saved("PNG")[:-200]), max_mp=1, until=until)
