"""Photoshop documents, PSD and PSB: every level of the composite survives."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from levels import apart, lab_of, read
from psd_tools import PSDImage

from watcher.errors import InputNotReady, InputRejected
from watcher.pipeline import exif

DOCUMENTS = [(mode, dtype, big, packed) for mode in ("grey", "rgb", "cmyk", "lab") for dtype in (np.uint8, np.uint16) for big in (False, True) for packed in (False, True)]  # fmt: skip


@pytest.mark.parametrize(("mode", "dtype", "big", "packed"), DOCUMENTS)
def test_the_composite_of_a_document_is_what_another_reader_finds(mode, dtype, big, packed, make, deep):
    levels = make.original() if dtype == np.uint8 else deep.wide(make)
    levels = {"grey": levels[..., :1], "cmyk": np.dstack([levels, levels[..., 1]])}.get(mode, levels)
    content = deep.psd(levels, mode, big=big, packed=packed)
    picture = read(content)
    stored = PSDImage.open(io.BytesIO(content)).numpy()
    assert np.allclose(stored, levels / np.iinfo(dtype).max, atol=1e-4), (
        "the other reader finds what was written"
    )
    if mode in ("grey", "rgb"):
        assert picture.pixels.dtype == dtype
        assert np.array_equal(picture.pixels, np.broadcast_to(levels, picture.pixels.shape))
    elif mode == "cmyk":
        shown = levels.astype(np.uint64)
        top = np.iinfo(dtype).max
        assert np.abs(picture.pixels - shown[..., :3] * shown[..., 3:] / top).max() <= 1
        assert picture.pixels.dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lab_documents_have_the_right_colours(dtype, make, deep):
    lab, unit, zero = lab_of(make), (1, 128) if dtype == np.uint8 else (256, 32768), None
    scale = 2.55 if dtype == np.uint8 else 655.35
    stored = np.dstack(
        [lab[..., 0] * scale, lab[..., 1] * unit[0] + unit[1], lab[..., 2] * unit[0] + unit[1]]
    )
    picture = read(deep.psd(np.round(stored).astype(dtype), "lab"))
    assert zero is None and apart(picture.pixels, make.original()) < (2 if dtype == np.uint8 else 0.4)


@pytest.mark.parametrize("big", [False, True])
def test_a_transparent_document_gets_its_colours_back_from_the_white(big, make, deep):
    colours, alpha = deep.wide(make), make.opacity().astype(np.uint16) * 257
    share = alpha[..., None] / 65535
    over_white = (colours * share + 65535 * (1 - share) + 0.5).astype(np.uint16)
    content = deep.psd(np.dstack([over_white, alpha]), big=big, transparent=True)
    picture = read(content)
    assert np.array_equal(picture.opacity, alpha)
    seen = alpha > 20_000
    assert np.abs(picture.pixels[seen].astype(int) - colours[seen]).max() <= 4


def test_a_fourth_channel_that_is_a_selection_hides_nothing(make, deep):
    picture = read(deep.psd(np.dstack([make.original(), make.opacity()])))
    assert picture.opacity is None
    assert np.array_equal(picture.pixels, make.original())


def test_what_a_document_tells_comes_along(make, deep):
    icc, block = make.profile("RGB ", 2.2), make.exif(6)
    resolution = struct.pack(">IHHIHH", 300 << 16, 1, 2, 240 << 16, 1, 2)
    told = {
        1005: resolution,
        1039: icc,
        1057: struct.pack(">IB", 1, 1) + bytes(8),
        1058: block,
        1060: deep.XMP,
    }
    picture = read(deep.psd(make.original(), resources=told))
    assert np.array_equal(picture.pixels, make.original()), "Photoshop has turned the pixels already"
    assert (picture.profile, picture.xmp, picture.dpi) == (icc, deep.XMP, (300, 240))
    assert picture.exif == exif.upright(block)[1]


def test_a_document_without_a_composite_is_refused_with_what_to_do(make, deep):
    with pytest.raises(InputRejected, match="composite") as caught:
        read(deep.psd(make.original(), resources={1057: struct.pack(">IB", 1, 0) + bytes(8)}))
    assert "Compatibility" in caught.value.remedy


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_a_document_cut_off_is_not_ready(packed, share, make, deep):
    content = deep.psd(deep.wide(make), packed=packed, big=True)
    with pytest.raises(InputNotReady):
        read(content[: max(10, int(len(content) * share))])
