"""Colours that a file names without an ICC profile, and metadata in places where older programs put it."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from watcher.pipeline import colour, pixels, sniff

# Linear light of Display P3 to that of sRGB (both D65), from their primaries.
P3_TO_SRGB = np.array([[1.22494, -0.22494, 0.0], [-0.04206, 1.04206, 0.0], [-0.01964, -0.07864, 1.09828]])
# Not so colourful that sRGB could not show it.
LEVELS = np.array([[[180, 90, 60], [90, 160, 100], [70, 90, 170], [128, 128, 128]]], np.uint8)


def read(content: bytes):
    return pixels.read(content, sniff.kind_of(content))


def light(levels: np.ndarray) -> np.ndarray:
    share = levels / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def shown(linear: np.ndarray) -> np.ndarray:
    share = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)
    return 255 * share


def in_srgb(picture) -> np.ndarray:
    return colour.proxy_to_srgb(picture.pixels, picture.profile).astype(float)


def png(make, *chunks: tuple[bytes, bytes]) -> bytes:
    content = make.saved(LEVELS, "PNG")
    for kind, body in reversed(chunks):
        content = make.with_chunk(content, kind, body)
    return content


def raw_profile(name: bytes, body: bytes) -> tuple[bytes, bytes]:
    text = b"\n%s\n%8d\n%s\n" % (name, len(body), body.hex().encode())
    return b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(text)


def camera_jpeg(make, *, space: int, index: str) -> bytes:
    block = Image.Exif()
    block[0x010F] = "Cam"
    block._ifds[0x8769] = {0xA001: space, 0xA005: {1: index}}
    return make.saved(make.in_space(make.profile("RGB ", 2.2)), "JPEG", quality=97, exif=block.tobytes())


# --- Colours -------------------------------------------------------------------------------


def test_a_png_that_says_display_p3_by_code_points_keeps_its_pixels_and_has_its_colours(make):
    picture = read(png(make, (b"cICP", bytes([12, 13, 0, 1]))))
    assert np.array_equal(picture.pixels, LEVELS)
    assert np.abs(in_srgb(picture) - shown(light(LEVELS) @ P3_TO_SRGB.T)).max() < 1.5


def test_code_points_win_over_a_profile_and_a_profile_over_gamma(make):
    adobe = make.profile("RGB ", 2.2)
    embedded = b"iCCP", b"x\0\0" + zlib.compress(adobe)
    linear = b"gAMA", struct.pack(">I", 100_000)
    assert read(png(make, embedded, linear)).profile == adobe
    assert read(png(make, (b"cICP", bytes([1, 13, 0, 1])), embedded)).profile is None
    assert read(png(make, (b"sRGB", b"\0"), linear)).profile is None


def test_a_png_of_linear_light_is_shown_as_bright_as_it_is(make):
    picture = read(png(make, (b"gAMA", struct.pack(">I", 100_000))))
    assert np.array_equal(picture.pixels, LEVELS)
    assert np.abs(in_srgb(picture) - shown(LEVELS / 255)).max() < 1.5


def test_a_png_with_the_primaries_of_adobe_rgb_is_adobe_rgb(make):
    white_first = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    content = make.saved(make.in_space(make.profile("RGB ", 2.2)), "PNG")
    content = make.with_chunk(content, b"cHRM", struct.pack(">8I", *white_first))
    picture = read(make.with_chunk(content, b"gAMA", struct.pack(">I", 45_470)))
    assert np.abs(in_srgb(picture) - make.original()).mean() < 0.6


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"gAMA", struct.pack(">I", 45_455))],
        [(b"gAMA", bytes(4))],
        [(b"gAMA", b"x")],
        [(b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", bytes(32))],
        [(b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", struct.pack(">8I", *[33_000] * 8))],
        [(b"cICP", bytes([2, 2, 0, 1]))],
        [(b"cICP", b"")],
    ],
    ids=["as sRGB", "none", "short", "black", "one point", "unspecified", "empty"],
)
def test_what_is_srgb_or_makes_no_sense_counts_as_srgb(make, chunks):
    picture = read(png(make, *chunks))
    assert (picture.profile, picture.warnings) == (None, [])


def test_hdr_by_code_points_is_said(make):
    picture = read(png(make, (b"cICP", bytes([9, 16, 0, 1]))))
    assert picture.profile is None
    assert any("HDR" in warning for warning in picture.warnings)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_heif_that_says_display_p3_without_a_profile_has_its_colours(make, kind):
    content = make.saved(make.original(), kind, quality=90)
    at = content.index(b"nclx")
    picture = read(content[: at + 4] + struct.pack(">HH", 12, 13) + content[at + 8 :])
    expected = colour.proxy_to_srgb(picture.pixels, picture.profile).astype(float)
    ours = shown(np.clip(light(picture.pixels) @ P3_TO_SRGB.T, 0, 1))
    assert np.abs(expected - ours).mean() < 1.0
    assert np.abs(expected - picture.pixels).mean() > 1.5, "the picture must tell the difference"
    assert read(content).profile is None, "as sRGB it needs none"


@pytest.mark.parametrize(("space", "index"), [(65535, "R03"), (2, "R98")])
def test_a_camera_that_says_adobe_rgb_and_embeds_no_profile_is_believed(make, space, index):
    picture = read(camera_jpeg(make, space=space, index=index))
    assert picture.profile == colour.adobe_rgb()
    assert np.abs(in_srgb(picture) - make.original()).mean() < 4


@pytest.mark.parametrize(("space", "index"), [(1, "R98"), (65535, "R98"), (1, "R03")])
def test_a_camera_that_says_srgb_or_nothing_is_srgb(make, space, index):
    assert read(camera_jpeg(make, space=space, index=index)).profile is None


# --- Metadata of PNG -------------------------------------------------------------------------

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
XMP_CHUNK = b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP


def test_xmp_is_found_among_other_texts_in_any_order(make):
    other = b"iTXt", b"Comment\0\0\0\0\0hello"
    assert read(png(make, XMP_CHUNK, other)).xmp == XMP
    assert read(png(make, other, XMP_CHUNK)).xmp == XMP


@pytest.mark.parametrize("name", [b"exif", b"APP1"])
def test_exif_in_a_raw_profile_comes_along_and_turns_the_photo(make, name):
    picture = read(png(make, raw_profile(name, b"Exif\0\0" + make.exif(6))))
    assert np.array_equal(picture.pixels, np.rot90(LEVELS, -1))
    block = Image.Exif()
    block.load(picture.exif)
    assert (block[0x010F], block[0x0112]) == ("Cam", 1)


def test_xmp_in_a_raw_profile_comes_along(make):
    assert read(png(make, raw_profile(b"xmp", XMP))).xmp == XMP
    packet = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    assert read(png(make, raw_profile(b"APP1", packet))).xmp == XMP


def test_chunks_of_their_own_win_over_raw_profiles(make):
    old = raw_profile(b"exif", b"Exif\0\0" + make.exif(6))
    picture = read(png(make, old, (b"eXIf", make.exif(1))))
    assert picture.pixels.shape == LEVELS.shape


@pytest.mark.parametrize("body", [b"\nexif\n 3\nabc\n", b"\nexif\n x", b""])
def test_a_damaged_raw_profile_costs_nothing(make, body):
    picture = read(png(make, (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(body)), XMP_CHUNK))
    assert (picture.exif, picture.xmp) == (None, XMP)
    assert np.array_equal(picture.pixels, LEVELS)
