"""From a request to a job: an upload becomes a file in a hot folder, and is admitted like one.

When the answer is sent, the photo is on disk and in the journal, whether or not a daemon runs.
Names are ours: `web-` and random digits, or for an Idempotency-Key digits that follow from it,
so that the same request finds the same job again, whatever was restarted in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO
from weakref import WeakValueDictionary

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from watcher.bell import ring
from watcher.domain import Source, Stamp
from watcher.drop import check_known, place, place_as
from watcher.errors import HostError
from watcher.journal import Record
from watcher.web.access import Caller
from watcher.web.photo import Look, look_at
from watcher.web.refusal import Refused
from watcher.web.site import Site

# Held in memory up to here, in a temporary file beyond.
SPOOL = 1 << 20

_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class Arrival:
    """`fresh`: queued by this very request, not by an earlier one with the same Idempotency-Key."""

    record: Record
    look: Look
    fresh: bool


async def arrive(
    site: Site, content: IO[bytes], *, folder: str, caller: Caller, idempotency_key: str | None
) -> Arrival:
    """Keep `content` as a photo of `folder`. Raises Refused or HostError."""
    if idempotency_key is None:
        return await run_in_threadpool(_keep, site, content, folder, f"web-{secrets.token_hex(16)}", None)
    mark = hashlib.sha256(f"{caller.id}\0{idempotency_key}".encode()).hexdigest()[:32]
    lock = _locks.setdefault(f"{folder}/{mark}", asyncio.Lock())
    async with lock:
        return await run_in_threadpool(_keep, site, content, folder, f"web-{mark}", idempotency_key)


def _keep(site: Site, content: IO[bytes], folder: str, stem: str, key: str | None) -> Arrival:
    look = look_at(content, max_mp=min(site.settings.web.max_upload_mp, site.settings.limits.max_image_mp))
    name = f"{stem}.{look.ending}"
    if key is not None:
        name = f"{stem}-{_sha256(content)[:16]}.{look.ending}"
        if (earlier := site.desk.named(folder, stem)) is not None:
            if earlier.job.source.relpath != name:
                raise Refused(
                    422, "idempotency_conflict", "This Idempotency-Key came with another photo before"
                )
            return Arrival(earlier, look, fresh=False)
    if not site.accepts(folder, name):
        raise Refused(400, "invalid_file_type", f"The hot folder {folder!r} takes no {look.ending} files")
    return Arrival(_admit(site, content, folder, name, fixed=key is not None), look, fresh=True)


def _sha256(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := content.read(SPOOL):
        digest.update(piece)
    content.seek(0)
    return digest.hexdigest()


def _admit(site: Site, content: IO[bytes], folder: str, name: str, *, fixed: bool) -> Record:
    root = site.settings.folders[folder]
    site.check_watched(folder)
    check_known(folder, root.path, site.journal.folder_identity(folder))
    if root.create:
        root.path.mkdir(parents=True, exist_ok=True)
    # A file that is there already, and not in the journal: its admission was cut short.
    path = place_as(content, root.path, name) if fixed else place(content, root.path, name)
    path = path or root.path / name
    # Gone already: the daemon found it by itself, and did it.
    with suppress(FileNotFoundError):
        site.admit(Source(folder, path.name, Stamp.of(path.stat())))
    ring(site.settings.state_dir)
    record = site.journal.find(folder, path.name)
    if record is None:
        raise Refused(409, "gone", "The photo was taken away the moment it arrived")
    return record


# --- What a request carries ----------------------------------------------------------------


@asynccontextmanager
async def form_of(request: Request) -> AsyncIterator[dict[str, str | UploadFile]]:
    """The fields of a form, each once. Raises Refused."""
    most = int(request.app.state.site.settings.web.max_upload_mb * 1.4e6)
    try:
        form = await request.form(max_files=4, max_fields=100, max_part_size=most)
    except MultiPartException as error:
        raise Refused(400, "invalid_request", "The form cannot be read", detail=error.message) from error
    except UnicodeError as error:
        raise Refused(
            400, "invalid_request", "The form cannot be read", detail="Name no charset, or UTF-8."
        ) from error
    except OSError as error:
        raise _no_room(error) from error
    except Exception as error:
        # Starlette turns the parser's complaint into its own HTTPException inside an app.
        if getattr(error, "status_code", None) == 400:
            raise Refused(400, "invalid_request", "The form cannot be read") from error
        raise
    try:
        names = [name for name, _ in form.multi_items()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise Refused(
                400,
                "invalid_request",
                f"The form has more than one field called {twice!r}",
                detail="Send each photo in a request of its own; nothing was kept.",
            )
        yield dict(form.multi_items())
    finally:
        await form.close()


@asynccontextmanager
async def raw_body(request: Request) -> AsyncIterator[IO[bytes]]:
    """The body as a file, in memory while it is small."""
    with tempfile.SpooledTemporaryFile(SPOOL) as file:
        async for piece in request.stream():
            try:
                if file.tell() + len(piece) > SPOOL:
                    await run_in_threadpool(file.write, piece)
                else:
                    file.write(piece)
            except OSError as error:
                raise _no_room(error) from error
        file.seek(0)
        yield file


def _no_room(error: OSError) -> HostError:
    return HostError(
        f"an upload cannot be written to {tempfile.gettempdir()}: {error.strerror or error}",
        remedy="Make room there, or name another folder as TMPDIR of the service.",
    )
