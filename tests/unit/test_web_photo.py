"""What an upload is, by its first bytes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from watcher.web.photo import ENDINGS, look_at
from watcher.web.refusal import Refused

MANY = 400_000


class Counted(io.BytesIO):
    """Counts how often it is read."""

    reads = 0

    def read(self, *size: Any) -> bytes:
        self.reads += 1
        return super().read(*size)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


PNG = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))


@pytest.mark.parametrize(
    "content",
    [
        PNG + chunk(b"abCd", b"") * MANY,
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * MANY,
        b"\xff\xd8" + b"\xff" * MANY,
        b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0, 0, 0) + b"\x21\xfe\x01a\x00" * MANY,
        b"%!PS-Adobe-3.0 EPSF-3.0\n" + b"%%a:b\n" * MANY,
    ],
    ids=["chunks of a PNG", "comments of a JPEG", "filling of a JPEG", "comments of a GIF", "EPS"],
)
def test_a_header_without_end_is_given_up(content: bytes) -> None:
    upload = Counted(content)
    with pytest.raises(Refused) as refused:
        look_at(upload, max_mp=100)
    assert (refused.value.status, refused.value.code) == (400, "failed_to_read_image")
    assert upload.reads <= 20_000


@pytest.mark.parametrize("kind", [kind for kind in ENDINGS if kind not in ("MPO", "PSD", "HEIF")])
def test_a_photo_is_known_by_its_header(kind: str) -> None:
    upload = Counted()
    Image.new("RGB", (60, 40)).save(upload, kind)
    look = look_at(upload, max_mp=100)
    assert (look.ending, look.width, look.height) == (ENDINGS[kind], 60, 40)
    assert upload.reads < 1000
    assert upload.tell() == 0


def test_a_photo_of_a_telephone_is_known_by_its_header() -> None:
    upload = Counted()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64))).save(upload)
    assert look_at(upload, max_mp=100).ending == "heic"


def test_a_real_photo_is_far_from_the_limit() -> None:
    photo = Path(__file__).parents[1] / "data" / "official_portrait_flags.jpg"
    upload = Counted(photo.read_bytes())
    assert look_at(upload, max_mp=100).ending == "jpg"
    assert upload.reads < 1000
