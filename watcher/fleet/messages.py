"""What watcher and nodes say to each other: JSON by a versioned schema, never pixels. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError

from watcher import __version__
from watcher.config import Name, Profile
from watcher.domain import Stamp
from watcher.engine.card import Card
from watcher.errors import ConfigError, WatcherError
from watcher.strict import Strict

# Grows whenever a watcher and a node of different versions could misunderstand each other.
PROTOCOL = 1
# A job without its profile is a few hundred bytes; what is longer was not written by us.
MOST_BYTES = 256 * 1024

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
Number = Annotated[int, Field(ge=0, le=2**63 - 1)]
Kind = TypeVar("Kind", bound=Strict)
Url = Annotated[str, Field(pattern=r"^share://[A-Za-z0-9][A-Za-z0-9_.-]{0,63}/", max_length=16_384)]


class Unreadable(WatcherError):
    """A message that is none of ours, or not whole."""

    remedy = "Look who else writes to these queues of the broker."


class JobMessage(Strict):
    """One claim of one job. `source` is the photo, `stage` the folder that its attempts get folders in.

    The stamp is what the watcher saw, `card` what the model must be, `share` what proves that both
    sides look at the same storage. The fence tells this claim of the job from earlier ones.
    """

    protocol: Literal[1] = 1
    hotmatte: str = __version__
    watcher: Hex
    reply_to: str = Field(pattern=r"^[a-z0-9.]{1,80}$")
    share: Hex
    job: Number
    fence: Number
    attempts: Number
    folder: Name
    source: Url
    stage: Url
    size: Number
    mtime_ns: int
    profile_name: Name
    profile: Profile
    card: Hex

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.size, self.mtime_ns)

    def same_work(self, other: JobMessage) -> bool:
        """Whether the other's result is this one's too, whichever claim it was made for."""
        keep = {"watcher", "job", "source", "size", "mtime_ns", "profile", "card", "share", "hotmatte"}
        return self.model_dump(include=keep) == other.model_dump(include=keep)


class Reply(Strict):
    """How an attempt ended: a whole set of results in `staged`, or an error."""

    protocol: Literal[1] = 1
    node: Name
    watcher: Hex
    job: Number
    fence: Number
    staged: Url | None = None
    error: str | None = None
    reason: str = ""
    remedy: str = ""
    stage: str | None = None


def pack(message: JobMessage | Reply) -> str:
    return message.model_dump_json()


def job_in(text: object) -> JobMessage:
    """Raises ConfigError for another version's, Unreadable for anything else that is wrong."""
    return _read(text, JobMessage)


def reply_in(text: object) -> Reply:
    """Raises as job_in does."""
    return _read(text, Reply)


def _read(text: object, kind: type[Kind]) -> Kind:
    if not isinstance(text, str) or len(text) > MOST_BYTES:
        raise Unreadable("not a message, or too long a one")
    try:
        parsed = json.loads(text)
        said = parsed["protocol"], str(parsed.get("hotmatte", __version__))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise Unreadable("not JSON, or not ours") from error
    check_versions(*said, who="the other side")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise Unreadable(f"{where}: {error.errors()[0]['msg']}") from error


# --- Versions ------------------------------------------------------------------------------


def generation(version: str) -> str:
    """`1.4.2` -> `1.4`: releases that differ in no more give the same pixels."""
    return ".".join(version.split(".")[:2])


def check_versions(protocol: object, version: str, *, who: str) -> None:
    """Raises ConfigError where a watcher and a node must not work together."""
    if protocol == PROTOCOL and generation(version) == generation(__version__):
        return
    theirs = f"hotmatte {version} (protocol {protocol})"
    ours = f"{__version__} (protocol {PROTOCOL})"
    raise ConfigError(
        [f"{who} runs {theirs}, this host {ours}: results would depend on which host made them"],
        remedy="Install the same version on the watcher's host and on every node, the watcher first.",
    )


def card_digest(card: Card) -> str:
    """Of what decides about pixels: not of interpreters, batches and timeouts, which are each host's own."""
    facts = card.model_dump(mode="json", include={"name", "engine", "input", "output", "options"})
    facts["weights"] = card.weights.sha256 if card.weights else None
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def jobs_queue(card: str) -> str:
    """Where jobs for the model of this digest wait. Only nodes that can do them listen there."""
    return f"hotmatte.jobs.{PROTOCOL}.{generation(__version__)}.{card[:16]}"


def replies_queue(watcher: str) -> str:
    return f"hotmatte.replies.{PROTOCOL}.{watcher}"
