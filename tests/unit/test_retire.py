"""A source is moved or deleted only if it is the very version that was done."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from watcher.config import Folder
from watcher.domain import Source, Stamp
from watcher.errors import HostError
from watcher.ground import Ground
from watcher.pipeline import retire as module
from watcher.pipeline.retire import leftover, restore, retire


@pytest.fixture
def source(tmp_path) -> Source:
    path = tmp_path / "hot" / "sub" / "a.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the photo")
    return Source("hot", "sub/a.jpg", Stamp.of(path.stat()))


def folder(tmp_path: Path, way: str) -> Folder:
    return Folder(path=tmp_path / "hot", output=tmp_path / "out", archive=tmp_path / "archive", source=way)


def all_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_leave_leaves(tmp_path, source):
    assert retire(source, folder(tmp_path, "leave"), job_id=1) is None
    assert all_files(tmp_path) == {"hot/sub/a.jpg": b"the photo"}


def test_delete_deletes_and_may_be_repeated(tmp_path, source):
    for _ in range(2):
        retire(source, folder(tmp_path, "delete"), job_id=1)
        assert all_files(tmp_path) == {}


def test_archive_mirrors_the_sub_folder_and_may_be_repeated(tmp_path, source):
    target = retire(source, folder(tmp_path, "archive"), job_id=1)
    assert target == tmp_path / "archive" / "sub" / "a.jpg"
    assert Stamp.of(target.stat()) == source.stamp
    assert retire(source, folder(tmp_path, "archive"), job_id=1) is None
    assert all_files(tmp_path) == {"archive/sub/a.jpg": b"the photo"}


def test_an_archived_photo_is_never_overwritten(tmp_path, source):
    for name in ("a.jpg", "a_2.jpg"):
        (tmp_path / "archive" / "sub").mkdir(parents=True, exist_ok=True)
        (tmp_path / "archive" / "sub" / name).write_bytes(b"older")
    target = retire(source, folder(tmp_path, "archive"), job_id=1)
    assert target.name == "a_3.jpg" and target.read_bytes() == b"the photo"
    assert (tmp_path / "archive" / "sub" / "a.jpg").read_bytes() == b"older"


@pytest.mark.parametrize("way", ["archive", "delete"])
def test_another_version_is_left_alone(tmp_path, source, way):
    (tmp_path / "hot" / source.relpath).write_bytes(b"another photo")
    retire(source, folder(tmp_path, way), job_id=1)
    assert all_files(tmp_path) == {"hot/sub/a.jpg": b"another photo"}


@pytest.mark.parametrize("way", ["archive", "delete"])
def test_a_version_that_arrives_at_the_last_moment_is_put_back(tmp_path, source, way, monkeypatch):
    path, real = tmp_path / "hot" / source.relpath, os.rename

    def late(old, new):
        if Path(old) == path:
            path.write_bytes(b"a newer photo")
        real(old, new)

    monkeypatch.setattr(module, "rename", late)
    assert retire(source, folder(tmp_path, way), job_id=1) is None
    assert all_files(tmp_path) == {"hot/sub/a.jpg": b"a newer photo"}


@pytest.fixture
def two_devices(monkeypatch, tmp_path):
    real = os.rename

    def rename(old, new):
        across = str(tmp_path / "hot") in str(old) and str(tmp_path / "archive") in str(new)
        if across:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(old, new)

    monkeypatch.setattr(module, "rename", rename)


@pytest.mark.usefixtures("two_devices")
def test_an_archive_on_another_device_gets_a_verified_copy(tmp_path, source):
    target = retire(source, folder(tmp_path, "archive"), job_id=1)
    assert all_files(tmp_path) == {"archive/sub/a.jpg": b"the photo"}
    assert Stamp.of(target.stat()) == source.stamp


@pytest.mark.usefixtures("two_devices")
def test_a_bad_copy_is_thrown_away_and_the_source_stays(tmp_path, source, monkeypatch):
    def torn(old, new, **_):
        Path(new).write_bytes(Path(old).read_bytes()[:-1])

    monkeypatch.setattr(module.shutil, "copyfile", torn)
    with pytest.raises(HostError, match="differs"):
        retire(source, folder(tmp_path, "archive"), job_id=1)
    assert all_files(tmp_path) == {"hot/sub/a.jpg": b"the photo"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_cannot_be_moved_stays_and_is_the_machines_fault(tmp_path, source, number, monkeypatch):
    def failing(old, new):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "rename", failing)
    with pytest.raises(HostError, match="cannot archive"):
        retire(source, folder(tmp_path, "archive"), job_id=1)
    assert all_files(tmp_path) == {"hot/sub/a.jpg": b"the photo"}


@pytest.mark.parametrize("way", ["archive", "delete"])
def test_a_photo_that_can_go_neither_on_nor_back_comes_back_with_the_next_one(
    tmp_path, source, way, monkeypatch
):
    path, real, moved = tmp_path / "hot" / source.relpath, os.rename, []

    def once(old, new):
        if moved:
            raise OSError(errno.ESTALE, "Stale file handle")
        moved.append(new)
        real(old, new)

    def never(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    for step, instead in (("rename", once), ("link", never), ("unlink", never)):
        monkeypatch.setattr(module, step, instead)
    with pytest.raises(HostError, match="Stale"):
        retire(source, folder(tmp_path, way), job_id=1)
    assert not path.exists() and moved[0].read_bytes() == b"the photo"
    monkeypatch.undo()
    other = path.with_name("b.jpg")
    other.write_bytes(b"another photo")
    retire(Source("hot", "sub/b.jpg", Stamp.of(other.stat())), folder(tmp_path, way), job_id=2)
    assert path.read_bytes() == b"the photo"
    assert not moved[0].exists()
    retire(source, folder(tmp_path, way), job_id=1)
    left = {"archive/sub/a.jpg": b"the photo", "archive/sub/b.jpg": b"another photo"}
    assert all_files(tmp_path) == (left if way == "archive" else {})


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_where_it_cannot_be_told_whether_a_name_is_taken_nothing_is_put_there(
    tmp_path, source, number, monkeypatch
):
    older = tmp_path / "archive" / "sub" / "a.jpg"
    older.parent.mkdir(parents=True)
    older.write_bytes(b"older")
    real = Path.lstat

    def unsure(path):
        if path == older:
            raise OSError(number, os.strerror(number))
        return real(path)

    def no_links(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(module, "link", no_links)
    monkeypatch.setattr(Path, "lstat", unsure)
    with pytest.raises(HostError):
        retire(source, folder(tmp_path, "archive"), job_id=1)
    monkeypatch.undo()
    assert all_files(tmp_path) == {"hot/sub/a.jpg": b"the photo", "archive/sub/a.jpg": b"older"}


def test_a_deletion_that_death_interrupted_is_finished(tmp_path, source):
    path = tmp_path / "hot" / source.relpath
    path.rename(leftover(path, 1))
    retire(source, folder(tmp_path, "delete"), job_id=1)
    assert all_files(tmp_path) == {}


def test_a_name_that_leaves_no_room_for_more_is_retired_all_the_same(tmp_path):
    for way in ("delete", "archive", "archive"):
        name = "é" * 125 + "a.jpg"
        path = tmp_path / "hot" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(9))
        retire(Source("hot", name, Stamp.of(path.stat())), folder(tmp_path, way), job_id=123456)
    assert sorted(all_files(tmp_path)) == [f"archive/{'é' * 124}_2.jpg", f"archive/{name}"]


# --- After a death -------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["link", "rename", "unlink"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("way", ["archive", "delete"])
def test_whatever_step_death_interrupts_the_photo_ends_where_it_was_going(
    tmp_path, source, way, step, after, monkeypatch
):
    with monkeypatch.context() as patch:
        die_at(patch, step, after=after)
        with suppress(Dead):
            retire(source, folder(tmp_path, way), job_id=1)
    restore("hot", folder(tmp_path, way), done=lambda _: source)
    retire(source, folder(tmp_path, way), job_id=1)
    assert all_files(tmp_path) == ({"archive/sub/a.jpg": b"the photo"} if way == "archive" else {})


class Sinking(Ground):
    """The share goes after so many looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def check(self, path):
        if not self.looks:
            raise HostError(f"{path} is not mounted")
        self.looks -= 1


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("looks", [0, 1])
def test_a_photo_whose_copy_may_lie_below_a_mount_point_stays(tmp_path, source, looks):
    with pytest.raises(HostError, match="not mounted"):
        retire(source, folder(tmp_path, "archive"), job_id=1, ground=Sinking(looks))
    assert all_files(tmp_path)["hot/sub/a.jpg"] == b"the photo"
    retire(source, folder(tmp_path, "archive"), job_id=1, ground=Sinking(2))
    assert all_files(tmp_path) == {"archive/sub/a.jpg": b"the photo"}


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("step", ["link", "rename", "unlink"])
@pytest.mark.parametrize("after", [False, True])
def test_a_photo_that_was_copied_to_another_device_is_archived_once(
    tmp_path, source, step, after, monkeypatch
):
    with monkeypatch.context() as patch:
        die_at(patch, step, after=after)
        # A process that dies runs no `finally`.
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with suppress(Dead):
            retire(source, folder(tmp_path, "archive"), job_id=1)
    restore("hot", folder(tmp_path, "archive"), done=lambda _: source)
    retire(source, folder(tmp_path, "archive"), job_id=1)
    assert all_files(tmp_path) == {"archive/sub/a.jpg": b"the photo"}


@pytest.mark.parametrize("way", ["archive", "delete"])
def test_a_photo_aside_that_was_never_done_goes_back_to_work(tmp_path, source, way):
    path = tmp_path / "hot" / source.relpath
    path.rename(leftover(path, 1))
    assert restore("hot", folder(tmp_path, way), done=lambda _: None) == 1
    assert all_files(tmp_path) == {"hot/sub/a.jpg": b"the photo"}


def test_a_newer_version_in_the_archive_goes_back_to_work(tmp_path, source):
    aside = leftover(tmp_path / "archive" / "sub" / "a.jpg", 1)
    aside.parent.mkdir(parents=True)
    aside.write_bytes(b"a newer photo")
    (tmp_path / "hot" / source.relpath).unlink()
    restore("hot", folder(tmp_path, "archive"), done=lambda _: source)
    assert all_files(tmp_path) == {"hot/sub/a.jpg": b"a newer photo"}


def test_what_goes_back_overwrites_nothing(tmp_path, source):
    path = tmp_path / "hot" / source.relpath
    path.rename(leftover(path, 1))
    path.write_bytes(b"yet another photo")
    restore("hot", folder(tmp_path, "delete"), done=lambda _: None)
    assert all_files(tmp_path) == {"hot/sub/a.jpg": b"yet another photo", "hot/sub/a_2.jpg": b"the photo"}


def test_photos_of_another_hot_folder_in_a_shared_archive_are_left_to_it(tmp_path, source):
    aside = leftover(tmp_path / "archive" / "a.jpg", 1)
    aside.parent.mkdir()
    aside.write_bytes(b"of the other folder")
    other = Source("other", "a.jpg", Stamp.of(aside.stat()))
    assert restore("hot", folder(tmp_path, "archive"), done=lambda _: other) == 0
    assert aside.exists()


@pytest.mark.parametrize("name", ["hot", "archive"])
def test_a_sub_folder_that_we_may_not_list_keeps_no_photo_from_coming_back(
    tmp_path, source, name, permissions
):
    path = tmp_path / "hot" / source.relpath
    path.rename(leftover(path, 1))
    closed = tmp_path / name / "private"
    closed.mkdir(parents=True)
    closed.chmod(0)
    try:
        assert restore("hot", folder(tmp_path, "archive"), done=lambda _: None) == 1
        assert path.read_bytes() == b"the photo"
        (tmp_path / name).chmod(0)
        with pytest.raises(HostError, match=f"cannot restore photos in .*{name}: "):
            restore("hot", folder(tmp_path, "archive"), done=lambda _: None)
    finally:
        (tmp_path / name).chmod(0o755)
        closed.chmod(0o755)


def test_what_a_snapshot_of_the_share_has_caught_stays_there(tmp_path, source):
    caught = leftover(tmp_path / "hot" / "#snapshot" / "GMT-2026.11.27" / "a.jpg", 1)
    caught.parent.mkdir(parents=True)
    caught.write_bytes(b"the photo")
    assert restore("hot", folder(tmp_path, "delete"), done=lambda _: source) == 0
    assert caught.exists() and (tmp_path / "hot" / source.relpath).exists()


def test_a_folder_that_is_not_there_has_nothing_to_restore(tmp_path):
    assert restore("hot", folder(tmp_path, "archive"), done=lambda _: None) == 0


class Dead(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def die_at(patch: pytest.MonkeyPatch, step: str, *, after: bool) -> None:
    real = getattr(module, step)

    def mortal(*args, **named):
        if after:
            real(*args, **named)
        raise Dead

    patch.setattr(module, step, mortal)
