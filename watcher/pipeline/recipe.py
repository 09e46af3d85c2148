"""What finishing a job needs to know of its hot folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from watcher.config import Folder, Profile
from watcher.domain import EngineAbout
from watcher.pipeline.naming import Names


@dataclass(frozen=True, slots=True)
class Recipe:
    """`about` is asked at the end: only then is it certain which device did the work.

    `names` is one object for the whole daemon.
    """

    folder_name: str
    folder: Folder
    profile_name: str
    profile: Profile
    about: Callable[[], EngineAbout]
    names: Names
