"""Camera RAW: developed upright, at full depth, in the right colours."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from levels import apart, in_srgb, read
from PIL import Image, ImageCms

from watcher.errors import InputNotReady, InputRejected
from watcher.pipeline import colour, raw, sniff


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
