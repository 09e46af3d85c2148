"""Layered documents as psd-tools and Pillow read them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from psd_tools import PSDImage

from watcher.domain import Metadata
from watcher.errors import InputRejected
from watcher.outputs import Output
from watcher.pipeline import encode
from watcher.pipeline.encode import packbits, psd
from watcher.pipeline.refine import Refined


@pytest.fixture
def parts(make) -> tuple[np.ndarray, np.ndarray]:
    """The photo and an alpha with 0, full and all between."""
    return make.original(), make.opacity()


def document(parts, dtype, frame_of, *, ending: str = ".psd", **more) -> bytes:
    photo, alpha = (np.asarray(part) for part in parts)
    if dtype == np.uint16:
        noise = np.random.default_rng(3).integers(0, 257, photo.shape, dtype=np.uint16)
        photo = (photo.astype(np.uint16) * 255 + noise).astype(np.uint16)
        alpha = alpha.astype(np.uint16) * 257
    cutout = np.dstack([np.where(alpha[..., None] > 0, photo, 0), alpha]).astype(dtype)
    output = Output(kind="cutout", suffix=ending, background="#336699")
    frame = frame_of(photo, **more)
    return photo, alpha, encode.encode(output, Refined(cutout), frame)


def levels(image: np.ndarray, dtype) -> np.ndarray:
    """psd-tools gives floats 0..1."""
    return np.rint(np.asarray(image, np.float64) * np.iinfo(dtype).max).astype(int)


@pytest.mark.parametrize("ending", [".psd", ".psb"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_photo_is_a_layer_under_a_mask_that_is_the_alpha(parts, dtype, ending, frame_of):
    photo, alpha, content = document(parts, dtype, frame_of, ending=ending)
    opened = PSDImage.open(io.BytesIO(content))
    assert (opened.version, opened.depth) == (2 if ending == ".psb" else 1, np.dtype(dtype).itemsize * 8)
    background, layer = list(opened)
    assert (layer.name, layer.visible, background.name, background.visible) == (
        "Photo",
        True,
        "Background",
        False,
    )
    assert np.array_equal(levels(layer.numpy("color"), dtype), photo), "all of it, under the mask too"
    assert np.array_equal(levels(layer.numpy("mask"), dtype)[..., 0], alpha)
    fill = levels(background.numpy("color"), dtype)
    assert np.array_equal(
        np.unique(fill.reshape(-1, 3), axis=0)[0], np.array([0x33, 0x66, 0x99]) * (np.iinfo(dtype).max // 255)
    )
    assert layer.mask.background_color == 0 and layer.mask.bbox == (0, 0, photo.shape[1], photo.shape[0])


@pytest.mark.parametrize("ending", [".psd", ".psb"])
def test_programs_without_layers_see_the_photo_over_white_and_its_transparency(parts, ending, frame_of):
    photo, alpha, content = document(parts, np.uint8, frame_of, ending=ending)
    share = alpha[..., None] / 255
    expected = photo * share + 255 * (1 - share)
    if ending == ".psd":
        with Image.open(io.BytesIO(content)) as read:
            merged = np.asarray(read.convert("RGBA"))
        assert np.abs(merged[..., :3] - expected).max() <= 0.51
        assert np.array_equal(merged[..., 3], alpha)
    opened = PSDImage.open(io.BytesIO(content))
    assert opened.has_preview()
    merged = levels(opened.numpy(), np.uint8)
    assert np.array_equal(merged[..., 3], alpha)
    full = alpha == 255
    assert np.array_equal(merged[full][:, :3], photo[full])


def test_a_sixteen_bit_document_has_its_merged_picture_too(parts, frame_of):
    photo, alpha, content = document(parts, np.uint16, frame_of)
    merged = levels(PSDImage.open(io.BytesIO(content)).numpy(), np.uint16)
    full = alpha == 65535
    assert np.array_equal(merged[full][:, :3], photo[full]) and np.array_equal(merged[..., 3], alpha)


def test_profile_resolution_and_depth_travel(parts, frame_of, make):
    icc = make.profile("RGB ", 2.2)
    metadata = Metadata(make.exif(1), b"<x:xmpmeta/>", (300.0, 300.0))
    _, _, content = document(parts, np.uint8, frame_of, profile=icc, metadata=metadata)
    with Image.open(io.BytesIO(content)) as read:
        assert read.info["icc_profile"] == icc


def test_what_a_psd_cannot_hold_is_refused_with_words():
    wide = np.broadcast_to(np.zeros(1, np.uint8), (1, 30_001))
    flat = psd.Document(np.broadcast_to(wide[..., None], (1, 30_001, 3)), wide, np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(InputRejected, match="30000 pixels a side") as refused:
        psd.encode(flat, big=False, level=1, profile=None, metadata=Metadata())
    assert ".psb" in refused.value.remedy
    content = psd.encode(flat, big=True, level=1, profile=None, metadata=Metadata())
    assert PSDImage.open(io.BytesIO(content)).size == (30_001, 1)


def test_more_than_two_gigabytes_are_refused_with_words():
    with pytest.raises(InputRejected, match="2 GB"):
        psd._within(1 << 31, big=False)
    assert psd._within(1 << 40, big=True) == 1 << 40


@pytest.mark.parametrize("width", [1, 2, 3, 127, 128, 129, 130, 257, 1000])
def test_packed_rows_unpack_to_what_they_were(width):
    chance = np.random.default_rng(width)
    plane = chance.integers(0, 3, (40, width), dtype=np.uint8)
    plane[10:20] = 7
    plane[20:30] = chance.integers(0, 256, (10, width), dtype=np.uint8)
    sizes, body = packbits.packed_rows(plane)
    assert sizes.sum() == len(body)
    at = 0
    for row, size in zip(plane, sizes, strict=True):
        assert unpacked(body[at : at + size]) == row.tobytes()
        at += size
    assert max(sizes) <= width + width // 128 + 1


def unpacked(row: bytes) -> bytes:
    """By the words of TIFF 6.0, section 9."""
    found, at = b"", 0
    while at < len(row):
        count = row[at]
        if count < 128:
            found += row[at + 1 : at + 2 + count]
            at += 2 + count
        else:
            assert count != 128
            found += row[at + 1 : at + 2] * (257 - count)
            at += 2
    return found


def test_same_input_same_bytes(parts, frame_of):
    assert document(parts, np.uint16, frame_of)[2] == document(parts, np.uint16, frame_of)[2]
