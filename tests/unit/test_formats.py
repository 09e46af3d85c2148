"""The formats that hold more than eight bits: every level survives. TIFF, Photoshop and camera RAW have files of their own."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from levels import apart, read
from PIL import Image

from watcher.errors import InputNotReady, InputRejected
from watcher.pipeline import exif, jxl, sniff
from watcher.pipeline.decode import DecodeLimits, decode
from watcher.pipeline.picture import full_scale

DATA = Path(__file__).parents[1] / "data"


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
