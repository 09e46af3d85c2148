"""TIFF in every layout, packing, depth and colour: every level survives."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from levels import apart, lab_of, read
from PIL import Image

from watcher.errors import InputNotReady, InputRejected

TIFFS = (
    "lzw16 deflate16 adobe_deflate16 packbits16 zstd16 tiled16 planar16 planar_tiled16 big16 motorola16 strips16 "
    "selection16 lzw8 packbits8 tiled8 planar8 big8 turn1_16 turn2_16 turn3_16 turn4_16 turn5_16 turn6_16 turn7_16 "
    "turn8_16"
).split()


@pytest.fixture(scope="module")
def tiffs(make, deep):
    return deep.tiffs(make)


@pytest.mark.parametrize("name", TIFFS)
def test_every_layout_and_packing_of_tiff_gives_the_very_levels(name, tiffs, make, deep):
    picture = read(tiffs[f"{name}.tif"])
    expected = make.original() if "8" in name.removeprefix("turn8") else deep.wide(make)
    assert picture.pixels.dtype == expected.dtype
    assert np.array_equal(picture.pixels, expected)
    assert picture.opacity is None
    assert picture.warnings == []


@pytest.mark.parametrize("name", ["strips16", "tiled16", "planar16", "lzw8", "big16"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_tiff_cut_off_anywhere_is_not_ready(name, share, tiffs):
    content = tiffs[f"{name}.tif"]
    with pytest.raises(InputNotReady, match="cut off"):
        read(content[: int(len(content) * share)])


def test_a_jpeg_within_a_tiff_is_read_and_its_end_is_asked_for(make):
    content = make.saved(make.original(), "TIFF", compression="jpeg", quality=97)
    assert apart(read(content).pixels, make.original()) < 3
    with pytest.raises(InputNotReady):
        read(content[: len(content) - 2000])


def test_offsets_beyond_any_file_are_no_bug_of_ours():
    content = b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(100)
    with pytest.raises(InputNotReady):
        read(content)


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_straight_and_associated_alpha_both_come_out_straight(kind, make, deep):
    colours, alpha = deep.wide(make), make.opacity().astype(np.uint16) * 257
    stored = (
        colours if kind == "unassalpha" else (colours * (alpha[..., None] / 65535) + 0.5).astype(np.uint16)
    )
    picture = read(deep.tiff(np.dstack([stored, alpha]), extrasamples=[kind]))
    assert np.array_equal(picture.opacity, alpha)
    seen = alpha > 20_000
    assert np.abs(picture.pixels[seen].astype(int) - colours[seen]).max() <= 3


def test_grey_and_inverted_grey_are_the_same_photo(make, deep):
    grey = deep.wide(make)[..., 1].copy()
    for photometric, stored in (("minisblack", grey), ("miniswhite", 65535 - grey)):
        picture = read(deep.tiff(stored, photometric=photometric))
        assert np.array_equal(picture.pixels, np.dstack([grey] * 3))


def test_a_palette_and_a_bilevel_tiff_are_read(make):
    palette = Image.fromarray(make.original()).quantize(128)
    assert np.array_equal(read(make.saved(palette, "TIFF")).pixels, np.asarray(palette.convert("RGB")))
    bilevel = Image.fromarray(make.original()).convert("1")
    picture = read(make.saved(bilevel, "TIFF", compression="group4"))
    assert np.array_equal(picture.pixels[..., 0], np.asarray(bilevel.convert("L")))


def test_cmyk_of_16_bits_keeps_them_and_agrees_with_8(make, deep):
    inks = np.asarray(Image.fromarray(make.original()).convert("CMYK"))
    inks = np.dstack([inks[..., :3], (255 - inks[..., :3].max(axis=2)) // 2])
    told = {"photometric": "separated", "iccprofile": deep.cmyk_profile()}
    narrow, deep16 = read(deep.tiff(inks, **told)), read(deep.tiff(inks.astype(np.uint16) * 257, **told))
    assert deep16.pixels.dtype == np.uint16
    assert np.any(deep16.pixels % 257)
    assert apart(narrow.pixels, deep16.pixels) < 0.7
    assert narrow.warnings == deep16.warnings == []
    bare = read(deep.tiff(inks.astype(np.uint16) * 257, photometric="separated"))
    assert any("CMYK" in warning for warning in bare.warnings)
    assert apart(bare.pixels, np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))) < 1


def test_lab_of_16_bits_is_the_same_photo(make, deep):
    lab = lab_of(make)
    stored = np.dstack(
        [
            np.round(lab[..., 0] * 655.35).astype(np.uint16),
            np.round(lab[..., 1] * 256).astype(np.int16).view(np.uint16),
            np.round(lab[..., 2] * 256).astype(np.int16).view(np.uint16),
        ]
    )
    picture = read(deep.tiff(stored, photometric="cielab"))
    assert picture.pixels.dtype == np.uint16
    assert apart(picture.pixels, make.original()) < 0.4


def test_a_thumbnail_before_the_photo_is_passed_over(make, deep):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(make.original()[::8, ::8], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(deep.wide(make), photometric="rgb", metadata=None)
    picture = read(buffer.getvalue())
    assert np.array_equal(picture.pixels, deep.wide(make))
    assert picture.warnings == []


def test_profile_xmp_dpi_and_exif_come_along(make, deep):
    icc = make.profile("RGB ", 2.2)
    tags = [(700, "B", len(deep.XMP), deep.XMP, True), (271, "s", 0, "Maker", True)]
    content = deep.tiff(
        deep.wide(make), iccprofile=icc, extratags=tags, resolution=(300, 240), resolutionunit=2
    )
    picture = read(content)
    assert (picture.profile, picture.xmp, picture.dpi) == (icc, deep.XMP, (300, 240))
    block = Image.Exif()
    block.load(picture.exif)
    assert block[271] == "Maker"


@pytest.mark.parametrize(
    ("dtype", "words"), [(np.float32, "floating point"), (np.int16, "signed"), (np.uint32, "32 bits")]
)
def test_numbers_that_are_no_levels_are_refused_in_words(dtype, words, make, deep):
    with pytest.raises(InputRejected, match=words) as caught:
        read(deep.tiff(make.original().astype(dtype)))
    assert "16-bit TIFF" in caught.value.remedy
