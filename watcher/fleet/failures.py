"""What a node's error means to the watcher, and what a node refuses."""

from __future__ import annotations

from pathlib import Path

from watcher import errors
from watcher.domain import Job, printable
from watcher.errors import HostError, InputChanged, InputNotReady, WatcherError
from watcher.fleet.messages import Reply
from watcher.pipeline.finish import check_source

# Those that mean here what they meant there. Not ConfigError: a node's must not halt the watcher.
KINDS: dict[str, type[WatcherError]] = {
    name: getattr(errors, name)
    for name in (
        "InputNotReady",
        "InputChanged",
        "InputRejected",
        "EngineCrashed",
        "EngineTimeout",
        "EngineOutOfMemory",
        "HostError",
    )
}


class OtherShare(HostError):
    """A job on a share that is not ours, although it is called alike: given back, it would come again for ever."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the job lies on another share {name!r} than this node's",
            remedy="Give shares different names where watchers use one broker. After a share was "
            "set up anew: restart the watcher, then the nodes.",
        )


class RemoteBug(Exception):
    """A node ran into a bug."""


def failure_in(reply: Reply) -> BaseException:
    """The error that a reply tells of."""
    reason = f"node {reply.node}: {printable(reply.reason)}"
    kind = KINDS.get(reply.error or "")
    if kind is None:
        return RemoteBug(f"{reply.error}: {reason}")
    error = kind(reason, remedy=reply.remedy)
    error.stage = reply.stage
    return error


def seen_from_here(error: InputChanged, root: Path, job: Job) -> WatcherError:
    """Changed for the node, but also for us? Shares tell their news late, to some hosts."""
    try:
        check_source(root / job.source.relpath, job)
    except WatcherError as own:
        return own
    return InputNotReady(
        f"{error}, but not on this host",
        remedy="Look how long that node's mount remembers what is old (actimeo), and at the clocks.",
    )
