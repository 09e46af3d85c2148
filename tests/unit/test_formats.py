"""The formats that hold more than eight bits, camera RAW and Photoshop documents: every level survives."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from psd_tools import PSDImage

from watcher.errors import InputNotReady, InputRejected
from watcher.pipeline import colour, exif, jxl, pixels, raw, sniff
from watcher.pipeline.decode import DecodeLimits, decode
from watcher.pipeline.picture import full_scale

DATA = Path(__file__).parents[1] / "data"


def read(content: bytes):
    kind = sniff.kind_of(content)
    width, height = sniff.size_of(content, kind)
    picture = pixels.read(content, kind)
    assert {*picture.pixels.shape[:2]} == {width, height}
    return picture


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference, in levels of 8 bits whatever the depth."""
    scales = [255 / np.iinfo(image.dtype).max for image in (one, other)]
    return float(np.abs(one * scales[0] - other * scales[1]).mean())


def in_srgb(picture) -> np.ndarray:
    eight = (picture.pixels / (np.iinfo(picture.pixels.dtype).max / 255) + 0.5).astype(np.uint8)
    return colour.proxy_to_srgb(eight, picture.profile)


# --- TIFF ----------------------------------------------------------------------------------

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


def lab_of(make) -> np.ndarray:
    """HxWx3 float: L 0..100, a and b, of every sRGB level by the CIE's formulas (D50 by Bradford)."""
    linear = make.original() / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
    x, y, z = np.moveaxis(linear @ np.transpose(to_xyz) / (0.9642, 1.0, 0.8249), 2, 0)
    fx, fy, fz = (np.where(v > 216 / 24389, np.cbrt(v), (24389 / 27 * v + 16) / 116) for v in (x, y, z))
    return np.dstack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


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


# --- HEIC, AVIF, JPEG 2000, PPM --------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12])
def test_a_deep_heic_keeps_its_bits_profile_and_exif(bits, make, deep):
    picture = read(deep.heic(make, bits))
    assert picture.pixels.dtype == np.uint16
    assert len(np.unique(picture.pixels)) > 300
    assert apart(picture.pixels, deep.wide(make)) < 1
    assert picture.profile == make.profile("RGB ", 2.2)
    assert b"Cam\0" in picture.exif


@pytest.mark.parametrize("bits", [10, 12])
def test_a_deep_avif_keeps_its_bits(bits, make, deep):
    picture = read(deep.avif(make, bits))
    assert picture.pixels.dtype == np.uint16
    assert len(np.unique(picture.pixels)) > 300
    assert apart(picture.pixels, deep.wide(make)) < 3


def test_an_avif_that_is_turned_by_its_container_is_upright(make):
    content = make.saved(Image.fromarray(make.lying(6)), "AVIF", quality=95, exif=b"Exif\0\0" + make.exif(6))
    assert b"irot" in content
    assert apart(read(content).pixels, make.original()) < 5


def test_white_is_white_at_every_depth():
    for bits in range(1, 17):
        ends = full_scale(np.array([[0, 2**bits - 1]], np.uint16), bits)
        assert ends.tolist() == [[0, np.iinfo(ends.dtype).max]], bits
        assert ends.dtype == (np.uint8 if bits <= 8 else np.uint16)


def test_a_deep_jpeg_2000_is_exact(make, deep):
    content = imagecodecs.jpeg2k_encode(deep.wide(make), level=0)
    assert np.array_equal(read(content).pixels, deep.wide(make))
    with pytest.raises((InputRejected, InputNotReady)):
        read(content[: len(content) // 2])


def test_a_deep_ppm_is_exact(make, deep):
    header = b"P6\n# a comment\n132 176\n65535\n"
    content = header + deep.wide(make).astype(">u2").tobytes()
    assert np.array_equal(read(content).pixels, deep.wide(make))
    with pytest.raises(InputNotReady):
        read(content[:-1])


# --- PNG -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_an_interlaced_png_is_exact(dtype, channels, make, deep):
    levels = make.original() if dtype == np.uint8 else deep.wide(make)
    alpha = make.opacity().astype(dtype) * (1 if dtype == np.uint8 else 257)
    picture = read(deep.interlaced(make, np.dstack([levels, alpha][: channels - 2])))
    assert np.array_equal(picture.pixels, levels)
    assert channels == 3 or np.array_equal(picture.opacity, alpha)


def test_a_transparent_colour_of_16_bits_is_a_hole(make, deep):
    levels = deep.wide(make)
    levels[:20, :20] = (1000, 2000, 3000)
    content = make.with_chunk(make.by_opencv(levels, ".png"), b"tRNS", struct.pack(">3H", 1000, 2000, 3000))
    picture = read(content)
    assert np.array_equal(picture.pixels, levels)
    assert (picture.opacity == 0).sum() == 400


# --- JPEG ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["12 bits", "lossless"])
def test_a_jpeg_of_a_rare_kind_is_refused_in_words(name, make, deep):
    deep12 = deep.wide(make) >> 4
    lossless = {"lossless": True, "bitspersample": 8}
    content = (
        imagecodecs.jpeg8_encode(deep12, level=95, bitspersample=12)
        if name == "12 bits"
        else imagecodecs.jpeg8_encode(make.original(), **lossless)
    )
    with pytest.raises(InputRejected, match=name) as caught:
        read(content)
    assert "8-bit JPEG" in caught.value.remedy


def test_inks_by_adobe_are_not_inverted(make):
    """Photoshop stores CMYK JPEGs upside down and says so in its marker, plain or as YCCK."""
    photo = Image.fromarray(make.original())
    content = make.saved(photo.convert("CMYK"), "JPEG", quality=97)
    assert b"Adobe" in content
    assert apart(read(content).pixels, make.original()) < 6
    ycck = imagecodecs.jpeg8_encode(
        255 - np.asarray(photo.convert("CMYK")), level=97, colorspace="CMYK", outcolorspace="YCCK"
    )
    assert b"Adobe" in ycck
    assert apart(read(ycck).pixels, make.original()) < 6


# --- JPEG XL ---------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_lossless_jpeg_xl_is_exact_at_its_own_depth(channels, dtype, make, deep):
    colours = deep.wide(make) if dtype == np.uint16 else make.original()
    alpha = make.opacity().astype(dtype) * (257 if dtype == np.uint16 else 1)
    base = colours if channels > 2 else colours[..., 1:2]
    levels = base if channels % 2 else np.dstack([base, alpha])
    picture = read(imagecodecs.jpegxl_encode(np.squeeze(levels), lossless=True))
    assert picture.pixels.dtype == dtype
    if channels < 3 and dtype == np.uint16:
        # This writer calls grey levels of 16 bits linear, and a grey profile is worked into the pixels.
        linear = base / 65535
        base = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 65535
        assert np.abs(picture.pixels - base).max() < 40
    else:
        assert np.array_equal(picture.pixels, np.broadcast_to(base, picture.pixels.shape))
    assert (picture.opacity is None) == (channels % 2 == 1)
    if picture.opacity is not None:
        assert np.array_equal(picture.opacity, alpha)


def stored_in_jxl(make) -> np.ndarray:
    levels = make.in_space(make.profile("RGB ", 2.2))[::4, ::4].astype(np.int64) * 257
    return np.clip(levels + np.arange(levels.size).reshape(levels.shape) % 200, 0, 65535).astype(np.uint16)


def test_a_jpeg_xl_keeps_its_profile(make):
    picture = read((DATA / "wide_lossless.jxl").read_bytes())
    assert np.array_equal(picture.pixels, stored_in_jxl(make))
    assert picture.profile == make.profile("RGB ", 2.2)


def test_a_lossy_jpeg_xl_with_a_rare_profile_has_the_right_colours_and_says_what_was_done(make):
    picture = read((DATA / "wide_lossy.jxl").read_bytes())
    assert picture.pixels.dtype == np.uint16
    assert apart(picture.pixels, make.original()[::4, ::4]) < 5
    assert any("profile" in warning for warning in picture.warnings)


def test_metadata_in_boxes_packed_or_not_comes_along(make, deep):
    bare = imagecodecs.jpegxl_encode(make.original(), lossless=True)
    block = make.exif(6)
    packed = b"xml " + imagecodecs.brotli_encode(deep.XMP)
    picture = read(deep.jxl_with(bare, Exif=bytes(4) + block, brob=packed))
    # The codestream says which way is up, not EXIF (ISO/IEC 18181-2).
    assert np.array_equal(picture.pixels, make.original())
    assert picture.exif == exif.upright(block)[1]
    assert picture.xmp == deep.XMP


def test_a_jpeg_in_a_jpeg_xl_is_the_same_photo(make):
    jpeg = make.saved(
        make.lying(6),
        "JPEG",
        quality=97,
        subsampling=0,
        exif=b"Exif\0\0" + make.exif(6),
        icc_profile=make.profile("RGB ", 2.2),
    )
    picture = read(imagecodecs.jpegxl_encode_jpeg(jpeg))
    assert apart(picture.pixels, make.original()) < 2
    assert picture.profile == make.profile("RGB ", 2.2)
    assert b"Cam\0" in picture.exif


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_jpeg_xl_cut_off_is_not_ready(share, make, deep):
    bare = imagecodecs.jpegxl_encode(deep.wide(make), lossless=True)
    for content in (bare, deep.jxl_with(bare)):
        with pytest.raises(InputNotReady):
            read(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    "size", [(1, 1), (8, 8), (132, 176), (256, 256), (300, 200), (1000, 3), (3, 1000), (8200, 2)]
)
def test_the_size_of_a_jpeg_xl_is_read_from_its_first_bits(size):
    content = imagecodecs.jpegxl_encode(np.zeros((size[1], size[0], 3), np.uint8), lossless=True)
    assert jxl.size_of(content) == size


# --- Photoshop -------------------------------------------------------------------------------

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


# --- Camera RAW ------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_a_camera_raw_is_developed_upright_at_16_bits_with_a_profile_that_fits(turn, make, deep):
    content = deep.camera_raw(make, turn=turn)
    assert sniff.kind_of(content) == "RAW"
    picture = read(content)
    assert picture.pixels.dtype == np.uint16
    assert len(np.unique(picture.pixels)) > 5000
    assert ImageCms.ImageCmsProfile(io.BytesIO(picture.profile)).profile.xcolor_space == "RGB "
    assert apart(in_srgb(picture), make.original()) < 5, "a Bayer sensor sees a third"
    assert abs(in_srgb(picture).mean() - make.original().mean()) < 1.5, "neither brighter nor darker"
    assert picture.xmp == deep.XMP
    block = Image.Exif()
    block.load(picture.exif)
    assert (block[271], block[272], block.get(274, 1)) == ("Hotmatte", "Test Camera", 1)


def test_our_adobe_rgb_is_adobe_rgb(make):
    """The profile that tests/data/make.py writes has the primaries of the standard."""
    levels = make.in_space(make.profile("RGB ", 2.2))
    assert apart(colour.proxy_to_srgb(levels, colour.adobe_rgb()), make.original()) < 0.6


@pytest.mark.parametrize("share", [0.002, 0.3, 0.9, 0.999])
def test_a_camera_raw_cut_off_is_not_ready(share, make, deep):
    content = deep.camera_raw(make)
    with pytest.raises(InputNotReady):
        read(content[: max(20, int(len(content) * share))])


@pytest.mark.parametrize(
    "head",
    [
        b"II*\0\x10\0\0\0CR\x02\0", b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", b"FUJIFILMCCD-RAW 0201", b"IIRO\x08\0\0\0",
        b"IIU\0\x18\0\0\0", b"FOVb\x03\0\x02\0", b"\0MRM\0\x01\0\0", b"II\x1a\0\0\0HEAPCCDR\x02\0",
    ],
    ids=["CR2", "CR3", "RAF", "ORF", "RW2", "X3F", "MRW", "CRW"],
)  # fmt: skip
def test_other_makers_files_go_to_libraw_and_nonsense_in_them_is_refused(head):
    content = head + bytes(range(256)) * 20
    assert sniff.kind_of(content) == "RAW"
    with pytest.raises((InputRejected, InputNotReady)):
        sniff.size_of(content, "RAW")


def test_a_plain_tiff_of_a_camera_is_no_raw(make, deep):
    content = deep.tiff(make.original(), extratags=[(271, "s", 0, "NIKON CORPORATION", True)])
    assert not raw.is_raw(content)


def test_a_cr3_tells_its_exif_in_three_blocks(make):
    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", len(body) + 8, kind) + body

    blocks = box(b"CMT1", make.exif(6)) + box(b"CMT2", make.exif(1, order=">")) + box(b"CMT4", b"")
    content = box(b"ftyp", b"crx \0\0\0\1crx isom") + box(b"moov", box(b"uuid", bytes(16) + blocks))
    block = Image.Exif()
    block.load(raw._metadata(content)[0])
    assert (block[271], block.get(274)) == ("Cam", None)
    assert block.get_ifd(0x8769)[271] == "Cam"


# --- The limit -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["dng", "psb", "jxl", "boxed jxl", "heic", "avif", "jp2", "ppm", "tif", "big tif"]
)
def test_the_limit_on_megapixels_holds_before_a_pixel_is_decoded(kind, make, deep, tmp_path, job_of):
    wide = deep.wide(make)
    bare = imagecodecs.jpegxl_encode(wide, lossless=True)
    content = {
        "dng": lambda: deep.camera_raw(make),
        "psb": lambda: deep.psd(wide, big=True),
        "jxl": lambda: bare,
        "boxed jxl": lambda: deep.jxl_with(bare),
        "heic": lambda: deep.heic(make, 10),
        "avif": lambda: imagecodecs.avif_encode(wide >> 6, bitspersample=10, speed=10),
        "jp2": lambda: imagecodecs.jpeg2k_encode(wide, level=0),
        "ppm": lambda: b"P6 132 176 65535\n" + wide.tobytes(),
        "tif": lambda: deep.tiff(wide, compression="zlib"),
        "big tif": lambda: deep.tiff(wide, bigtiff=True),
    }[kind]()
    path = tmp_path / "a"
    path.write_bytes(content)
    reserved: list[int] = []
    with pytest.raises(InputRejected, match=r"132 x 176.*megapixels"):
        decode(
            job_of(path),
            path,
            proxy_size=lambda width, height: (width, height),
            limits=DecodeLimits(max_image_mp=0.02),
            reserve=reserved.append,
        )
    assert reserved == []


# --- What is no photo ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "EPS"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", "MP4"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "QuickTime"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "Matroska"),
        (b"RIFF\x24\0\0\0AVI LIST", "AVI"),
        (b"PK\x03\x04\x14\0\0\0", "ZIP"),
        (b"v/1\x01\x02\0\0\0", "OpenEXR"),
        (b"gimp xcf v011\0", "GIMP"),
    ],
)
def test_what_is_no_photo_is_called_by_its_name(content, words):
    with pytest.raises(InputRejected, match=words) as caught:
        sniff.kind_of(content)
    assert caught.value.remedy.endswith(".")


# --- Cost ------------------------------------------------------------------------------------


def test_what_is_rarely_needed_is_not_loaded_before_it_is_needed():
    code = "import sys, watcher.pipeline.decode; print(*sorted({'rawpy', 'tifffile', 'pillow_jxl'} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""
