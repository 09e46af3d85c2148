"""TIFF as other readers see it: tifffile, Pillow, OpenCV."""

from __future__ import annotations

import io
import itertools

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from watcher.domain import Metadata
from watcher.pipeline.encode import tiff

PACKS = ("deflate", "lzw", "zstd", "none")


def picture(dtype=np.uint8, channels: int = 4, height: int = 61, width: int = 23) -> np.ndarray:
    chance = np.random.default_rng(5)
    smooth = cv2.GaussianBlur(chance.random((height, width, channels), np.float32), (0, 0), 2)
    image = (smooth.reshape(height, width, channels) * np.iinfo(dtype).max).astype(dtype)
    return image[..., 0] if channels == 1 else image


def encoded(image: np.ndarray, **more) -> bytes:
    settings = {
        "pack": "deflate",
        "level": 1,
        "premultiplied": False,
        "profile": None,
        "metadata": Metadata(),
    }
    return tiff.encode(image, **{**settings, **more})


@pytest.mark.parametrize(
    ("dtype", "channels", "pack"), list(itertools.product([np.uint8, np.uint16], [1, 3, 4], PACKS))
)
@pytest.mark.parametrize("order", [b"II*\0", b"MM\0*"])
def test_every_depth_channel_count_packing_and_byte_order_comes_back(dtype, channels, pack, order):
    image = picture(dtype, channels)
    block = order + (8).to_bytes(4, "little" if order[:1] == b"I" else "big") + bytes(6)
    content = encoded(image, pack=pack, metadata=Metadata(exif=block))
    assert content[:4] == order
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        assert np.array_equal(file.asarray(), image)
        assert file.byteorder == ("<" if order == b"II*\0" else ">")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("pack", ["deflate", "lzw", "none"])
def test_eight_bits_come_back_from_pillow(channels, pack):
    image = picture(np.uint8, channels)
    with Image.open(io.BytesIO(encoded(image, pack=pack))) as read:
        assert np.array_equal(np.asarray(read), image)


def test_sixteen_bits_come_back_from_opencv():
    image = picture(np.uint16, 4)
    read = cv2.imdecode(np.frombuffer(encoded(image), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(cv2.cvtColor(read, cv2.COLOR_BGRA2RGBA), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_called_what_it_is(dtype):
    image = picture(dtype)
    image[:10, :, 3], image[10:20, :, 3] = 0, np.iinfo(dtype).max
    for premultiplied, kind in (
        (False, tifffile.EXTRASAMPLE.UNASSALPHA),
        (True, tifffile.EXTRASAMPLE.ASSOCALPHA),
    ):
        with tifffile.TiffFile(io.BytesIO(encoded(image, premultiplied=premultiplied))) as file:
            assert file.pages[0].extrasamples == (kind,)
            found = file.asarray()
        alpha = image[..., 3:].astype(float) / np.iinfo(dtype).max
        expected = image[..., :3] * alpha if premultiplied else image[..., :3]
        assert np.abs(found[..., :3] - expected).max() <= 0.501
        assert np.array_equal(found[..., 3], image[..., 3])
        assert np.array_equal(found[10:20], image[10:20]), "where alpha is full nothing changes"


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (900, 700)])
def test_any_size_comes_back(size):
    image = picture(np.uint16, 4, *size)
    assert np.array_equal(tifffile.imread(io.BytesIO(encoded(image))), image)


def test_a_view_into_another_array_is_written_as_well():
    image = picture(np.uint16, 4)
    assert np.array_equal(tifffile.imread(io.BytesIO(encoded(image[..., 3]))), image[..., 3])


def test_same_input_same_bytes():
    assert encoded(picture()) == encoded(picture())


@pytest.mark.parametrize("pack", ["deflate", "zstd", "lzw"])
def test_packing_makes_it_smaller(pack):
    image = cv2.resize(picture(np.uint8, 4), (300, 300))
    assert len(encoded(image, pack=pack)) < 0.9 * len(encoded(image, pack="none"))


def test_a_damaged_exif_block_does_not_damage_the_file():
    block = b"II*\0\xff\xff\xff\xff" + bytes(20)
    image = picture()
    assert np.array_equal(tifffile.imread(io.BytesIO(encoded(image, metadata=Metadata(exif=block)))), image)


def test_resolution_and_profile_are_where_readers_look(make):
    icc = make.profile("RGB ", 2.2)
    content = encoded(picture(), profile=icc, metadata=Metadata(dpi=(300.0, 72.5)))
    with Image.open(io.BytesIO(content)) as read:
        assert read.info["icc_profile"] == icc
        assert tuple(float(value) for value in read.info["dpi"]) == (300.0, 72.5)
