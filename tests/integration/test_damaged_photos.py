"""Random damage to every format: an answer each time, soon, and never half a photo."""

from __future__ import annotations

import random

import imagecodecs
import pytest

from watcher.errors import InputError
from watcher.pipeline.readers import Readers

NAMES = (
    "photo.jpg progressive.jpg cmyk.jpg photo.png rgb16.png palette.png lossy.webp turn6.webp photo.bmp photo.tga "
    "still.gif photo.ppm photo.jp2 lzw.tif jpeg.tif lab.tif photo.heic photo.avif photo.psd"
).split()


@pytest.fixture(scope="module")
def photos(make, deep, variants) -> dict[str, bytes]:
    wide, tiffs = deep.wide(make), deep.tiffs(make)
    return {
        **{name: variants[name] for name in NAMES},
        **{name: tiffs[name] for name in ("deflate16.tif", "tiled16.tif", "planar16.tif", "big16.tif")},
        "deep.jxl": imagecodecs.jpegxl_encode(wide, lossless=True),
        "boxed.jxl": deep.jxl_with(imagecodecs.jpegxl_encode(make.original(), lossless=True)),
        "deep.jp2": imagecodecs.jpeg2k_encode(wide, level=0),
        "deep.heic": deep.heic(make, 10),
        "deep.avif": imagecodecs.avif_encode(wide[::4, ::4] >> 6, bitspersample=10, level=90, speed=10),
        "packed.psb": deep.psd(wide, big=True),
        "plain.psd": deep.psd(wide, packed=False),
        "camera.dng": deep.camera_raw(make),
    }


@pytest.fixture(scope="module")
def readers():
    pool = Readers(timeout=30.0)
    yield pool
    pool.close()


def outcome(readers: Readers, content: bytes):
    """The picture, or why there is none; anything but an InputError is a bug."""
    try:
        with readers.opened(content) as reading:
            _, width, height = reading.measure()
            return reading.picture() if width * height < 1_000_000 else InputError("too large")
    except InputError as error:
        return error


def test_no_cut_gives_half_a_photo(photos, readers):
    chance = random.Random(2)
    wrong = []
    for name, content in photos.items():
        whole = outcome(readers, content)
        assert not isinstance(whole, InputError), (name, whole)
        for _ in range(12):
            cut = int(len(content) * chance.uniform(0.02, 0.97))
            if not isinstance(outcome(readers, content[:cut]), InputError):
                wrong.append((name, cut, len(content)))
    assert wrong == []


def test_flipped_bits_always_end_in_a_photo_or_a_reason(photos, readers):
    chance = random.Random(3)
    for name, content in photos.items():
        for round_ in range(15):
            damaged = bytearray(content)
            # Headers and tables first: that is where a decoder is led astray.
            reach = len(damaged) if round_ > 9 else min(len(damaged), 400)
            for _ in range(chance.choice((1, 4, 16))):
                damaged[chance.randrange(8, reach)] ^= 1 << chance.randrange(8)
            found = outcome(readers, bytes(damaged))
            if isinstance(found, InputError):
                assert str(found) and found.remedy.endswith("."), name
            else:
                assert found.pixels.shape[2] == 3, name
