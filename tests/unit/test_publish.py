"""Errors while publishing, leftovers, and the whole way from alpha to files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import weakref
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from watcher.config import Folder, Output, Profile
from watcher.domain import EngineAbout, Failure
from watcher.errors import HostError, InputChanged, InputRejected, SubfolderClosed
from watcher.ground import Ground
from watcher.pipeline import publish
from watcher.pipeline.finish import deliver, finish, report, style_of
from watcher.pipeline.looks import Answer
from watcher.pipeline.naming import Names
from watcher.pipeline.recipe import Recipe
from watcher.pipeline.render import render

OUTPUTS = [(".cutout.png", b"cutout" * 100), (".matte.png", b"matte" * 100)]
ABOUT = EngineAbout("modnet", "onnx", "onnxruntime", "cpu", None)


def publishing(folder: Path, number: int = 7) -> None:
    outputs = [
        {"suffix": suffix, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for suffix, content in OUTPUTS
    ]
    told = {"schema": 1, "source": {"folder": "hot", "path": "a.jpg"}, "outputs": outputs}
    publish.publish_all(folder, "a", OUTPUTS, sidecar=json.dumps(told).encode(), job_id=number)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM]
)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_full_or_forbidden_folder_is_the_machines_fault_and_nothing_stays(
    tmp_path, monkeypatch, number, after
):
    left = [after]

    def failing(place: int) -> None:
        if left[0] == 0:
            raise OSError(number, os.strerror(number))
        left[0] -= 1

    monkeypatch.setattr(publish, "fsync", failing)
    with pytest.raises(HostError, match="cannot write"):
        publishing(tmp_path)
    assert names_in(tmp_path) == set()


def test_a_failed_rename_is_carried_through_next_time(tmp_path, monkeypatch):
    real, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(publish, "rename", failing)
    with pytest.raises(HostError):
        publishing(tmp_path)
    assert "a.matte.json" not in names_in(tmp_path)
    publish.settled(tmp_path, "a", [suffix for suffix, _ in OUTPUTS])
    publishing(tmp_path, number=8)
    assert names_in(tmp_path) == {"a.cutout.png", "a.matte.png", "a.matte.json"}


def test_a_file_in_the_way_of_a_sub_folder_is_that_photos_trouble(tmp_path):
    (tmp_path / "sub").write_bytes(b"a file")
    with pytest.raises(InputRejected, match="cannot be written"):
        publishing(tmp_path / "sub" / "deeper")


def test_a_file_system_without_directory_sync_is_good_enough(tmp_path, monkeypatch):
    def only_files(place: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{place}"):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(publish, "fsync", only_files)
    publishing(tmp_path)
    assert len(names_in(tmp_path)) == 3


def test_nothing_is_written_through_a_link_left_under_a_temporarys_name(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "out"
    folder.mkdir()
    publish.temporary_of(folder / "a.matte.png", 7).symlink_to(victim)
    publishing(folder)
    assert victim.read_bytes() == b"precious" and not (folder / "a.matte.png").is_symlink()


def test_sweeping_removes_our_leftovers_and_nothing_else(tmp_path):
    ours = [".a.matte.png.12.hotmatte.tmp", ".a.matte.json.12.hotmatte.tmp", ".x.error.json.3.hotmatte.tmp"]
    others = ["a.png", ".a.tmp", ".a.12.tmp", "a.12.hotmatte.tmp", ".a.x.hotmatte.tmp", ".hotmatte.tmp"]
    deep = tmp_path / "s" / "t"
    deep.mkdir(parents=True)
    for name in [*ours, *others]:
        (deep / name).write_bytes(b"")
    assert publish.sweep(tmp_path) == len(ours)
    assert names_in(deep) == set(others)


def test_sweeping_a_folder_that_is_not_there_is_no_error(tmp_path):
    assert publish.sweep(tmp_path / "absent") == 0


def test_a_sub_folder_that_refuses_to_be_swept_does_not_keep_the_others_from_it(tmp_path, permissions):
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".a.matte.png.7.hotmatte.tmp").touch()
    (tmp_path / "closed").chmod(0o555)
    try:
        assert publish.sweep(tmp_path) == 1
        assert names_in(tmp_path / "open") == set()
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert publish.sweep(tmp_path) == 1
    (tmp_path / ".a.matte.png.7.hotmatte.tmp").touch()
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(HostError, match="cannot write"):
            publish.sweep(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_a_snapshot_of_the_share_is_not_swept(tmp_path):
    for name in ("#snapshot/GMT-2026.11.27", "~snapshot", ".snapshots/7/snapshot", "shoot"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ".a.matte.png.7.hotmatte.tmp").touch()
    assert publish.sweep(tmp_path) == 1
    assert names_in(tmp_path / "shoot") == set()
    # Where people work in folders of such names, ours are looked for there too.
    assert publish.sweep(tmp_path, all_of_it=True) == 3


def test_a_publication_that_cannot_be_carried_through_is_undone(tmp_path, monkeypatch):
    def dying(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(publish, "rename", dying)
    with pytest.raises(KeyboardInterrupt):
        publishing(tmp_path)
    monkeypatch.undo()
    publish.temporary_of(tmp_path / "a.cutout.png", 7).rename(tmp_path / "a.cutout.png")
    publish.temporary_of(tmp_path / "a.matte.png", 7).write_bytes(b"torn by a power cut")
    assert publish.settled(tmp_path, "a", [suffix for suffix, _ in OUTPUTS]) is None
    assert names_in(tmp_path) == set()


def test_undoing_spares_what_somebody_else_put_there(tmp_path):
    publishing(tmp_path)
    (tmp_path / "a.matte.json").rename(publish.temporary_of(tmp_path / "a.matte.json", 7))
    (tmp_path / "a.matte.png").write_bytes(b"mine")
    publish.sweep(tmp_path)
    assert names_in(tmp_path) == {"a.matte.png"}


# --- From alpha to files ---------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    folder = Folder(path=tmp_path / "hot", output=tmp_path / "out", quarantine=tmp_path / "bad")
    return Recipe("hot", folder, "portrait", Profile(), lambda: ABOUT, Names())


@pytest.fixture
def disc() -> np.ndarray:
    y, x = np.mgrid[:64, :48].astype(np.float32)
    return np.clip((20 - np.hypot(x - 24, y - 32)) / 3 + 0.5, 0, 1)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (128, 96, 3), dtype=np.uint8)


def test_an_alpha_becomes_files_and_a_sidecar_that_tells_of_them(frame_of, recipe, disc, photo):
    frame = frame_of(photo, name="sub/a.jpg", warnings=("odd",))
    outcome = finish(frame, disc, recipe, timings={"decode": 0.5}, clock=lambda: 1e9)
    out = recipe.folder.output
    assert names_in(out / "sub") == {"a.cutout.png", "a.matte.png", "a.matte.json"}
    told = json.loads(outcome.sidecar.read_bytes())
    for published, item in zip(outcome.files, told["outputs"], strict=True):
        content = (out / published.path).read_bytes()
        assert (len(content), item["path"], item["size"]) == (published.size, published.path, published.size)
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED).shape[:2] == (128, 96)
    assert told["warnings"] == ["odd"] and told["timings_ms"]["decode"] == 500
    assert set(outcome.timings) == {"decode", "refine", "encode", "publish"}
    assert outcome.review.coverage == pytest.approx(disc.mean(), abs=1e-4)


def test_a_matte_of_sixteen_bits_has_them_of_an_eight_bit_photo_too(frame_of, recipe, disc, photo):
    outputs = [Output(kind="matte", suffix=".matte.png"), Output(kind="matte", suffix=".deep.png", depth=16)]
    recipe = replace(recipe, profile=Profile(outputs=outputs))
    finish(frame_of(photo), disc, recipe)
    matte, deep = (
        cv2.imread(str(recipe.folder.output / name), cv2.IMREAD_UNCHANGED)
        for name in ("a.matte.png", "a.deep.png")
    )
    assert deep.dtype == np.uint16 and np.any(deep % 257), "no levels between those of 8 bits"
    assert np.array_equal((deep.astype(int) * 2 + 257) // 514, matte)


def test_a_sub_folder_that_refuses_us_is_told_from_the_whole_output(
    frame_of, recipe, disc, photo, permissions, monkeypatch
):
    out = recipe.folder.output
    closed = out / "closed"
    finish(frame_of(photo, name="closed/a.jpg"), disc, recipe)
    for folder, kind in ((closed, SubfolderClosed), (out, HostError)):
        folder.chmod(0o555)
        with pytest.raises(kind, match=r"cannot write to .*/closed: Permission denied") as caught:
            finish(frame_of(photo, name="closed/b.jpg"), disc, recipe)
        assert type(caught.value) is kind
    for folder in (out, closed):
        folder.chmod(0o755)

    def refused(source, target):
        """Such as one of another user, in a folder with the sticky bit."""
        raise PermissionError(errno.EPERM, "Operation not permitted", source, None, target)

    monkeypatch.setattr(publish, "rename", refused)
    with pytest.raises(InputRejected, match=r"written: .*/closed/a\.cutout\.png: Operation not"):
        finish(frame_of(photo, name="closed/a.jpg", number=2), disc, recipe)
    assert not [name for name in names_in(out) | names_in(closed) if "trial" in name]


def test_a_sidecar_that_we_may_not_read_is_somebody_elses(frame_of, recipe, disc, photo, permissions):
    finish(frame_of(photo), disc, recipe)
    (recipe.folder.output / "a.matte.json").chmod(0)
    assert finish(frame_of(photo, number=2), disc, recipe).sidecar.name == "a_2.matte.json"


class Sinking(Ground):
    """The share of the output folder goes while something is written there."""

    looks = 0

    def check(self, path):
        self.looks += 1
        if self.looks == 2:
            raise HostError(f"{path} is not mounted")


def test_what_may_have_been_written_below_a_mount_point_does_not_count(frame_of, recipe, disc, photo):
    with pytest.raises(HostError, match="not mounted"):
        finish(frame_of(photo), disc, replace(recipe, ground=Sinking()))
    with pytest.raises(HostError, match="not mounted"):
        report(frame_of(photo).job, Failure("X", "a", "b"), replace(recipe, ground=Sinking()))
    assert finish(frame_of(photo), disc, recipe).files


def test_a_source_that_changed_meanwhile_gets_no_matte(frame_of, recipe, disc, photo):
    frame = frame_of(photo)
    frame.path.write_bytes(b"another photo")
    with pytest.raises(InputChanged):
        finish(frame, disc, recipe)
    frame.path.unlink()
    with pytest.raises(InputChanged):
        finish(frame, disc, recipe)
    assert not recipe.folder.output.exists()


def test_a_new_output_whose_name_a_neighbours_file_has_leaves_no_older_results_behind(
    frame_of, recipe, disc, photo
):
    out = recipe.folder.output
    finish(frame_of(photo), disc, recipe)
    (out / "a.trimap.png").write_bytes(b"a neighbour's")
    more = (*Profile().outputs, Output(kind="trimap", suffix=".trimap.png"))
    outcome = finish(frame_of(photo, number=2), disc, replace(recipe, profile=Profile(outputs=more)))
    new = {"a_2.cutout.png", "a_2.matte.png", "a_2.trimap.png", "a_2.matte.json"}
    assert names_in(out) == {"a.trimap.png", *new}
    assert outcome.sidecar.name == "a_2.matte.json"
    assert (out / "a.trimap.png").read_bytes() == b"a neighbour's"
    finish(frame_of(photo, number=3), disc, replace(recipe, profile=Profile(outputs=more)))
    assert names_in(out) == {"a.trimap.png", *new}


def test_older_results_that_somebody_retouched_or_that_are_another_photos_stay(frame_of, recipe, disc, photo):
    out = recipe.folder.output
    finish(frame_of(photo), disc, recipe)
    finish(frame_of(photo, name="a.tif", number=2), disc, recipe)
    (out / "a.cutout.png").write_bytes(b"an hour's work")
    for base in ("a", "a_2"):
        (out / f"{base}.trimap.png").write_bytes(b"a neighbour's")
    more = (*Profile().outputs, Output(kind="trimap", suffix=".trimap.png"))
    finish(frame_of(photo, number=3), disc, replace(recipe, profile=Profile(outputs=more)))
    assert names_in(out) == {
        "a.cutout.png", "a.trimap.png",
        "a_2.cutout.png", "a_2.matte.png", "a_2.matte.json", "a_2.trimap.png",
        "a_3.cutout.png", "a_3.matte.png", "a_3.trimap.png", "a_3.matte.json",
    }  # fmt: skip
    assert json.loads((out / "a_2.matte.json").read_bytes())["source"]["path"] == "a.tif"


@pytest.mark.parametrize("length", [100, 150, 190, 200, 240])
def test_no_change_of_the_outputs_leaves_results_of_a_long_name_behind(frame_of, recipe, disc, photo, length):
    out = recipe.folder.output
    profiles = [
        Profile(outputs=(Output(kind="matte", **own),))
        for own in (
            {"suffix": ".matte.png"},
            {"suffix": ".the matte of this photo.png"},
            {"name": "{stem}_{width}x{height}_{date}.png"},
            {"suffix": ".png"},
        )
    ]
    for number, profile in enumerate(profiles):
        name = f"{'n' * length}.jpg"
        outcome = finish(
            frame_of(photo, name=name, number=number + 1), disc, replace(recipe, profile=profile)
        )
        assert names_in(out) == {outcome.sidecar.name, Path(outcome.files[0].path).name}, profile


def test_a_new_version_replaces_its_results_and_outdated_outputs_vanish(frame_of, recipe, disc, photo):
    finish(frame_of(photo), disc, recipe)
    leaner = replace(recipe, profile=Profile(outputs=(Output(kind="matte", suffix=".matte.png"),)))
    outcome = finish(frame_of(photo, number=2), disc, leaner)
    assert names_in(recipe.folder.output) == {"a.matte.png", "a.matte.json"}
    assert json.loads(outcome.sidecar.read_bytes())["supersedes"] == [".cutout.png"]


def test_skipping_writes_nothing_and_says_so(frame_of, recipe, disc, photo):
    finish(frame_of(photo, name="a.jpg"), disc, recipe)
    careful = replace(recipe, folder=recipe.folder.model_copy(update={"duplicates": "skip"}))
    outcome = finish(frame_of(photo, name="a.tif"), disc, careful)
    assert outcome.files == ()
    assert outcome.skipped == "skipped: a.matte.json is the result of another photo"
    assert len(names_in(recipe.folder.output)) == 3


def test_a_report_is_withdrawn_once_the_photo_succeeds(frame_of, recipe, disc, photo):
    frame, other = frame_of(photo, name="a.jpg"), frame_of(photo, name="a.tif")
    failure = Failure("InputNotReady", "cut off", "Copy it again.")
    mine = report(frame.job, failure, recipe)
    theirs = report(other.job, failure, recipe)
    assert mine != theirs and mine.parent == recipe.folder.quarantine
    assert report(frame.job, failure, recipe) == mine, "a second failure does not make a second report"
    finish(frame, disc, recipe)
    assert not mine.exists() and theirs.exists()


def test_the_same_photo_gives_the_same_bytes(frame_of, recipe, disc, photo):
    contents = []
    for _ in range(2):
        finish(frame_of(photo), disc, recipe)
        contents.append((recipe.folder.output / "a.cutout.png").read_bytes())
    assert contents[0] == contents[1]


def test_what_waits_for_the_disk_holds_no_pixels(frame_of, photo, disc, recipe):
    pixels = photo.copy()
    gone, spent = weakref.ref(pixels), {"infer": 0.25}
    rendered = render(frame_of(pixels, name="a.jpg"), Answer(disc, False), style_of(recipe), timings=spent)
    del pixels
    assert gone() is None
    assert (rendered.frame.height, rendered.frame.width) == photo.shape[:2]
    assert rendered.frame.proxy.size == 0
    outcome = deliver(rendered, recipe, timings=spent)
    same = finish(frame_of(photo, name="b.jpg"), disc, recipe)
    assert [one.sha256 for one in outcome.files] == [one.sha256 for one in same.files]
    assert list(outcome.timings) == ["infer", "refine", "encode", "publish"]
    assert "publish" not in spent
