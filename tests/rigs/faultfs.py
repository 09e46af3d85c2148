"""A file system that fails on demand: faultfs.py SOURCE MOUNT CONTROL [option=value...]

Passes everything through to SOURCE (FUSE). What fails is told by the JSON file CONTROL, which
is read anew whenever it changes:

    {"errno": {"read": 5, "readdir": 116}, "hang": ["getattr"], "delay": {"write": 0.1}, "match": "*/x.jpg"}

names operations of FUSE; `"fold": true` does not tell capitals, as most servers of shares do not; `match` is a shell pattern for the paths that are meant, all if it is
missing. What hangs does so until CONTROL says otherwise, as on a share whose server is gone.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
import sys
import time
from typing import Any

import mfusepy

_STATUS = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino", "st_blocks")
_SPACE = (
    "f_bavail",
    "f_bfree",
    "f_blocks",
    "f_bsize",
    "f_favail",
    "f_files",
    "f_ffree",
    "f_frsize",
    "f_namemax",
)


class Control:
    """What the control file says now; nothing while there is none."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen = 0
        self._said: dict[str, Any] = {}

    def said(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            changed = os.stat(self._path).st_mtime_ns
            if changed != self._seen:
                with open(self._path, encoding="utf-8") as file:
                    self._said = json.load(file)
                self._seen = changed
        return self._said

    def applies(self, path: str) -> dict[str, Any]:
        said = self.said()
        return said if fnmatch.fnmatch(path, said.get("match", "*")) else {}


class FaultFs(mfusepy.Operations):
    use_ns = True

    def __init__(self, source: str, control: str) -> None:
        self._source = source
        self._control = Control(control)

    def _at(self, operation: str, path: str) -> str:
        """Where `path` really is; fails, hangs or dawdles first, if it shall."""
        while operation in self._control.applies(path).get("hang", ()):
            time.sleep(0.05)
        said = self._control.applies(path)
        time.sleep(said.get("delay", {}).get(operation, 0))
        if number := said.get("errno", {}).get(operation):
            raise mfusepy.FuseOSError(number)
        return self._source + (self._as_spelled(path) if self._control.said().get("fold") else path)

    def _as_spelled(self, path: str) -> str:
        """Each name as it is on the disk, if it is there in any spelling."""
        spelled = ""
        for name in path.split("/")[1:]:
            if not os.path.lexists(f"{self._source}{spelled}/{name}"):
                with contextlib.suppress(OSError):
                    names = os.listdir(self._source + spelled)
                    name = next((one for one in names if one.casefold() == name.casefold()), name)
            spelled += f"/{name}"
        return spelled

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._at("getattr", path))
        times = {
            "st_atime": status.st_atime_ns,
            "st_mtime": status.st_mtime_ns,
            "st_ctime": status.st_ctime_ns,
        }
        return {key: getattr(status, key) for key in _STATUS} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at("readdir", path))]

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at("open", path), flags)

    def create(self, path: str, mode: int, fi: object = None) -> int:
        return os.open(self._at("create", path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._at("read", path)
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._at("write", path)
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._at("truncate", path), length)

    def flush(self, path: str, fh: int) -> None:
        self._at("flush", path)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        self._at("fsync", path)
        os.fsync(fh)

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        place, (folder, _, name) = self._at("rename", old), new.rpartition("/")
        there = self._at("rename", new)
        # Only to be spelled otherwise, or in the place of another.
        os.rename(place, f"{self._at('rename', folder)}/{name}" if there == place else there)

    def unlink(self, path: str) -> None:
        os.unlink(self._at("unlink", path))

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at("mkdir", path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at("rmdir", path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at("chmod", path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self._at("chown", path), uid, gid)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self._at("utimens", path), ns=times)

    def link(self, target: str, source: str) -> None:
        self._at("link", target)
        raise mfusepy.FuseOSError(errno.EPERM)  # like CIFS and exFAT

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._at("statfs", path))
        return {key: getattr(status, key) for key in _SPACE}


def main(source: str, mount: str, control: str, *options: str) -> None:
    more: dict[str, Any] = dict(option.split("=", 1) for option in options)
    mfusepy.FUSE(
        FaultFs(source, control),
        mount,
        foreground=True,
        nothreads=False,
        attr_timeout=0,
        entry_timeout=0,
        fsname=source,
        **more,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
