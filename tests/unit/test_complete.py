from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path

import collection
import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, features

from watcher.intake.complete import Verdict, examine

# A folder of many kinds of photos, where there is one; its manifest says which are broken.
BROKEN = ("trunc", "empty", "tiff_ifd", "corrupt-header", "__x")


def _picture(size=(40, 30)):
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def _saved(kind, size=(40, 30), **options):
    buffer = io.BytesIO()
    _picture(size).save(buffer, kind, **options)
    return buffer.getvalue()


def _heif():
    buffer = io.BytesIO()
    pillow_heif.from_pillow(_picture()).save(buffer, quality=60)
    return buffer.getvalue()


def _psd(compression):
    width, height = 40, 30
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, height, width, 8, 3)
    sections = struct.pack(">I", 0) + struct.pack(">I", 6) + b"8BIM\0\0" + struct.pack(">I", 0)
    if compression == 0:
        return head + sections + b"\0\0" + b"\x80" * (3 * width * height)
    rows = struct.pack(f">{3 * height}H", *([2] * 3 * height))
    return head + sections + b"\0\1" + rows + b"\xd9\x80" * (3 * height)


WHOLE = {
    "jpeg": _saved("JPEG", quality=90),
    "jpeg_progressive": _saved("JPEG", progressive=True, exif=b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "png": _saved("PNG"),
    "gif": _saved("GIF"),
    "bmp": _saved("BMP"),
    "webp": _saved("WEBP"),
    "webp_lossless": _saved("WEBP", lossless=True),
    "tiff": _saved("TIFF"),
    "tiff_lzw": _saved("TIFF", compression="tiff_lzw"),
    "bigtiff": _saved("TIFF", big_tiff=True),
    "tiff_pages": _saved("TIFF", save_all=True, append_images=[_picture((10, 10))]).rstrip(b"\0"),
    "avif": _saved("AVIF") if features.check("avif") else b"",
    "heic": _heif(),
    "psd_raw": _psd(0),
    "psd_rle": _psd(1),
}


def _deep(name):
    """tests/data/make_deep.py, before fixtures are there."""
    places = {}
    for module in ("make", "make_deep"):
        path = Path(__file__).parents[1] / "data" / f"{module}.py"
        spec = importlib.util.spec_from_file_location(f"hotmatte_end_{module}", path)
        places[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(places[module])
    return getattr(places["make_deep"], name)


def _jxl():
    return _deep("jxl_with")(imagecodecs.jpegxl_encode(np.asarray(_picture()), lossless=True))


def _raf():
    parts = [_saved("JPEG"), bytes(range(256)), bytes(range(1, 256)) * 20]
    offset, places = 108, b""
    for part in parts:
        places += struct.pack(">II", offset, len(part))
        offset += len(part)
    return b"FUJIFILMCCD-RAW 0201".ljust(84, b"x") + places + b"".join(parts)


def _nested():
    """As a Nikon or Sony RAW is built: a thumbnail, and the sensor in a directory within."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.asarray(_picture((10, 8))), photometric="rgb", subifds=1, metadata=None)
        writer.write(np.asarray(_picture())[..., 0].copy(), photometric=32803, metadata=None)
    return buffer.getvalue()


WHOLE |= {
    "jxl": _jxl(),
    "raf": _raf(),
    "nested": _nested().rstrip(b"\0"),
    "orf": b"IIRO" + WHOLE["tiff"][4:],
    "jp2": _saved("JPEG2000"),
}
WHOLE = {kind: content for kind, content in WHOLE.items() if content}


def _verdict(content: bytes) -> Verdict:
    return examine(io.BytesIO(content))


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_file_is_whole(kind):
    assert _verdict(WHOLE[kind]) is Verdict.WHOLE


@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_never_whole(kind):
    """At every length."""
    content = WHOLE[kind]
    cuts = [cut for cut in range(len(content)) if _verdict(content[:cut]) is not Verdict.INCOMPLETE]
    assert cuts == [], f"of {len(content)}"


COMPRESSED = ["JPEG", "PNG", "GIF", "WEBP", "HEIF", "AVIF"]


@pytest.mark.parametrize("kind", [kind for kind in COMPRESSED if kind != "AVIF" or features.check("avif")])
def test_a_file_whose_space_is_reserved_but_not_written_is_not_whole(kind):
    """As a copier leaves it that sets the full size first. Plain pixels may be zeros and prove nothing."""
    pillow_heif.register_heif_opener()
    content = _saved(kind, size=(160, 120))
    for cut in (0, 1, 5, 11, 30, 64, 700, len(content) // 2, len(content) - 1100):
        assert _verdict(content[:cut] + bytes(len(content) - cut)) is not Verdict.WHOLE


def test_a_packed_psd_whose_rows_are_not_written_is_not_whole():
    content = WHOLE["psd_rle"]
    assert _verdict(content[:50] + bytes(len(content) - 50)) is Verdict.INCOMPLETE


@pytest.mark.parametrize("kind", ["jpeg", "jpeg_progressive", "png", "gif", "webp", "bmp", "psd_raw"])
@pytest.mark.parametrize(
    "tail", [bytes(100), b"\xff" * 5000, b"film" * 50_000], ids=["zeros", "ones", "film"]
)
def test_what_follows_the_end_does_no_harm(kind, tail):
    assert _verdict(WHOLE[kind] + tail) is Verdict.WHOLE


def test_two_pictures_in_one_file_are_whole():
    assert _verdict(WHOLE["jpeg"] * 2) is Verdict.WHOLE


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture():
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(WHOLE["jpeg"]) + 2) + WHOLE["jpeg"]
    content = WHOLE["jpeg"][:2] + thumbnail + WHOLE["jpeg"][2:]
    assert _verdict(content) is Verdict.WHOLE
    assert _verdict(content[:-2]) is Verdict.INCOMPLETE


def test_an_end_far_before_the_end_of_the_file_is_found_across_blocks():
    for extra in range(65530, 65542):
        assert _verdict(WHOLE["jpeg"] + b"x" * extra) is Verdict.WHOLE


@pytest.mark.parametrize("content", [b"", b"\0", bytes(5000)])
def test_nothing_and_zeros_are_incomplete(content):
    assert _verdict(content) is Verdict.INCOMPLETE


@pytest.mark.parametrize(
    "content", [b"just text", b"<html></html>", b"BMW cars are not bitmaps " * 9, b"RIFF\x24\0\0\0WAVEfmt "]
)
def test_what_is_no_photo_is_left_to_decoding(content):
    assert _verdict(content) is Verdict.UNKNOWN


def test_the_content_decides_and_the_reading_is_bounded():
    class Counting(io.BytesIO):
        count = 0

        def read(self, size=-1):
            assert 0 <= size <= 70_000
            Counting.count += size
            return super().read(size)

    content = WHOLE["jpeg"][:-2] + b"\x55" * 50_000_000 + b"\xff\xd9"
    assert examine(Counting(content)) is Verdict.WHOLE
    assert Counting.count < 200_000


HEADS = [content[:cut] for content in WHOLE.values() for cut in (8, 12, 16, 30, 100, 400)]


@given(st.sampled_from([b"", *HEADS]), st.binary(max_size=400))
@example(b"II*\0\x08\0\0\0\x01\x00", b"\x11\x01\x04\x00\xff\xff\xff\xff\x08\0\0\0" + bytes(4))
def test_no_bytes_at_all_raise(head, tail):
    assert isinstance(_verdict(head + tail), Verdict)


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 3000), st.integers(0, 255))
def test_no_damage_raises(kind, place, value):
    content = bytearray(WHOLE[kind])
    content[place % len(content)] = value
    assert isinstance(_verdict(bytes(content)), Verdict)


@pytest.mark.skipif(not collection.EXISTS, reason=collection.REASON)
def test_no_whole_file_of_a_collection_is_called_incomplete():
    wrong = []
    for path in sorted(file for file in (collection.COLLECTION / "formats").rglob("*") if file.is_file()):
        with path.open("rb", buffering=0) as file:
            incomplete = examine(file) is Verdict.INCOMPLETE
        if incomplete and not any(word in path.name for word in BROKEN):
            wrong.append(path.name)
    assert wrong == []
