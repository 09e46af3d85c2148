"""The power fails at any moment of a publication: what may be on the disk then is a whole set, or none.

A disk keeps of a file what was synced, and of a folder what was synced, plus any of the
changes since: a name may be there without its content, a second rename without the first. All
such disks are built, for every moment, and looked at before and after the next start.
"""

from __future__ import annotations

import itertools
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_publish_crash import assert_no_reader_is_misled, assert_whole, content_of, outputs_of, sidecar_of

from watcher.pipeline import publish

Change = tuple[str, ...]


@dataclass
class Disk:
    """What is certainly on the disk, and what may be. Names lead to inodes, inodes to synced content."""

    names: dict[str, int]
    contents: dict[int, bytes]
    pending: list[Change] = field(default_factory=list)

    def images(self) -> list[dict[str, bytes]]:
        """Every folder that may be found after a power cut now."""
        found = []
        for chosen in itertools.product((False, True), repeat=len(self.pending)):
            names = dict(self.names)
            for change, done in zip(self.pending, chosen, strict=True):
                if done:
                    _apply(names, change)
            image = {name: self.contents.get(inode, b"") for name, inode in names.items()}
            if image not in found:
                found.append(image)
        return found


def _apply(names: dict[str, int], change: Change) -> None:
    match change:
        case "create", name, inode:
            names[name] = int(inode)
        case "rename", old, new if old in names:
            names[new] = names.pop(old)
        case "unlink", name:
            names.pop(name, None)


class Recorder:
    """Stands in for the durable steps of a real publication, and keeps a disk for each moment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = {path.name: path.stat().st_ino for path in folder.iterdir()}
        contents = {path.stat().st_ino: path.read_bytes() for path in folder.iterdir()}
        self._disk = Disk(names, contents)
        self._known = set(names)
        self.images: list[dict[str, bytes]] = []

    def fsync(self, number: int) -> None:
        os.fsync(number)
        status = os.fstat(number)
        if stat.S_ISDIR(status.st_mode):
            for change in self._disk.pending:
                _apply(self._disk.names, change)
            self._disk.pending.clear()
        else:
            self._disk.contents[status.st_ino] = os.pread(number, status.st_size, 0)
        self._look()

    def rename(self, old: str | Path, new: str | Path) -> None:
        self._look()
        os.replace(old, new)
        self._changed("rename", Path(old).name, Path(new).name)

    def unlink(self, path: str | Path) -> None:
        self._look()
        os.unlink(path)
        self._changed("unlink", Path(path).name)

    def _changed(self, *change: str) -> None:
        self._disk.pending.append(change)
        self._look()

    def _look(self) -> None:
        """A file that was made since the last time may be on the disk by now, empty."""
        for path in self._folder.iterdir():
            if path.name not in self._known and path.name.endswith(".tmp"):
                self._known.add(path.name)
                self._disk.pending.append(("create", path.name, str(path.stat().st_ino)))
        self.images += [image for image in self._disk.images() if image not in self.images]


def publish_version(folder: Path, version: str) -> None:
    suffixes = [suffix for suffix, _ in outputs_of(version)]
    older = publish.settled(folder, "a", suffixes)
    gone = [] if older is None else [item.suffix for item in older.outputs if item.suffix not in suffixes]
    told = sidecar_of(version, gone)
    publish.publish_all(folder, "a", outputs_of(version), sidecar=told, job_id=7, supersedes=gone)


@pytest.mark.parametrize("before", ["nothing there", "an older version there"])
def test_whatever_a_power_cut_leaves_becomes_a_whole_set_or_none(tmp_path, monkeypatch, before):
    folder = tmp_path / "out"
    folder.mkdir()
    if before == "an older version there":
        publish_version(folder, "old")
    recorder = Recorder(folder)
    for step in ("fsync", "rename", "unlink"):
        monkeypatch.setattr(publish, step, getattr(recorder, step))
    publish_version(folder, "new")
    monkeypatch.undo()
    assert len(recorder.images) > 10
    ends = set()
    for number, image in enumerate(recorder.images):
        disk = tmp_path / f"disk {number}"
        disk.mkdir()
        for name, content in image.items():
            (disk / name).write_bytes(content)
        assert_no_reader_is_misled(disk)
        publish.sweep(disk)
        assert_no_reader_is_misled(disk)
        left = content_of(disk)
        assert not [name for name in left if name.startswith(".")], left.keys()
        if not left:
            assert before == "nothing there"
            ends.add("none")
        else:
            version = "new" if '"new"' in left["a.matte.json"].decode() else "old"
            assert_whole(disk, version)
            ends.add(version)
    assert ends == ({"none", "new"} if before == "nothing there" else {"old", "new"})
