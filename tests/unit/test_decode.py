"""Every guise a photo comes in, and what must be made of it."""

from __future__ import annotations

import csv
import os
import socket
import struct
import time
import tracemalloc
from pathlib import Path

import collection
import numpy as np
import pytest

from watcher.domain import Job, Source, Stamp
from watcher.errors import HostError, InputChanged, InputNotReady, InputRejected, WatcherError
from watcher.pipeline import exif
from watcher.pipeline.decode import DecodeLimits, decode

ADMITTED = Stamp(0, 0)


def proxy_size(width: int, height: int) -> tuple[int, int]:
    scale = 64 / min(width, height)
    return max(1, min(512, round(width * scale))), max(1, min(512, round(height * scale)))


def decoded(path: Path, job: Job, **limits):
    return decode(
        job, path, proxy_size=proxy_size, limits=DecodeLimits(**limits), reserve=lambda pixels: None
    )


@pytest.fixture
def frame_from(tmp_path, variants, job_of):
    def frame(name: str, content: bytes | None = None, **limits):
        path = tmp_path / name
        path.write_bytes(variants[name] if content is None else content)
        return decoded(path, job_of(path), **limits)

    return frame


def levels(frame) -> np.ndarray:
    return frame.pixels if frame.pixels.dtype == np.uint8 else frame.pixels // 257


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


LOSSLESS = (
    "turn6.png turn6.webp turn3.tif turn5.tif turn6.tif turn3_16.tif turn5_16.tif turn6_16.tif rgb16.png rgb16.tif "
    "rgba16.png rgba.png rgba_empty.png rgba_full.png animated.webp animated.png pages.tif lzw.tif photo.bmp "
    "photo.tga photo.ppm photo.jp2 photo.psd photo.png png_named comment_bomb.png profile_damaged.png "
    "profile_misfit.png cmyk.tif"
).split()
LOSSY = (
    "turn1.jpg turn2.jpg turn3.jpg turn4.jpg turn5.jpg turn6.jpg turn7.jpg turn8.jpg turn99.jpg progressive.jpg "
    "lossy.webp still.gif animated.gif jpeg.tif photo.heic turn6.heic photo.avif pair.mpo photo.jpg jpeg_named.png "
    "tail.jpg exif60k.jpg exif_damaged.jpg palette.png palette_hole.png lab.tif cmyk.jpg"
).split()


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_guise_is_the_upright_original_bit_for_bit(name, frame_from, make):
    assert np.array_equal(levels(frame_from(name)), make.original())


@pytest.mark.parametrize("name", LOSSY)
def test_a_lossy_guise_is_nearly_the_upright_original(name, frame_from, make):
    assert distance(levels(frame_from(name)), make.original()) < 6


@pytest.mark.parametrize(
    "name", ["grey.jpg", "grey16.png", "grey_alpha.png", "grey_profile.png", "bilevel.png"]
)
def test_grey_becomes_three_equal_channels(name, frame_from):
    frame = frame_from(name)
    assert frame.pixels.shape == (176, 132, 3)
    assert np.ptp(frame.pixels, axis=2).max() == 0
    assert frame.profile is None


def test_a_grey_profile_is_worked_into_the_pixels(frame_from, make):
    expected = make.original().astype(float) @ (0.299, 0.587, 0.114)
    grey = frame_from("grey_profile.png").pixels[..., 0]
    assert np.abs(grey - expected).mean() < 6
    raw = make.in_space(make.profile("GRAY", 1.8))
    assert np.abs(raw - expected).mean() > 8, "the picture must tell the difference"


@pytest.mark.parametrize("name", ["rgb16.png", "rgb16.tif", "rgba16.png", "grey16.png", "turn5_16.tif"])
def test_sixteen_bits_stay_sixteen_bits(name, frame_from):
    assert frame_from(name).pixels.dtype == np.uint16


def test_sixteen_bits_are_not_eight_bits_stretched(frame_from):
    assert np.any(frame_from("rgb16.png").pixels % 257)
    assert np.any(frame_from("rgb16.tif").pixels % 257)


@pytest.mark.parametrize("name", ["rgba.png", "rgba16.png", "grey_alpha.png"])
def test_a_source_keeps_the_alpha_it_brought(name, frame_from, make):
    opacity = frame_from(name).opacity
    assert np.array_equal(opacity if opacity.dtype == np.uint8 else opacity // 257, make.opacity())


def test_an_alpha_that_hides_nothing_is_no_alpha(frame_from):
    assert frame_from("rgba_full.png").opacity is None


def test_an_engine_sees_grey_through_holes_and_not_what_lies_beneath(frame_from):
    assert np.all(frame_from("rgba_empty.png").proxy == 128)


@pytest.mark.parametrize("name", ["adobe.jpg", "adobe.png"])
def test_pixels_stay_in_their_own_space_and_the_proxy_is_srgb(name, frame_from, make):
    plain = frame_from("photo.png")
    frame = frame_from(name)
    assert frame.profile == make.profile("RGB ", 2.2)
    assert distance(frame.pixels, make.in_space(make.profile("RGB ", 2.2))) < 3
    assert distance(frame.proxy, plain.proxy) < 2
    assert distance(frame.pixels, plain.pixels) > 4, "the picture must tell the difference"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("cmyk.jpg", "CMYK"),
        ("profile_damaged.png", "profile"),
        ("profile_misfit.png", "profile"),
        ("exif_damaged.jpg", "EXIF"),
        ("animated.gif", "first"),
        ("animated.webp", "first"),
        ("animated.png", "animation"),
        ("pages.tif", "first"),
    ],
)
def test_what_was_guessed_or_left_out_is_said(name, word, frame_from):
    assert any(word in warning for warning in frame_from(name).warnings)


@pytest.mark.parametrize(
    "name", ["photo.jpg", "photo.png", "photo.heic", "pair.mpo", "rgba16.png", "photo.psd"]
)
def test_nothing_is_said_about_ordinary_files(name, frame_from):
    assert frame_from(name).warnings == ()


NOT_READY = (
    "cut60.jpg cut_end.jpg cut_header.jpg cut50.png cut.heic cut.webp cut.tif no_directory.tif".split()
)
REJECTED = "damaged.jpg damaged.png empty.jpg zeros.jpg text.jpg page.png bomb.png float.tif".split()


@pytest.mark.parametrize("name", NOT_READY)
def test_half_a_file_is_not_ready(name, frame_from):
    with pytest.raises(InputNotReady, match="cut off"):
        frame_from(name)


@pytest.mark.parametrize("name", REJECTED)
def test_what_is_no_photo_is_rejected_with_a_reason_and_a_remedy(name, frame_from):
    with pytest.raises(InputRejected) as caught:
        frame_from(name)
    assert len(str(caught.value)) > 10 and caught.value.remedy.endswith(".")


def test_a_header_bomb_is_refused_at_once_and_before_room_is_reserved(tmp_path, variants, job_of):
    path = tmp_path / "bomb.png"
    path.write_bytes(variants["bomb.png"])
    reserved: list[int] = []
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(InputRejected, match=r"60000 x 60000.*limit is 200"):
        decode(job_of(path), path, proxy_size=proxy_size, limits=DecodeLimits(), reserve=reserved.append)
    took = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (reserved, took < 0.2, peak < 2_000_000) == ([], True, True)


@pytest.mark.parametrize("name", ["photo.jpg", "turn6.tif", "photo.heic", "lossy.webp", "photo.psd"])
def test_the_size_limit_holds_for_every_format(name, frame_from):
    with pytest.raises(InputRejected, match="megapixels"):
        frame_from(name, max_image_mp=0.02)


def test_a_file_that_is_too_heavy_is_not_read(frame_from):
    with pytest.raises(InputRejected, match="MB"):
        frame_from("photo.png", max_file_mb=0.01)


def test_room_is_reserved_for_the_pixels_before_they_are_decoded(tmp_path, variants, job_of):
    path = tmp_path / "a.jpg"
    path.write_bytes(variants["cut60.jpg"])
    reserved: list[int] = []
    with pytest.raises(InputNotReady):
        decode(job_of(path), path, proxy_size=proxy_size, limits=DecodeLimits(), reserve=reserved.append)
    assert reserved == [132 * 176]


def test_a_comment_that_inflates_to_80_mb_costs_nothing(tmp_path, variants, job_of):
    path = tmp_path / "a.png"
    path.write_bytes(variants["comment_bomb.png"])
    tracemalloc.start()
    decoded(path, job_of(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("name", ["1x1.png", "2x3.png", "tall.png", "wide.png", "black.png", "white.png"])
def test_extreme_shapes_have_a_proxy_of_the_size_asked_for(name, frame_from):
    frame = frame_from(name)
    assert frame.proxy.shape == (*proxy_size(frame.width, frame.height)[::-1], 3)
    assert frame.proxy.dtype == np.uint8 and frame.proxy.flags.c_contiguous


def test_metadata_travels_upright(frame_from):
    frame = frame_from("turn6.jpg")
    assert exif.upright(frame.metadata.exif) == (1, frame.metadata.exif)
    assert b"Cam\0" in frame.metadata.exif


def test_maker_notes_stay_where_their_offsets_point(make):
    for order in "<>":
        block = make.exif(6, maker_note=b"secret of the maker", order=order)
        orientation, patched = exif.upright(block)
        assert orientation == 6
        changed = [at for at in range(len(block)) if block[at] != patched[at]]
        assert len(patched) == len(block) and len(changed) == 1


def test_the_thumbnail_of_the_old_picture_is_unlinked():
    block = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 8, 0, 26) + bytes(20)
    orientation, patched = exif.upright(block)
    assert (orientation, patched[22:26]) == (8, bytes(4))


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"II*\0", b"II*\0\x08\0\0\0\xff\xff", b"garbage" * 5])
def test_a_damaged_exif_block_is_dropped(block):
    assert exif.upright(block) == (1, None)


@pytest.mark.parametrize("words", [b'tiff:Orientation="6"', b"<tiff:Orientation>6</tiff:Orientation>"])
def test_xmp_no_longer_says_to_turn_the_picture(words):
    assert exif.upright_xmp(b"<x " + words + b" 6>") == b"<x " + words.replace(b"6", b"1", 1) + b" 6>"


# --- The file itself -----------------------------------------------------------------------


def admitted(relpath: str, stamp: Stamp = ADMITTED) -> Job:
    return Job(1, Source("hot", relpath, stamp), 1, 1)


def test_the_digest_is_that_of_the_file(frame_from, variants):
    import hashlib

    assert frame_from("photo.jpg").sha256 == hashlib.sha256(variants["photo.jpg"]).hexdigest()


def test_a_file_that_is_gone_has_changed(tmp_path):
    with pytest.raises(InputChanged):
        decoded(tmp_path / "a.jpg", admitted("a.jpg"))


def test_a_file_with_another_stamp_is_not_decoded(tmp_path, variants):
    path = tmp_path / "a.png"
    path.write_bytes(variants["photo.png"])
    with pytest.raises(InputChanged):
        decoded(path, admitted("a.png", Stamp(path.stat().st_size, 5)))


def test_a_file_that_changes_while_it_is_read_has_changed(tmp_path, variants, job_of, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(variants["photo.png"])
    job = job_of(path)
    real = os.read

    def meddling(file, size):
        content = real(file, size)
        os.utime(path, ns=(1, 1))
        return content

    monkeypatch.setattr("watcher.pipeline.decode.os.read", meddling)
    with pytest.raises(InputChanged):
        decoded(path, job)


def test_a_fifo_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputRejected, match="regular"):
        decoded(tmp_path / "a.jpg", admitted("a.jpg"))


def test_a_socket_is_the_files_fault_and_not_the_machines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.jpg")
        with pytest.raises(InputRejected):
            decoded(tmp_path / "a.jpg", admitted("a.jpg"))


def test_a_symlink_is_not_followed(tmp_path, variants):
    (tmp_path / "secret.png").write_bytes(variants["photo.png"])
    (tmp_path / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputRejected, match="symbolic link"):
        decoded(tmp_path / "a.png", admitted("a.png", Stamp.of((tmp_path / "secret.png").stat())))


def test_no_symlinked_folder_leads_out_of_the_hot_folder(tmp_path, variants):
    outside, hot = tmp_path / "outside", tmp_path / "hot"
    outside.mkdir()
    hot.mkdir()
    (outside / "a.png").write_bytes(variants["photo.png"])
    (hot / "sub").symlink_to(outside)
    job = admitted("sub/a.png", Stamp.of((outside / "a.png").stat()))
    with pytest.raises((InputRejected, InputChanged)):
        decoded(hot / "sub" / "a.png", job)


def test_a_folder_is_no_photo(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(InputRejected, match="regular"):
        decoded(tmp_path / "a.jpg", admitted("a.jpg"))


def test_denied_permission_is_about_this_file_and_says_so(tmp_path, variants, job_of, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(variants["photo.png"])
    job = job_of(path)
    real = os.open

    def denied(name, flags, *args, **kwargs):
        if name == "a.png":  # root may read everything: the kernel would not say so here
            raise PermissionError(13, "Permission denied")
        return real(name, flags, *args, **kwargs)

    monkeypatch.setattr("watcher.pipeline.decode.os.open", denied)
    with pytest.raises(InputNotReady, match="permission") as caught:
        decoded(path, job)
    assert "read access" in caught.value.remedy


def test_a_dying_disk_is_the_machines_fault(tmp_path, variants, job_of, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(variants["photo.png"])
    job = job_of(path)

    def broken(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("watcher.pipeline.decode.os.open", broken)
    with pytest.raises(HostError, match="Input/output"):
        decoded(path, job)


# --- The larger collection, where it is at hand ----------------------------------------------


def listed() -> list[tuple[str, str]]:
    if not collection.EXISTS:
        return []
    with (collection.COLLECTION / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith("formats/derived/")]
    return [(row["file"], row["note"].rpartition("[expect: ")[2].rstrip("]")) for row in rows]


@pytest.mark.skipif(not collection.EXISTS, reason=collection.REASON)
@pytest.mark.parametrize(("name", "expected"), listed())
def test_the_collection_gives_what_its_manifest_expects(name, expected, job_of):
    path = collection.COLLECTION / name
    try:
        frame = decoded(path.absolute(), job_of(path))
    except WatcherError:
        assert expected != "ok"
    else:
        assert expected != "reject"
        if "orient" in name:
            assert (frame.width, frame.height) == (332, 440)
