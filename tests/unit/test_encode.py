"""Two other decoders must agree on every file we write."""

from __future__ import annotations

import io
import itertools

import cv2
import numpy as np
import pytest
from PIL import Image

from watcher.domain import Metadata
from watcher.outputs import Output
from watcher.pipeline import colour, encode, png, sniff
from watcher.pipeline.refine import Refined
from watcher.pipeline.scale import eight_bits


def picture(dtype=np.uint8, channels: int = 4, height: int = 37, width: int = 23) -> np.ndarray:
    chance = np.random.default_rng(5)
    smooth = cv2.GaussianBlur(chance.random((height, width, channels), np.float32), (0, 0), 2)
    image = (smooth.reshape(height, width, channels) * np.iinfo(dtype).max).astype(dtype)
    return image[..., 0] if channels == 1 else image


def by_opencv(content: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return image


@pytest.mark.parametrize(
    ("dtype", "channels", "level"), list(itertools.product([np.uint8, np.uint16], [1, 3, 4], [0, 1, 2, 3]))
)
def test_every_depth_and_channel_count_comes_back_from_opencv(dtype, channels, level):
    image = picture(dtype, channels)
    assert np.array_equal(by_opencv(png.encode(image, level=level)), image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_eight_bits_come_back_from_pillow(channels):
    image = picture(np.uint8, channels)
    with Image.open(io.BytesIO(png.encode(image))) as read:
        assert np.array_equal(np.asarray(read), image)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (700, 600)])
def test_any_size_comes_back(size):
    image = picture(np.uint8, 4, *size)
    assert np.array_equal(by_opencv(png.encode(image)), image)


def test_a_view_into_another_array_is_written_as_well():
    image = picture(np.uint16, 4)
    assert np.array_equal(by_opencv(png.encode(image[..., 3])), image[..., 3])


def test_same_input_same_bytes():
    assert png.encode(picture()) == png.encode(picture())


def test_png_carries_all_that_travels(make):
    icc, block, xmp = make.profile("RGB ", 2.2), make.exif(1), b"<x:xmpmeta/>"
    content = png.encode(picture(), profile=icc, metadata=Metadata(block, xmp, (300.0, 300.0)))
    with Image.open(io.BytesIO(content)) as read:
        read.load()
        assert read.info["icc_profile"] == icc
        assert read.getexif()[0x010F] == "Cam"
        assert read.info["xmp"] == xmp
        assert [round(value, 1) for value in read.info["dpi"]] == [300.0, 300.0]


def test_our_own_reading_agrees_with_our_own_writing(make):
    icc, xmp = make.profile("RGB ", 2.2), b"<x/>" * 100
    content = png.encode(picture(), profile=icc, metadata=Metadata(xmp=xmp))
    found = {kind: content[start:end] for kind, start, end in png.chunks(content)}
    assert (png.profile_in(found[b"iCCP"]), png.xmp_in(found[b"iTXt"])) == (icc, xmp)


def test_srgb_is_said_only_of_colours_that_are():
    assert b"sRGB" in png.encode(picture(), srgb=True) and b"sRGB" not in png.encode(picture())


def test_a_profile_that_inflates_without_end_is_given_up():
    import zlib

    packed = zlib.compress(bytes(png.MAX_INFLATED + 1000), 9)
    assert png.profile_in(b"x\0\0" + packed) is None


def test_sixteen_bits_are_rounded_to_eight_exactly():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(eight_bits(every), (every.astype(int) * 2 + 257) // 514)


# --- Outputs -------------------------------------------------------------------------------


def output(kind: str, suffix: str, **more) -> Output:
    return Output(kind=kind, suffix=suffix, **more)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_matte_is_eight_bit_grey_of_the_alpha(dtype, frame_of):
    image = picture(dtype)
    content = encode.encode(output("matte", ".m.png"), Refined(image), frame_of(image[..., :3]))
    alpha = image[..., 3] if dtype == np.uint8 else np.round(image[..., 3] / 257)
    assert np.array_equal(by_opencv(content), alpha)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_cutout_keeps_depth_and_profile(dtype, frame_of, make):
    image, icc = picture(dtype), make.profile("RGB ", 2.2)
    frame = frame_of(image[..., :3], profile=icc)
    content = encode.encode(output("cutout", ".c.png"), Refined(image), frame)
    assert np.array_equal(by_opencv(content), image)
    with Image.open(io.BytesIO(content)) as read:
        assert read.info["icc_profile"] == icc


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_composite_is_alpha_f_plus_the_rest_of_the_background(dtype, frame_of):
    image = picture(dtype)
    image[0, 0, 3], image[1, 1, 3] = 0, np.iinfo(dtype).max
    frame = frame_of(image[..., :3])
    content = encode.encode(output("composite", ".png", background="#ff8000"), Refined(image), frame)
    scale = np.iinfo(dtype).max // 255
    a = image[..., 3:].astype(float) / np.iinfo(dtype).max
    expected = a * image[..., :3] + (1 - a) * np.array([255, 128, 0]) * scale
    found = by_opencv(content).astype(float)
    assert np.abs(found - expected).max() <= 0.51
    assert np.array_equal(found[0, 0], np.array([255, 128, 0]) * scale)
    assert np.array_equal(found[1, 1], image[1, 1, :3])


def test_the_background_is_the_colour_asked_for_whatever_the_profile(frame_of, make):
    image, icc = np.zeros((8, 8, 4), np.uint8), make.profile("RGB ", 2.2)
    frame = frame_of(image[..., :3].copy(), profile=icc)
    content = encode.encode(output("composite", ".png", background="#208040"), Refined(image), frame)
    stored = by_opencv(content)
    seen = colour.proxy_to_srgb(stored, icc)[0, 0]
    assert np.abs(seen.astype(int) - [0x20, 0x80, 0x40]).max() <= 1
    assert np.abs(stored[0, 0].astype(int) - [0x20, 0x80, 0x40]).max() > 5


@pytest.mark.parametrize("quality", [80, 95])
def test_a_jpeg_carries_profile_exif_and_resolution(quality, frame_of, make):
    image, icc = picture(np.uint16, 4, 64, 48), make.profile("RGB ", 2.2)
    image[..., 3] = 65535
    metadata = Metadata(make.exif(1), b"<x/>", (240.0, 240.0))
    frame = frame_of(image[..., :3], profile=icc, metadata=metadata)
    content = encode.encode(output("composite", ".jpg", quality=quality), Refined(image), frame)
    with Image.open(io.BytesIO(content)) as read:
        assert (read.format, read.info["icc_profile"], read.info["dpi"]) == ("JPEG", icc, (240, 240))
        assert read.getexif()[0x010F] == "Cam" and read.info["xmp"] == b"<x/>"
        assert np.abs(np.asarray(read).astype(int) - image[..., :3] // 257).mean() < 8
    assert sniff.size_of(content, "JPEG") == (48, 64)


def test_a_profile_too_long_for_one_segment_is_split(frame_of, make):
    icc = make.profile("RGB ", 2.2) + bytes(150_000)
    image = picture()
    frame = frame_of(image[..., :3], profile=icc)
    content = encode.encode(output("composite", ".jpg"), Refined(image), frame)
    with Image.open(io.BytesIO(content)) as read:
        assert read.info["icc_profile"] == icc


def test_exif_too_long_for_a_segment_is_left_out_and_the_jpeg_stays_whole(frame_of):
    image = picture()
    frame = frame_of(image[..., :3], metadata=Metadata(exif=b"II*\0" + bytes(70_000)))
    content = encode.encode(output("composite", ".jpg"), Refined(image), frame)
    with Image.open(io.BytesIO(content)) as read:
        read.load()
        assert "exif" not in read.info
