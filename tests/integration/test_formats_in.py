"""The formats of a photographer through the real daemon: depth, words of refusal, RAW and JPEG pairs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import cv2
import imagecodecs
import numpy as np
import pytest
from daemonrig import DaemonRig, check_set, drop, jpeg

from watcher.domain import JobState


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRig]:
    root = tmp_path_factory.mktemp("formats")
    paired = {"pairs": "jpeg", "pair_wait_s": 60.0, "source": "archive", "archive": str(root / "kept")}
    brief = {"pairs": "jpeg", "pair_wait_s": 0.5}
    rig = DaemonRig(root, folders={"in": {}, "paired": paired, "brief": brief}, card="tiny")
    rig.start()
    yield rig
    rig.close()


def photos(make, deep) -> dict[str, bytes]:
    wide = deep.wide(make)
    return {
        "camera.dng": deep.camera_raw(make, turn=6),
        "deep.jxl": imagecodecs.jpegxl_encode(wide, lossless=True),
        "large.psb": deep.psd(wide, big=True),
        "inks.tif": deep.tiff(
            np.dstack([wide, wide[..., 0]]), photometric="separated", iccprofile=deep.cmyk_profile()
        ),
        "phone.heic": deep.heic(make, 10),
        "tiled.tif": deep.tiffs(make)["tiled16.tif"],
    }


def test_what_is_deeper_than_8_bits_is_published_so(daemon, make, deep):
    for name, content in photos(make, deep).items():
        drop(daemon.hot() / name, content)
    for name in photos(make, deep):
        daemon.wait_done(name)
        stem = name.partition(".")[0]
        path = daemon.out() / f"{stem}.matte.json"
        check_set(path, json.loads(path.read_bytes()), daemon.out())
        cutout = cv2.imread(str(daemon.out() / f"{stem}.cutout.png"), cv2.IMREAD_UNCHANGED)
        assert (cutout.dtype, cutout.shape) == (np.uint16, (176, 132, 4)), name


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("page.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" * 9, "PDF"),
        ("clip.heic", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x10mdat12345678\0\0\0\x08moov", "video"),
        ("odd.mrw", b"\0MRM\0\1\0\0" + bytes(range(1, 256)) * 8, "LibRaw"),
    ],
)
def test_what_is_no_photo_is_quarantined_under_its_own_name(daemon, name, content, words):
    drop(daemon.hot() / name, content)
    daemon.wait_quarantined(name)
    [report] = [report for report in daemon.reports().values() if report["source"]["path"] == name]
    assert words in report["reason"], report
    assert report["remedy"].endswith(".")


@pytest.mark.parametrize("first", ["dng", "JPG"])
def test_a_pair_is_one_work_and_leaves_together(daemon, make, deep, first):
    hot, kept = daemon.hot("paired"), daemon.root / "kept"
    stem = f"IMG_{first}"
    contents = {"JPG": jpeg(len(first)), "dng": deep.camera_raw(make)}
    for ending in (first, *(ending for ending in contents if ending != first)):
        drop(hot / f"{stem}.{ending}", contents[ending])
        if ending == first == "JPG":
            daemon.wait_done(f"{stem}.JPG", "paired")
    daemon.wait(lambda: (kept / f"{stem}.JPG").exists(), timeout=20)
    daemon.wait(lambda: daemon.state_of(f"{stem}.dng", "paired") is JobState.DONE, timeout=20)
    # It follows with the next listing.
    daemon.wait(lambda: daemon.hotmatte("rescan") and (kept / f"{stem}.dng").exists(), timeout=20)
    assert (kept / f"{stem}.dng").read_bytes() == contents["dng"]
    assert list(hot.iterdir()) == []
    sidecars = [path.name for path in daemon.sidecars("paired") if path.name.startswith(stem)]
    assert sidecars == [f"{stem}.matte.json"]
    assert f"{stem}" not in daemon.hotmatte("failed").stdout


def test_a_name_that_begins_again_is_another_shot_with_a_turn_of_its_own(daemon, make, deep):
    """The JPEG of an earlier shot was done and archived under this name; of the new one the JPEG is broken."""
    hot, kept = daemon.hot("paired"), daemon.root / "kept"
    earlier = hot.parent / "IMG_0001.JPG"
    earlier.write_bytes(jpeg(1))
    os.utime(earlier, (1e9, 1e9))
    earlier.rename(hot / earlier.name)
    daemon.wait(lambda: (kept / earlier.name).exists(), timeout=20)
    assert daemon.hotmatte("pause", "paired").returncode == 0
    drop(hot / "IMG_0001.JPG", b"no photo at all")
    drop(hot / "IMG_0001.dng", deep.camera_raw(make))
    daemon.wait(lambda: daemon.state_of("IMG_0001.JPG", "paired") is JobState.QUEUED, timeout=20)
    daemon.wait(lambda: daemon.state_of("IMG_0001.dng", "paired") is JobState.DONE, timeout=20)
    assert daemon.hotmatte("resume", "paired").returncode == 0
    daemon.wait_quarantined("IMG_0001.JPG", "paired")
    sidecar = daemon.out("paired") / "IMG_0001_2.matte.json"
    daemon.wait(sidecar.exists, timeout=20)
    assert json.loads(sidecar.read_bytes())["source"]["path"] == "IMG_0001.dng"


def both_noted(daemon, stem: str, bad: bytes, deep, make) -> None:
    """Both halves are in the journal, and none has run yet."""
    assert daemon.hotmatte("pause", "brief").returncode == 0
    drop(daemon.hot("brief") / f"{stem}.JPG", bad)
    drop(daemon.hot("brief") / f"{stem}.dng", deep.camera_raw(make))
    daemon.wait(lambda: daemon.state_of(f"{stem}.JPG", "brief") is JobState.QUEUED, timeout=20)
    daemon.wait(lambda: daemon.state_of(f"{stem}.dng", "brief") is JobState.DONE, timeout=20)


def told(daemon, stem: str) -> dict:
    path = daemon.out("brief") / f"{stem}.matte.json"
    daemon.wait(path.exists, timeout=20)
    return json.loads(path.read_bytes())


def test_the_other_half_of_a_pair_is_work_when_the_preferred_one_fails(daemon, make, deep):
    both_noted(daemon, "IMG_1", b"these are not the photos you are looking for", deep, make)
    assert daemon.hotmatte("resume", "brief").returncode == 0
    daemon.wait_quarantined("IMG_1.JPG", "brief")
    assert told(daemon, "IMG_1")["source"]["path"] == "IMG_1.dng"
    # Neither a listing nor the one that failed takes that back.
    drop(daemon.hot("brief") / "IMG_2.JPG", b"nor are these")
    daemon.wait_quarantined("IMG_2.JPG", "brief")
    drop(daemon.hot("brief") / "IMG_2.dng", deep.camera_raw(make))
    assert told(daemon, "IMG_2")["source"]["path"] == "IMG_2.dng"


def test_the_other_half_of_a_pair_is_work_when_the_preferred_one_is_moved_away_before_its_turn(
    daemon, make, deep
):
    both_noted(daemon, "IMG_3", jpeg(3), deep, make)
    (daemon.hot("brief") / "IMG_3.JPG").rename(daemon.root / "elsewhere.jpg")
    daemon.wait(lambda: daemon.state_of("IMG_3.dng", "brief") is JobState.QUEUED, timeout=20)
    assert daemon.hotmatte("resume", "brief").returncode == 0
    assert told(daemon, "IMG_3")["source"]["path"] == "IMG_3.dng"
