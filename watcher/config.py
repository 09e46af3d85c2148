"""YAML to frozen settings. Reports every problem at once, each with its line.

Relative paths are relative to the folder of the configuration file; where there is no
file (the embedded default), to the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from watcher.errors import ConfigError, RetryPolicy
from watcher.mounts import mount_of

Seconds = Annotated[float, Field(ge=0, le=86_400 * 365, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=86_400 * 365, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]

ENDINGS = ("jpg", "jpeg", "jpe", "png", "tif", "tiff", "webp", "bmp", "gif", "heic", "heif", "avif", "psd")
IMAGES = tuple(f"*.{ending}" for ending in ENDINGS)
# Where a system-wide installation keeps its configuration.
SYSTEM_CONFIG = Path("/etc/hotmatte/hotmatte.yaml")
LOCAL_CONFIG = Path("hotmatte.yaml")


class Strict(BaseModel):
    """Unknown keys are refused: a typo must not become a default in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Output(Strict):
    """One file written for each photo."""

    kind: Literal["cutout", "matte", "composite"] = Field(
        description="cutout: RGBA with straight alpha; matte: 8-bit grey alpha; composite: over a colour"
    )
    suffix: str = Field(
        pattern=r"^[^/\x00-\x1f]{1,64}$",
        description="added to the photo's name; its ending chooses the format",
    )
    background: Colour = Field("#ffffff", description="colour under a composite, #rrggbb in sRGB")
    compression: Annotated[int, Field(ge=0, le=3)] = Field(1, description="PNG effort: 0 fast .. 3 small")
    quality: Annotated[int, Field(ge=1, le=100)] = Field(92, description="JPEG quality")

    @property
    def format(self) -> str:
        """`png` or `jpeg`."""
        ending = self.suffix.rpartition(".")[2].lower()
        return "jpeg" if ending in ("jpg", "jpeg") else ending

    @model_validator(mode="after")
    def _format_fits_kind(self) -> Output:
        allowed = ("png", "jpeg") if self.kind == "composite" else ("png",)
        if self.format not in allowed:
            endings = " or ".join("." + name for name in allowed)
            raise ValueError(f"suffix of a {self.kind} must end in {endings}")
        return self


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
    refine: Literal["guided", "bilinear"] = Field(
        "guided", description="how the alpha is brought to full size: edge-aware, or plain interpolation"
    )
    decontaminate: bool = Field(True, description="remove the background's colour from soft edges")
    outputs: tuple[Output, ...] = Field(DEFAULT_OUTPUTS, min_length=1)

    @field_validator("outputs")
    @classmethod
    def _suffixes_differ(cls, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        suffixes = [output.suffix.casefold() for output in outputs]
        if len(set(suffixes)) < len(suffixes):
            raise ValueError("two outputs have the same suffix and would overwrite each other")
        if any(suffix.endswith((".matte.json", ".error.json")) for suffix in suffixes):
            raise ValueError("a suffix may not end like a sidecar (.matte.json, .error.json)")
        return outputs


class Folder(Strict):
    """A hot folder: files dropped there are work."""

    path: Path = Field(description="the folder to watch")
    output: Path = Field(description="where mattes and sidecars go")
    profile: Name = Field("portrait", description="which recipe")
    create: bool = Field(
        False, description="make `path` at start; leave it off for a share that may be absent"
    )
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
    source: Literal["leave", "archive", "delete"] = Field(
        "leave", description="what happens to a photo once its matte is safe on disk"
    )
    archive: Path | None = Field(None, description="where `source: archive` moves photos")
    quarantine: Path | None = Field(
        None,
        description="where the reports of failures go; the output folder if unset. Photos stay where they are",
    )
    duplicates: Literal["number", "replace", "skip", "quarantine"] = Field(
        "number",
        description="when another photo's result already has the name: add a number, overwrite, do nothing, or fail",
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
    max_in_flight: Count = Field(6, description="photos between decoding and publishing at one time")
    max_in_flight_mp: Positive = Field(
        120.0, description="megapixels between decoding and publishing at one time; a larger photo goes alone"
    )
    max_image_mp: Positive = Field(200.0, description="larger photos are refused, before decoding")
    max_file_mb: Positive = Field(2048.0, description="larger files are refused, before reading")
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

    cards: Path | None = Field(None, description="a folder with more model cards (*.yaml)")
    cache: Path | None = Field(None, description="where weights are kept; ~/.cache/hotmatte if unset")
    offline: bool = Field(False, description="never fetch weights; use what is there")


class Log(Strict):
    """What is written to stderr or the journal of systemd."""

    format: Literal["auto", "text", "json", "journal"] = Field(
        "auto", description="auto: the systemd journal under systemd, text elsewhere"
    )
    level: Literal["debug", "info", "warning", "error"] = Field("info")


class Settings(Strict):
    """The whole configuration."""

    state_dir: Path = Field(
        Path(".hotmatte"), description="journal, status and lock; must be on a local disk"
    )
    folders: dict[Name, Folder] = Field(min_length=1, description="the hot folders, by name")
    profiles: dict[Name, Profile] = Field(
        default_factory=lambda: {"portrait": Profile()}, description="the recipes, by name"
    )
    limits: Limits = Field(default_factory=Limits)
    retry: Retry = Field(default_factory=Retry)
    models: Models = Field(default_factory=Models)
    log: Log = Field(default_factory=Log)
    history_days: Positive = Field(
        90.0, description="how long finished photos that are gone stay in the journal"
    )

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
        return _absolute(Settings.model_validate(EMBEDDED_DEFAULT), Path.cwd())
    raw, lines, problems = _read(path)
    settings, more = _validate(raw, path, lines)
    problems += more
    base = path.absolute().parent
    for where, problem in _check(_parts(raw, settings), base):
        problems.append(f"{path}:{_line(lines, where)}: {'.'.join(where)}: {problem}")
    if problems or settings is None:
        raise ConfigError(sorted(set(problems), key=problems.index))
    return _absolute(settings, base)


# --- YAML with lines -----------------------------------------------------------------------

Lines = dict[tuple[str, ...], int]


def _read(path: Path) -> tuple[Any, Lines, list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        lines: Lines = {}
        problems: list[str] = []
        if node is not None:
            for where, line, problem in _walk(node, ()):
                lines.setdefault(where, line)
                if problem:
                    problems.append(f"{path}:{line}: {'.'.join(where)}: {problem}")
        # get_single_node built no Python object: construct_document does, safely.
        raw = {} if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        what = getattr(error, "problem", None) or str(error)
        raise ConfigError([f"{path}:{line}: not valid YAML: {what}"]) from error
    finally:
        loader.dispose()
    return raw, lines, problems


def _walk(node: yaml.Node, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int, str | None]]:
    """Every path in the document with its line, and a word about keys given twice."""
    yield where, node.start_mark.line + 1, None
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            inner = (*where, str(key.value))
            twice = "given twice" if inner in seen else None
            seen.add(inner)
            yield inner, key.start_mark.line + 1, twice
            yield from _walk(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _walk(value, (*where, str(index)))


def _line(lines: Lines, where: tuple[str, ...]) -> int:
    """The line of the nearest thing that is in the file."""
    while where and where not in lines:
        where = where[:-1]
    return lines.get(where, 1)


# --- Validation ----------------------------------------------------------------------------


def _validate(raw: Any, path: Path, lines: Lines) -> tuple[Settings | None, list[str]]:
    if not isinstance(raw, dict):
        return None, [f"{path}:1: the configuration must be a mapping of settings"]
    try:
        return Settings.model_validate(raw), []
    except ValidationError as error:
        return None, [_sentence(path, lines, item) for item in error.errors()]


def _sentence(path: Path, lines: Lines, item: Mapping[str, Any]) -> str:
    where = tuple(str(part) for part in item["loc"] if part != "[key]")
    problem = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        problem = "unknown setting"
    elif item["type"] == "missing":
        problem = "must be set"
    return f"{path}:{_line(lines, where)}: {'.'.join(where) or 'configuration'}: {problem}"


class _Parts(BaseModel):
    """Those parts of the configuration that are valid by themselves."""

    state_dir: Path
    folders: dict[str, Folder]
    profiles: Iterable[str]


def _parts(raw: Any, settings: Settings | None) -> _Parts:
    """So that one wrong line does not hide the problems of all the others."""
    if settings is not None:
        return _Parts(
            state_dir=settings.state_dir, folders=settings.folders, profiles=list(settings.profiles)
        )
    sections = raw if isinstance(raw, dict) else {}
    folders = {}
    for name, value in _mapping(sections.get("folders")).items():
        try:
            folders[str(name)] = Folder.model_validate(value)
        except ValidationError:
            continue  # said already
    state_dir = sections.get("state_dir")
    profiles = _mapping(sections.get("profiles")) or {"portrait": None}
    return _Parts(
        state_dir=Path(state_dir if isinstance(state_dir, str) else ".hotmatte"),
        folders=folders,
        profiles=[str(name) for name in profiles],
    )


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


Problem = tuple[tuple[str, ...], str]


def _check(parts: _Parts, base: Path) -> Iterator[Problem]:
    """What no single value shows: names that must exist, places that must not meet."""
    profiles = list(parts.profiles)
    for name, folder in parts.folders.items():
        if folder.profile not in profiles:
            yield (
                ("folders", name, "profile"),
                f"no profile {folder.profile!r} (there are: {', '.join(profiles)})",
            )
    roots = {name: _real(base, folder.path) for name, folder in parts.folders.items()}
    yield from _check_roots(roots, parts.folders)
    state = _real(base, parts.state_dir)
    mount = mount_of(state)
    if mount.is_network:
        yield (
            ("state_dir",),
            (
                f"{state} is on a network file system ({mount.kind}), where SQLite's locks are not safe; "
                "name a folder on a local disk"
            ),
        )
    for owner, root in roots.items():
        if _inside(state, root):
            yield ("state_dir",), f"{state} lies in hot folder {owner!r}"
        for name, folder in parts.folders.items():
            yield from _check_places(base, owner, root, name, folder)


def _check_roots(roots: Mapping[str, Path], folders: Mapping[str, Folder]) -> Iterator[Problem]:
    for name, root in roots.items():
        for other, outer in roots.items():
            if name == other:
                continue
            if root == outer and name > other:
                yield ("folders", name, "path"), f"{root} is hot folder {other!r} already"
            elif root != outer and _inside(root, outer) and folders[other].recursive:
                yield (
                    ("folders", name, "path"),
                    f"{root} lies in hot folder {other!r}, which watches sub-folders",
                )


def _check_places(base: Path, owner: str, root: Path, name: str, folder: Folder) -> Iterator[Problem]:
    """Results must never become work: see `excluded` for what a sub-folder may be."""
    for key in ("output", "archive", "quarantine"):
        value: Path | None = getattr(folder, key)
        if value is None:
            continue
        place = _real(base, value)
        if place == root:
            yield ("folders", name, key), f"{place} is hot folder {owner!r} itself: results would become work"
        elif _inside(place, root) and owner != name:
            yield ("folders", name, key), f"{place} lies in hot folder {owner!r}: results would become work"
        elif _inside(root, place):
            yield (
                ("folders", name, key),
                f"hot folder {owner!r} ({root}) lies in {place}: results could become work",
            )


def excluded(folder: Folder) -> tuple[Path, ...]:
    """Sub-folders of a hot folder that hold its own results and are never watched.

    Links are followed first: a result that arrives by a detour is a result all the same.
    """
    root = Path(os.path.realpath(folder.path))
    places = (folder.output, folder.archive, folder.quarantine)
    real = [Path(os.path.realpath(place)) for place in places if place is not None]
    return tuple(folder.path / place.relative_to(root) for place in real if _inside(place, root))


def _inside(path: Path, outer: Path) -> bool:
    return path == outer or outer in path.parents


def _real(base: Path, path: Path) -> Path:
    return Path(os.path.realpath(base / path.expanduser()))


def _absolute(settings: Settings, base: Path) -> Settings:
    """Every path absolute, so that nothing depends on the working directory later."""

    def place(path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.normpath(base / path.expanduser()))

    folders = {
        name: folder.model_copy(
            update={key: place(getattr(folder, key)) for key in ("path", "output", "archive", "quarantine")}
        )
        for name, folder in settings.folders.items()
    }
    models = settings.models.model_copy(
        update={"cards": place(settings.models.cards), "cache": place(settings.models.cache)}
    )
    return settings.model_copy(
        update={"folders": folders, "models": models, "state_dir": place(settings.state_dir)}
    )
