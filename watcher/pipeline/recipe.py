"""What finishing a job needs to know of its hot folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from watcher.config import Folder, Profile
from watcher.domain import EngineAbout
from watcher.ground import Ground
from watcher.pipeline.naming import Names


@dataclass(frozen=True, slots=True)
class Recipe:
    """`about` is asked at the end: only then is it certain which device did the work.

    `names` and `ground` are one object each for the whole daemon.
    """

    folder_name: str
    folder: Folder
    profile_name: str
    profile: Profile
    about: Callable[[], EngineAbout]
    names: Names
    ground: Ground = field(default_factory=Ground)
