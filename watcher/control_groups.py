"""The control groups around this process, and what their files say: cgroups(7), and the kernel's documents of version 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def around(root: Path, controllers: str, top: str) -> Iterator[Path]:
    """Our group and all above it, of the hierarchy at `top` below `root`. `controllers`: as /proc/self/cgroup names them."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    # The number of a hierarchy, its controllers, our group in it.
    ours = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines if line.count(":") > 1}
    highest = root / top
    folder = highest / ours.get(controllers, "/").strip("/")
    for group in [folder, *folder.parents]:
        yield group
        if group == highest:
            return


def fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number; empty where there is no such file."""
    with suppress(OSError, ValueError, IndexError):
        lines = path.read_text(encoding="utf-8").splitlines()
        return {words[0]: int(words[1]) for line in lines if len(words := line.split()) > 1}
    return {}


def numbers(path: Path) -> list[int | None]:
    """The numbers in a file, None for a word such as `max`; empty where there is none."""
    try:
        words = path.read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [int(word) if word.lstrip("-").isdigit() else None for word in words]
