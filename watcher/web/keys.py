"""API keys: random, shown once, kept as hashes, revocable. One small file in the state folder."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from watcher.errors import ConfigError, HostError

KEYS = "web-keys.json"
SECRET = "web-secret"
PREFIX = "hm"

Scope = Literal["read", "upload", "operate", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Key:
    """`digest`: sha256 of the secret part. It has 256 random bits, so a slow hash would add nothing."""

    id: str
    name: str
    scopes: tuple[str, ...]
    digest: str
    created: float


class KeyRing:
    """Reads its file again when that has changed: a revoked key ends at once, everywhere."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / KEYS
        self._read: tuple[tuple[int, int, int], dict[str, Key]] = ((0, 0, 0), {})

    def all(self) -> list[Key]:
        return list(self._keys().values())

    def get(self, id_: str) -> Key | None:
        return self._keys().get(id_)

    def find(self, word: str) -> Key | None:
        """The key that `word` is, None if it is none of ours."""
        parts = word.split("_")
        if len(parts) != 3 or parts[0] != PREFIX:
            return None
        key = self._keys().get(parts[1])
        fits = key is not None and hmac.compare_digest(key.digest, digest(parts[2]))
        return key if fits else None

    def add(self, name: str, scopes: tuple[str, ...]) -> tuple[Key, str]:
        """A new key and the word to give away, which is nowhere kept."""
        id_, secret = secrets.token_hex(4), secrets.token_hex(32)
        key = Key(id_, name, scopes, digest(secret), time.time())
        with self._changing() as keys:
            keys[id_] = key
        return key, f"{PREFIX}_{id_}_{secret}"

    def revoke(self, word: str) -> Key | None:
        """By number or by name; None if there is none."""
        with self._changing() as keys:
            found = next((key for key in keys.values() if word in (key.id, key.name)), None)
            if found is not None:
                del keys[found.id]
        return found

    def _keys(self) -> dict[str, Key]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise HostError(f"cannot read {self._path}: {error.strerror}") from error
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._read[0]:
            self._read = (stamp, self._parsed())
        return self._read[1]

    def _parsed(self) -> dict[str, Key]:
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))
            keys = [Key(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]
        except OSError as error:
            raise HostError(f"cannot read {self._path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                [f"{self._path} is damaged: {error}"], remedy="Move it away and make new keys."
            ) from error
        return {key.id: key for key in keys}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys, to be changed; written as a whole when this ends. One writer at a time."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(
                self._path.with_name(f".{KEYS}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise HostError(f"cannot write {self._path}: {error.strerror}") from error
        try:
            owner = self._path.parent.stat()
            if os.geteuid() == 0:
                os.fchown(lock, owner.st_uid, owner.st_gid)
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = dict(self._keys())
            yield keys
            write_private(self._path, json.dumps([asdict(key) for key in keys.values()], indent=1).encode())
        finally:
            os.close(lock)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def signing_secret(state_dir: Path) -> bytes:
    """What session cookies are signed with; made at the first start, and survives the next."""
    path = state_dir / SECRET
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        found = b""
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    if len(found) != 32:
        found = secrets.token_bytes(32)
        write_private(path, found)
    return found


def write_private(path: Path, content: bytes) -> None:
    """Whole, durable, and for one user only: whom the folder belongs to, also if root writes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        place = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(place, "wb") as file:
            file.write(content)
            file.flush()
            owner = path.parent.stat()
            if os.geteuid() == 0:
                os.fchown(place, owner.st_uid, owner.st_gid)
            os.fsync(place)
        temporary.replace(path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error
