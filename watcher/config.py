"""YAML to frozen settings. Reports every problem at once, each with its line.

Relative paths are relative to the folder of the configuration file; where there is no
file (the embedded default), to the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from watcher import lined_yaml, places, templates
from watcher.cache_settings import Cache
from watcher.endings import IMAGES
from watcher.errors import ConfigError, RetryPolicy
from watcher.fleet_settings import FILES, Queue, Where, check_fleet, without_shares
from watcher.notify_settings import Notify
from watcher.outputs import Output as Output  # noqa: PLC0414  (settings are imported from here)
from watcher.places import Problem
from watcher.strict import Place as Place  # noqa: PLC0414  (so is what they are made of)
from watcher.strict import Strict as Strict  # noqa: PLC0414
from watcher.strict import upon
from watcher.web_settings import Web
from watcher.wording import deeper, sentence

Seconds = Annotated[float, Field(ge=0, le=86_400 * 365, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=86_400 * 365, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]

# Where a system-wide installation keeps its configuration.
SYSTEM_CONFIG = Path("/etc/hotmatte/hotmatte.yaml")
LOCAL_CONFIG = Path("hotmatte.yaml")


DEFAULT_OUTPUTS = (
    Output(kind="cutout", suffix=".cutout.png"),
    Output(kind="matte", suffix=".matte.png"),
)


class Profile(Strict):
    """A recipe: engine, refinement, outputs. A hot folder names one."""

    model: Name = Field("modnet", description="the model card to use; see `hotmatte models list`")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$",
        description="auto may fall back to the CPU and says so; cuda fails without a GPU",
    )
    looks: Literal["one", "doubt", "all"] = Field(
        "doubt", description="is the model asked at other sizes too: never, where it is unsure, or always"
    )
    refine: Literal["closed_form", "guided", "bilinear"] = Field(
        "closed_form", description="how the alpha gets to full size: redrawn, edge-aware, or interpolated"
    )
    refine_side: Annotated[int, Field(ge=256, le=2048)] = Field(
        512, description="short side of the grid that `refine: closed_form` works on, in pixels"
    )
    edges: tuple[Literal["close", "reconstruct", "islands"], ...] = Field(
        ("islands",),
        description="clean-up of the engine's alpha before that, in this order; see docs/edges.md",
    )
    decontaminate: bool = Field(True, description="remove the background's colour from soft edges")
    outputs: tuple[Output, ...] = Field(
        DEFAULT_OUTPUTS, min_length=1, description="the files to write for each photo"
    )

    @field_validator("outputs")
    @classmethod
    def _suffixes_differ(cls, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        suffixes = [(output.name or templates.STEM + output.suffix).casefold() for output in outputs]
        if len(set(suffixes)) < len(suffixes):
            raise ValueError("two outputs have the same suffix and would overwrite each other")
        if any(suffix.endswith((".matte.json", ".error.json")) for suffix in suffixes):
            raise ValueError("a suffix may not end like a sidecar (.matte.json, .error.json)")
        return outputs


# There without being written down; a configuration may say what is different in one.
BUILT_IN = {
    "portrait": Profile(),
    "best": Profile(looks="all", refine_side=1024),
    "fast": Profile(looks="one"),
}


class Folder(Strict):
    """A hot folder: files dropped there are work."""

    path: Place = Field(description="the folder to watch")
    output: Place = Field(description="where mattes and sidecars go")
    profile: Name = Field("portrait", description="which recipe")
    create: bool = Field(False, description="make `path` at start; not for a share that may be absent")
    recursive: bool = Field(True, description="watch sub-folders too")
    tree: Literal["mirror", "flatten"] = Field(
        "mirror", description="repeat the sub-folders in the output, or put all files side by side"
    )
    quiet_s: Seconds = Field(2.0, description="a file must not change for this long before it is taken")
    incomplete_s: Positive = Field(
        900.0,
        description="a file that does not change but whose end is missing is reported as truncated after this long",
    )
    include: tuple[str, ...] = Field(
        IMAGES, min_length=1, description="file name patterns to take, case-insensitive"
    )
    ignore: tuple[str, ...] = Field(
        (), description="file and folder name patterns never to take, added to the built-in ones"
    )
    default_ignores: bool = Field(
        True, description="also ignore temporary and system files of common programs and servers"
    )
    observer: Literal["auto", "native", "polling"] = Field(
        "auto",
        description="native needs a local file system; polling works anywhere; auto looks at the mount",
    )
    poll_interval_s: Positive = Field(5.0, description="how often a polling observer looks")
    scan_interval_s: Positive = Field(300.0, description="how often the whole folder is listed to make sure")
    pairs: Literal["both", "jpeg", "raw"] = Field("both", description="which of a RAW and its JPEG is work")
    pair_wait_s: Positive = Field(30.0, description="how long to wait for the other half of such a pair")
    source: Literal["leave", "archive", "delete"] = Field("leave", description="what becomes of a done photo")
    archive: Place | None = Field(None, description="where `source: archive` moves photos")
    quarantine: Place | None = Field(
        None,
        description="where the reports of failures go; the output folder if unset. Photos stay where they are",
    )
    duplicates: Literal["number", "replace", "skip", "quarantine"] = Field(
        "number",
        description="when another photo's result already has the name: add a number, overwrite, do nothing, or fail",
    )

    contact_sheet: bool = Field(False, description="keep a contact sheet of each day in the output folder")

    where: Where = Field("here", description="who computes: this machine, or the nodes")
    priority: Annotated[int, Field(ge=0, le=9)] = Field(
        0, description="photos of a folder with a higher number go first"
    )

    @model_validator(mode="after")
    def _archive_is_named(self) -> Folder:
        if self.source == "archive" and self.archive is None:
            raise ValueError("source: archive needs an `archive` folder")
        return self


class Limits(Strict):
    """What bounds memory and time."""

    threads: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="threads that decode and finish images; 0: one for each core"
    )
    max_in_flight: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0,
        description="photos between decoding and publishing at one time; 0: enough for every core and worker",
    )
    max_in_flight_mp: Seconds = Field(
        0.0,
        description="megapixels between decoding and publishing at one time; 0: 30 for each thread, as memory allows",
    )
    max_image_mp: Positive = Field(200.0, description="larger photos are refused, before decoding")
    max_file_mb: Positive = Field(2048.0, description="larger files are refused, before reading")
    decode_timeout_s: Positive = Field(
        120.0, description="a photo that takes longer to decode is given up and its reader killed"
    )
    rendering: Literal["auto", "threads", "processes"] = Field(
        "auto",
        description="who refines and encodes: threads of the daemon, or processes; auto: these where a GPU computes"
        " and there are 8 cores or more",
    )
    drain_timeout_s: Seconds = Field(30.0, description="time to finish running photos when asked to stop")


class Retry(Strict):
    """How often a failed photo is tried again."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(4, description="tries in all before quarantine")
    base_delay_s: Seconds = Field(2.0, description="wait after the first failure; doubles each time")
    max_delay_s: Seconds = Field(300.0, description="longest wait between two tries")

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(self.max_attempts, self.base_delay_s, self.max_delay_s)


class Models(Strict):
    """Where model cards and weights are."""

    cards: Place | None = Field(None, description="a folder with more model cards (*.yaml)")
    cache: Place | None = Field(None, description="where weights are kept; ~/.cache/hotmatte if unset")
    offline: bool = Field(False, description="never fetch weights; use what is there")


class Log(Strict):
    """What is written to stderr or the journal of systemd."""

    format: Literal["auto", "text", "json", "journal"] = Field(
        "auto", description="auto: the systemd journal under systemd, text elsewhere"
    )
    level: Literal["debug", "info", "warning", "error"] = Field("info")


class Settings(Strict):
    """The whole configuration."""

    state_dir: Place = Field(
        Path(".hotmatte"), description="journal, status and lock; must be on a local disk"
    )
    folders: dict[Name, Folder] = Field(min_length=1, description="the hot folders, by name")
    profiles: dict[Name, Profile] = Field(
        default_factory=dict, validate_default=True, description="the recipes, besides the built-in ones"
    )
    limits: Limits = Field(default_factory=Limits)
    retry: Retry = Field(default_factory=Retry)
    models: Models = Field(default_factory=Models)
    cache: Cache = Field(default_factory=Cache, description="what need not be computed again")
    log: Log = Field(default_factory=Log)
    notify: Notify = Field(default_factory=Notify, description="whom to tell what happened")
    web: Web = Field(default_factory=Web, description="the page and the API")
    shares: dict[Name, Place] = Field(
        default_factory=dict, description="where this host mounts the shares that others know by name"
    )
    queue: Queue = Field(default_factory=Queue, description="the broker between this machine and the nodes")
    history_days: Positive = Field(
        90.0, description="how long finished photos that are gone stay in the journal"
    )

    @field_validator("profiles", mode="before")
    @classmethod
    def _with_built_in(cls, profiles: Any) -> Any:
        return upon(BUILT_IN, profiles)

    def profile_of(self, folder: Folder) -> Profile:
        return self.profiles[folder.profile]


EMBEDDED_DEFAULT: Mapping[str, Any] = {
    "folders": {"hot": {"path": "hot", "output": "mattes", "create": True}},
}


def find() -> Path | None:
    """The configuration file in force when none is named; None means the embedded default."""
    named = os.environ.get("HOTMATTE_CONFIG")
    if named:
        return Path(named)
    return next((path for path in (LOCAL_CONFIG, SYSTEM_CONFIG) if path.is_file()), None)


def load(path: Path | None) -> Settings:
    """Settings from `path`, or the embedded default. Raises ConfigError with every problem."""
    if path is None:
        return _embedded(Path.cwd())
    document, base = lined_yaml.read(path), path.absolute().parent
    raw, problems = without_shares(document.raw)
    settings, more = _validate(raw)
    problems += [*more, *_check(_parts(raw, settings), base), *check_fleet(settings, base)]
    told = [*document.problems, *((document.line(where), where, words) for where, words in problems)]
    if told or settings is None:
        raise ConfigError(
            [
                f"{path}:{line}: {'.'.join(where) or 'configuration'}: {words}"
                for line, where, words in sorted(dict.fromkeys(told), key=itemgetter(0))
            ]
        )
    return _absolute(settings, base)


def _embedded(base: Path) -> Settings:
    settings = Settings.model_validate(EMBEDDED_DEFAULT)
    problems = list(_check(_parts({}, settings), base))
    if problems:
        raise ConfigError(
            [f"embedded default: {'.'.join(where)}: {words}" for where, words in problems],
            remedy="Start in another folder, or write a hotmatte.yaml (see config/hotmatte.yaml).",
        )
    return _absolute(settings, base)


# --- Validation ----------------------------------------------------------------------------


def _validate(raw: Any) -> tuple[Settings | None, list[Problem]]:
    if not isinstance(raw, dict):
        return None, [((), "must be a mapping of settings")]
    try:
        return Settings.model_validate(raw), []
    except ValidationError as error:
        items = error.errors()
        places = [item["loc"] for item in items]
        return None, [
            sentence(item)
            for item in items
            # What is short only because its parts are wrong is not a problem of its own.
            if not (item["type"] == "too_short" and any(deeper(place, item["loc"]) for place in places))
        ]


@dataclass(frozen=True, slots=True)
class _Parts:
    """Those parts of the configuration that are valid by themselves."""

    state_dir: Path
    folders: Mapping[str, Folder]
    profiles: tuple[str, ...]
    settings: Settings | None = None


def _parts(raw: Any, settings: Settings | None) -> _Parts:
    """So that one wrong line does not hide the problems of all the others."""
    if settings is not None:
        return _Parts(settings.state_dir, settings.folders, tuple(settings.profiles), settings)
    sections = lined_yaml.mapping(raw)
    folders = {}
    for name, value in lined_yaml.mapping(sections.get("folders")).items():
        try:
            folders[str(name)] = Folder.model_validate(value)
        except ValidationError:
            continue  # said already
    try:
        state_dir = _STATE_DIR.validate_python(sections.get("state_dir", ".hotmatte"))
    except ValidationError:
        state_dir = Path(".hotmatte")
    profiles = map(str, lined_yaml.mapping(sections.get("profiles")))
    return _Parts(state_dir, folders, tuple(dict.fromkeys([*profiles, *BUILT_IN])))


_STATE_DIR = TypeAdapter(Place)


def _check(parts: _Parts, base: Path) -> Iterator[Problem]:
    """What no single value shows: names that must exist, places that must not meet."""
    for name, folder in parts.folders.items():
        if folder.profile not in parts.profiles:
            known = ", ".join(parts.profiles) or "none"
            yield ("folders", name, "profile"), f"no profile {folder.profile!r} (there are: {known})"
        elif parts.settings is not None:
            yield from _long_names(name, folder.profile, parts.settings.profiles[folder.profile])
    yield from places.check(base, parts.state_dir, parts.folders)


def _long_names(folder: str, name: str, profile: Profile) -> Iterator[Problem]:
    for number, output in enumerate(profile.outputs):
        if output.name is None:
            continue
        longest = templates.longest(output.name, folder=folder, profile=name, model=profile.model)
        if longest > templates.MOST_BYTES:
            words = f"may add {longest} bytes to a photo's name; {templates.MOST_BYTES} are the limit"
            yield ("profiles", name, "outputs", str(number), "name"), words


def excluded(folder: Folder) -> tuple[Path, ...]:
    """Sub-folders of a hot folder that hold its own results and are never watched.

    Links are followed first: a result that arrives by a detour is a result all the same.
    """
    own = [place for _, place in places.own_places(folder)]
    real = places.resolve([folder.path, *own])
    root = real[folder.path]
    return tuple(
        folder.path / real[place].relative_to(root) for place in own if places.within(real[place], root)
    )


def _absolute(settings: Settings, base: Path) -> Settings:
    """Every path absolute, so that nothing depends on the working directory later."""

    def placed(part: Any, *keys: str) -> Any:
        named = {key: getattr(part, key) for key in keys}
        return part.model_copy(
            update={key: None if path is None else places.absolute(base, path) for key, path in named.items()}
        )

    folders = {
        name: placed(folder, "path", "output", "archive", "quarantine")
        for name, folder in settings.folders.items()
    }
    profiles = {
        name: profile.model_copy(
            update={"outputs": tuple(placed(output, "picture") for output in profile.outputs)}
        )
        for name, profile in settings.profiles.items()
    }
    return settings.model_copy(
        update={
            "folders": folders,
            "profiles": profiles,
            "shares": {name: places.absolute(base, path) for name, path in settings.shares.items()},
            "models": placed(settings.models, "cards", "cache"),
            "queue": placed(settings.queue, *FILES),
            "notify": placed(settings.notify, "secret_file"),
            "state_dir": places.absolute(base, settings.state_dir),
        }
    )
