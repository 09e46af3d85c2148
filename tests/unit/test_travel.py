"""What travels with the pixels, as ExifTool reads it out of every format we write."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pylibjxl
import pytest
import tifffile
from PIL import Image
from psd_tools import PSDImage

from watcher.domain import Frame, Job, Metadata, Source, Stamp
from watcher.outputs import Output
from watcher.pipeline import encode, exif, iptc, pixels, sniff, travel, xmp
from watcher.pipeline.encode import jxl
from watcher.pipeline.refine import Refined, refine

ENDINGS = ("png", "tif", "jpg", "webp", "psd", "psb", "jxl", "avif")
POLICIES = ("keep", "no_gps", "none")
# As a camera, and then an agency, would leave it: lying, with a thumbnail, a place, and IPTC.
TAGS = [
    "-Orientation#=6",
    "-Make=Canon",
    "-Model=EOS R5",
    "-DateTimeOriginal=2024:05:17 10:11:12",
    "-ExifImageWidth=176",
    "-ExifImageHeight=132",
    "-GPSLatitude=48.137154",
    "-GPSLatitudeRef=N",
    "-GPSLongitude=11.576124",
    "-GPSLongitudeRef=E",
    "-XResolution=240",
    "-YResolution=240",
    "-ResolutionUnit=inches",
    "-JFIF:XResolution=240",
    "-JFIF:YResolution=240",
    "-JFIF:ResolutionUnit=inches",
    "-XMP-dc:Title=Die Braut",
    "-XMP-dc:Creator=Ana Ruiz",
    "-XMP-exif:GPSLatitude=48.137154",
    "-XMP-tiff:Orientation#=6",
    "-XMP-tiff:ImageWidth=176",
    "-IPTC:CodedCharacterSet=UTF8",
    "-IPTC:Keywords=Hochzeit",
    "-IPTC:Keywords=Schloß",
    "-IPTC:Caption-Abstract=Vor der Tür",
    "-IPTC:City=München",
]


@dataclass(frozen=True)
class Travelled:
    """`frame`: the source, decoded; `told`: what ExifTool says of each file, by its name."""

    frame: Frame
    told: dict[str, dict[str, Any]]
    folder: Path


def exiftool(*words: str | Path) -> str:
    done = subprocess.run(
        ["exiftool", *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tagged(make, tmp_path_factory, real_part) -> Path:
    real_part("exiftool", shutil.which("exiftool"), "apt install libimage-exiftool-perl")
    folder = tmp_path_factory.mktemp("tagged")
    thumbnail = folder / "thumb.jpg"
    thumbnail.write_bytes(make.saved(make.original()[:48, :64], "JPEG"))
    photo = folder / "photo.jpg"
    lying = Image.fromarray(make.lying(6))
    photo.write_bytes(make.saved(lying, "JPEG", icc_profile=make.profile("RGB ", 2.2), quality=95))
    exiftool("-q", "-overwrite_original", *TAGS, f"-ThumbnailImage<={thumbnail}", photo)
    return photo


def framed(path: Path) -> Frame:
    kind = {".jpg": "JPEG", ".tif": "TIFF", ".png": "PNG", ".psd": "PSD"}[path.suffix]
    picture = pixels.read(path.read_bytes(), kind)
    return bare_frame(picture.pixels, picture.profile, picture.metadata)


def bare_frame(image: np.ndarray, profile: bytes | None, metadata: Metadata) -> Frame:
    job = Job(1, Source("hot", "a.jpg", Stamp(1, 1)), 1, 1)
    proxy = np.zeros((8, 8, 3), np.uint8)
    return Frame(job, Path("a.jpg"), image, None, profile, metadata, proxy, "0" * 64, "JPEG")


@pytest.fixture(scope="module")
def travelled(tagged, tmp_path_factory) -> Travelled:
    tmp_path = tmp_path_factory.mktemp("travelled")
    frame = framed(tagged)
    alpha = np.full(frame.pixels.shape[:2], 255, np.uint8)
    refined = Refined(np.dstack([frame.pixels, alpha]))
    names = []
    for policy in POLICIES:
        for ending in ENDINGS:
            kind = "composite" if ending == "jpg" else "cutout"
            output = Output(kind=kind, suffix=f".{policy}.{ending}", metadata=policy)
            names.append(tmp_path / f"a{output.suffix}")
            names[-1].write_bytes(encode.encode(output, refined, frame))
    found = json.loads(exiftool("-j", "-G1", "-n", "-a", *names))
    return Travelled(frame, {Path(item["SourceFile"]).name: item for item in found}, tmp_path)


def values(item: dict[str, Any], tag: str) -> list[Any]:
    """All values of a tag, whichever group it is in."""
    return [value for key, value in item.items() if key.rpartition(":")[2] == tag]


def has_profile(travelled: Travelled, name: str) -> bool:
    """ExifTool does not look into a JPEG XL's codestream."""
    if not name.endswith(".jxl"):
        return values(travelled.told[name], "ColorSpaceData") == ["RGB "]
    content = (travelled.folder / name).read_bytes()
    return pylibjxl.decode(content, metadata=True)[1]["icc"] == travelled.frame.profile


def test_every_format_keeps_exif_xmp_iptc_profile_and_resolution(travelled):
    for ending in ENDINGS:
        told = travelled.told[f"a.keep.{ending}"]
        assert values(told, "Make") == ["Canon"], ending
        assert "2024:05:17 10:11:12" in values(told, "DateTimeOriginal"), ending
        assert values(told, "Title") == ["Die Braut"], ending
        assert has_profile(travelled, f"a.keep.{ending}"), ending
        assert {round(value) for value in values(told, "XResolution")} == {240}, ending
        assert "Warning" not in "".join(told), (ending, told)
        if ending in ("png", "tif", "jpg", "psd", "psb"):
            assert told["IPTC:Keywords"] == ["Hochzeit", "Schloß"], ending
            assert (told["IPTC:Caption-Abstract"], told["IPTC:City"]) == ("Vor der Tür", "München")


def test_every_format_is_upright_with_its_own_dimensions_and_no_thumbnail(travelled):
    height, width = travelled.frame.pixels.shape[:2]
    for name, told in travelled.told.items():
        assert set(values(told, "Orientation")) <= {1}, name
        assert (told["File:ImageWidth"] if "File:ImageWidth" in told else width) == width
        assert set(values(told, "ExifImageWidth")) <= {width}, name
        assert set(values(told, "ExifImageHeight")) <= {height}, name
        assert set(values(told, "ImageWidth")) <= {width}, name
        assert values(told, "ThumbnailImage") == [], name
        assert b"\xff\xd8\xff\xe0" not in (travelled.folder / name).read_bytes()[3:], "a thumbnail's bytes"


def test_the_place_is_kept_left_out_or_everything_is(travelled):
    for name, told in travelled.told.items():
        gps = [key for key in told if "GPS" in key]
        if ".keep." in name:
            assert any(abs(value - 48.137154) < 1e-4 for value in values(told, "GPSLatitude")), name
            continue
        assert gps == [], name
        if ".no_gps." in name:
            assert values(told, "Make") == ["Canon"] and values(told, "Title") == ["Die Braut"], name
        else:
            for tag in ("Make", "Title", "Keywords", "DateTimeOriginal", "Creator"):
                assert values(told, tag) == [], name
            assert has_profile(travelled, name), f"{name}: without its profile the colours are wrong"


def test_no_byte_of_the_place_is_left_in_the_file(travelled):
    frame = travelled.frame
    block = travel.metadata_for(frame, "keep", "png").exif
    (tmp := travelled.folder / "block.exif").write_bytes(block)
    seconds = exiftool("-b", "-n", "-GPSLatitude", tmp)
    assert seconds.startswith("48.13")
    # Degrees and minutes as rationals, in either byte order.
    for order in ("little", "big"):
        place = b"".join(value.to_bytes(4, order) for value in (48, 1, 8, 1))
        if place in block:
            break
    assert place in block
    assert place not in exif.without_gps(block)


def test_a_matte_says_nothing_but_its_resolution(tagged, tmp_path):
    frame = framed(tagged)
    refined = Refined(np.dstack([frame.pixels, frame.pixels[..., 0]]))
    for ending in ("png", "tif"):
        path = tmp_path / f"m.{ending}"
        path.write_bytes(encode.encode(Output(kind="matte", suffix=f".{ending}"), refined, frame))
        (told,) = json.loads(exiftool("-j", "-G1", "-n", path))
        assert not any(key.startswith(("GPS", "XMP", "IPTC", "ICC", "ExifIFD")) for key in told), told
        assert values(told, "Make") == []


def test_iptc_is_read_from_each_format_that_holds_it(travelled):
    record = travelled.frame.metadata.iptc
    assert record is not None and "Schloß".encode() in record
    for ending in ("tif", "psd", "png"):
        again = framed(travelled.folder / f"a.keep.{ending}")
        assert again.metadata.iptc == record, ending


def test_our_outputs_read_again_have_the_same_pixels_and_metadata(travelled):
    for ending, format_ in (("png", "png"), ("tif", "tiff")):
        again = framed(travelled.folder / f"a.keep.{ending}")
        assert np.array_equal(again.pixels, travelled.frame.pixels), ending
        assert again.profile == travelled.frame.profile
        assert again.metadata.xmp == travel.metadata_for(travelled.frame, "keep", format_).xmp


@pytest.mark.parametrize("order", ["<", ">"])
def test_maker_notes_stay_where_their_offsets_say_in_a_tiff(make, order, frame_of, tmp_path):
    block = exif.upright(make.exif(6, maker_note=b"secret of the maker", order=order))[1]
    frame = frame_of(np.zeros((8, 9, 3), np.uint16), metadata=Metadata(exif=block))
    cutout = np.zeros((8, 9, 4), np.uint16)
    cutout[..., 0] = np.arange(9) * 300
    content = encode.encode(Output(kind="cutout", suffix=".tif"), Refined(cutout), frame)
    assert content.index(b"secret of the maker") == block.index(b"secret of the maker")
    assert content[:4] == block[:4]
    with Image.open(io.BytesIO(content)) as image:
        assert image.getexif()[0x010F] == "Cam"


def test_iptc_becomes_xmp_where_there_is_no_place_for_it(tagged, tmp_path):
    frame = framed(tagged)
    bare = bare_frame(frame.pixels, None, Metadata(iptc=frame.metadata.iptc, dpi=(240.0, 240.0)))
    refined = Refined(np.dstack([frame.pixels, frame.pixels[..., 0]]))
    path = tmp_path / "a.webp"
    path.write_bytes(encode.encode(Output(kind="cutout", suffix=".webp"), refined, bare))
    (told,) = json.loads(exiftool("-j", "-G1", "-n", path))
    assert told["XMP-dc:Subject"] == ["Hochzeit", "Schloß"]
    assert (told["XMP-dc:Description"], told["XMP-photoshop:City"]) == ("Vor der Tür", "München")
    assert told["IFD0:XResolution"] == 240


def test_iptc_joins_the_xmp_of_a_camera_that_speaks_of_other_things(tagged, tmp_path):
    """Sony's and Canon's write a rating into every JPEG; an agency's keywords must not be lost for that."""
    frame, own, path = framed(tagged), tmp_path / "own.xmp", tmp_path / "a.webp"
    exiftool("-q", "-XMP:Rating=4", "-XMP-photoshop:City=Wien", "-o", own)
    metadata = Metadata(xmp=own.read_bytes(), iptc=frame.metadata.iptc)
    refined = Refined(np.dstack([frame.pixels, frame.pixels[..., 0]]))
    output = Output(kind="cutout", suffix=".webp")
    path.write_bytes(encode.encode(output, refined, bare_frame(frame.pixels, None, metadata)))
    (told,) = json.loads(exiftool("-j", "-G1", "-n", "-a", path))
    assert told["XMP-dc:Subject"] == ["Hochzeit", "Schloß"]
    assert (told["XMP-dc:Description"], told["XMP-xmp:Rating"]) == ("Vor der Tür", 4)
    assert told["XMP-photoshop:City"] == "Wien"
    assert "Warning" not in str(told)


@pytest.mark.parametrize("packet", [b"", b"<x:xmpmeta>", b"no packet"])
def test_a_packet_without_an_end_stays_as_it_is(packet):
    assert xmp.with_iptc(packet or None, []) == (packet or None)
    assert packet == b"" or xmp.with_iptc(packet, [(90, "Wien")]) == packet


def with_exif(make, kind: str, block: bytes, **more: Any) -> bytes:
    photo = Image.fromarray(make.original())
    if kind == "JXL":
        return jxl._with_boxes(pylibjxl.encode(make.original()), Metadata(exif=block))
    return make.saved(photo, kind, exif=b"Exif\0\0" + block, **more)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "WEBP", "JXL", "PNG", "JPEG"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_resolution_that_only_exif_tells_comes_along(kind, order, make):
    block = exif.with_resolution(make.exif(1, order=order), (300.0, 300.0))
    content = with_exif(make, kind, block)
    assert pixels.read(content, sniff.kind_of(content)).dpi == (300.0, 300.0)


def test_a_resolution_too_fine_for_any_printer_is_none(make):
    content = make.with_chunk(make.saved(make.original(), "PNG"), b"pHYs", b"\xff" * 8 + b"\1")
    assert pixels.read(content, "PNG").dpi is None


@pytest.mark.parametrize("ending", ["webp", "avif", "jxl"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("before", [None, (72.0, 72.0)])
def test_exif_gets_the_resolution_where_a_format_has_no_other_place(
    ending, order, before, make, tmp_path, real_part
):
    real_part("exiftool", shutil.which("exiftool"), "apt install libimage-exiftool-perl")
    block = exif.upright(make.exif(1, maker_note=b"secret of the maker", order=order))[1]
    block = block if before is None else exif.with_resolution(block, before)
    frame = bare_frame(make.original(), None, Metadata(exif=block, dpi=(300.0, 300.0)))
    path = tmp_path / f"a.{ending}"
    cutout = np.dstack([frame.pixels, frame.pixels[..., 0]])
    path.write_bytes(encode.encode(Output(kind="cutout", suffix=f".{ending}"), Refined(cutout), frame))
    (told,) = json.loads(exiftool("-j", "-G1", "-n", "-api", "RequestAll=3", path))
    assert (told["IFD0:XResolution"], told["IFD0:YResolution"], told["IFD0:ResolutionUnit"]) == (300, 300, 2)
    # Pillow takes the orientation out of an AVIF, and writes the block anew for that.
    assert (told["IFD0:Make"], told.get("IFD0:Orientation", 1)) == ("Cam", 1)
    written = travel.metadata_for(frame, "keep", ending).exif
    assert written.index(b"secret of the maker") == block.index(b"secret of the maker")
    assert ending == "avif" or path.read_bytes().count(written) == 1


def test_the_resolution_of_a_tiff_is_in_its_webp(make):
    content = make.saved(make.original(), "TIFF", dpi=(300, 300), exif=exif_of_a_camera())
    frame = bare_frame(make.original(), None, pixels.read(content, "TIFF").metadata)
    assert b"Acme" in frame.metadata.exif
    assert exif.resolution_of(travel.metadata_for(frame, "keep", "webp").exif) == (300.0, 300.0)


def test_the_first_directory_of_a_raw_or_a_tiff_tells_a_resolution_only_with_a_unit():
    block = exif_of_a_camera()
    block[0x011A], block[0x011B], block[0x0128] = 300.0, 300.0, 2
    assert exif.resolution_of(exif.of_tags(block)) == (300.0, 300.0)
    block[0x0128] = 1
    assert exif.of_tags(block) == exif.of_tags(exif_of_a_camera())


def exif_of_a_camera() -> Image.Exif:
    block = Image.Exif()
    block[0x010F] = "Acme"
    return block


# --- Damage --------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_damaged_block_is_patched_or_left_but_never_an_error(make, cut):
    block = make.exif(1)
    part = block[: max(0, len(block) - cut)]
    exif.fitted(part, 10, 20)
    exif.without_gps(part)
    exif.upright(part)
    exif.resolution_of(part)
    exif.with_resolution(part, (300.0, 300.0))


def test_a_gps_entry_that_leads_nowhere_means_no_exif_at_all():
    block = b"II*\0\x08\0\0\0\x01\0" + b"\x25\x88\x04\0\x01\0\0\0\xff\xff\xff\0" + bytes(4)
    assert exif.without_gps(block) is None


@pytest.mark.parametrize(
    "packet",
    [
        b'<rdf:Description exif:GPSLatitude="48,8N" exif:GPSLongitude = \'11,3E\' dc:x="1"/>',
        b"<rdf:Description><exif:GPSLatitude>48</exif:GPSLatitude><exif:GPSAltitude/></rdf:Description>",
    ],
)
def test_xmp_loses_its_place_and_nothing_else(packet):
    left = xmp.without_gps(packet)
    assert left is not None and b"GPS" not in left and b"rdf:Description" in left
    assert (b'dc:x="1"' in packet) == (b'dc:x="1"' in left)


def test_xmp_whose_place_cannot_be_found_is_dropped():
    assert xmp.without_gps(b"<a:GPSLatitude>48</b:GPSLatitude>") is None


@pytest.mark.parametrize(
    "piece",
    [b"<a:GPS>", b"<a:GPS", b" ", b" a:GPS=", b" a:GPS='", b"<xmp:Thumbnails>", b"<xmp:Thumbnails ", b"a"],
)
def test_a_packet_made_to_keep_us_busy_does_not(piece):
    packet = piece * (4_000_000 // len(piece))
    xmp.fitted(packet, 10, 20)
    xmp.without_gps(packet)


def test_a_gps_directory_made_to_keep_us_busy_is_dropped_with_its_block():
    entry = b"\x01\0\x01\0\xff\xff\0\0\x08\0\0\0"
    head = b"II*\0\x08\0\0\0\x01\0" + b"\x25\x88\x04\0\x01\0\0\0\x1a\0\0\0" + bytes(4)
    assert exif.without_gps(head + b"\xff\xff" + entry * 65535 + bytes(1_000_000)) is None


def test_thumbnails_in_xmp_go():
    packet = b"<r><xmp:Thumbnails><rdf:Alt>abc</rdf:Alt></xmp:Thumbnails><dc:title>x</dc:title></r>"
    assert xmp.fitted(packet, 1, 1) == b"<r><dc:title>x</dc:title></r>"


@pytest.mark.parametrize("kind", ["JPEG", "PSD", "PNG", "TIFF"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8\xff\xed\0", b"II*\0\xff\xff\xff\xff", b"8BPS" + bytes(30)]
)
def test_iptc_in_a_damaged_file_is_none(kind, content):
    assert iptc.found_in(content, kind) is None


# --- Pixels --------------------------------------------------------------------------------


def by_others(content: bytes, ending: str) -> np.ndarray:
    """RGBA as somebody else's reader has it; of a PSD the photo layer with its mask."""
    match ending:
        case ".psd" | ".psb":
            document = PSDImage.open(io.BytesIO(content))
            layer = document[1]
            top = 255 if document.depth == 8 else 65535
            levels = np.concatenate([layer.numpy("color"), layer.numpy("mask")], axis=2)
            return np.rint(levels.astype(np.float64) * top).astype(int)
        case ".tif":
            return tifffile.imread(io.BytesIO(content))
        case ".jxl":
            return imagecodecs.jpegxl_decode(content)
        case ".webp":
            return np.asarray(Image.open(io.BytesIO(content)))
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


@pytest.mark.parametrize(
    ("ending", "depth"),
    [(".webp", 8), *itertools.product([".png", ".tif", ".psd", ".psb", ".jxl"], [8, 16])],
)
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_where_alpha_is_full_the_pixels_are_the_sources_own(make, orientation, ending, depth):
    """From the file as a camera stores it, through reading, refining and writing."""
    lying = make.lying(orientation)
    if depth == 8:
        content = make.saved(lying, "PNG", exif=make.exif(orientation))
    else:
        deep = lying.astype(np.uint16) * 257 - lying[..., ::-1]
        content = make.with_chunk(make.by_opencv(deep, ".png"), b"eXIf", make.exif(orientation))
        upright = make.original().astype(np.uint16) * 257 - make.original()[..., ::-1]
    picture = pixels.read(content, "PNG")
    expected = make.original() if depth == 8 else upright
    assert np.array_equal(picture.pixels, expected), "upright"
    frame = bare_frame(picture.pixels, None, picture.metadata)
    refined = refine(frame, make.opacity().astype(np.float32) / 255, method="guided", decontaminate=True)
    found = by_others(encode.encode(Output(kind="cutout", suffix=ending), refined, frame), ending)
    full = refined.alpha == np.iinfo(refined.alpha.dtype).max
    assert full.sum() > 1000 and np.array_equal(found[..., 3], refined.alpha)
    assert np.array_equal(found[full][:, :3], expected[full])
