"""A source is moved or deleted only if it is the very version that was done."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from watcher.config import Folder
from watcher.domain import Source, Stamp
from watcher.errors import HostError
from watcher.pipeline import retire as module
from watcher.pipeline.retire import retire


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

    monkeypatch.setattr(module.shutil, "copy2", torn)
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


def test_a_deletion_that_death_interrupted_is_finished(tmp_path, source):
    path = tmp_path / "hot" / source.relpath
    path.rename(module.temporary_of(path, 1))
    retire(source, folder(tmp_path, "delete"), job_id=1)
    assert all_files(tmp_path) == {}
