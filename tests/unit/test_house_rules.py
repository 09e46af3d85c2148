"""Rules of the house that no linter holds."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from watcher import cli, config, errors, exits
from watcher.commands import check_config
from watcher.config import Settings
from watcher.errors import RetryPolicy, WatcherError, disposition

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "watcher"
MODULES = sorted(PACKAGE.rglob("*.py"))
EXAMPLE = ROOT / "config" / "hotmatte.yaml"
UNIT = ROOT / "deploy" / "systemd" / "hotmatte.service"
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
FRAMEWORKS = ("onnxruntime", "MNN", "_tools", "openvino", "tensorflow", "torch", "modelscope")

# Words that say nothing about what a thing is or does.
BANNED = ("manager", "handler", "helper", "util", "utils", "process", "data", "info")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- Modules -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_fits_into_one_s_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


@pytest.mark.parametrize("path", [path for path in MODULES if path != PACKAGE / "__init__.py"], ids=relative)
def test_a_module_opens_with_its_job(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "no docstring"


@pytest.mark.parametrize("path", sorted((PACKAGE / "worker").glob("*.py")), ids=relative)
def test_the_island_is_python_3_7(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))
    for node in ast.walk(ast.parse(source)):
        # feature_version lets these pass: they are names, or objects, that 3.7 does not have.
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            assert {alias.name for alias in node.names} <= {"annotations"}
        assert not isinstance(node, ast.Match | ast.NamedExpr)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_names_say_what_a_thing_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = [path.stem, *(node.name for node in ast.walk(tree) if isinstance(node, kinds))]
    assert [name for name in names if any(word in BANNED for word in words_of(name))] == []


def words_of(name: str) -> list[str]:
    """`EngineClient` and `engine_client` -> engine, client."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def test_the_words_of_a_name_are_found() -> None:
    assert words_of("_FolderWatch") == ["folder", "watch"]
    assert words_of("read_HTTPInfo2") == ["read", "http", "info"]


# --- Errors --------------------------------------------------------------------------------


def every_error(kind: type[WatcherError] = WatcherError) -> Iterator[type[WatcherError]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from every_error(sub)


ACTIONS = {
    "ConfigError": "halt",
    "InputError": "quarantine",
    "InputNotReady": "retry",
    "InputChanged": "drop",
    "InputRejected": "quarantine",
    "EngineError": "retry",
    "EngineCrashed": "retry",
    "EngineTimeout": "retry",
    "EngineOutOfMemory": "retry",
    "EngineUnavailable": "pause",
    "HostError": "pause",
    "SubfolderClosed": "pause",
}


def test_every_error_has_a_disposition_and_a_remedy() -> None:
    kinds = {kind.__name__: kind for kind in every_error() if kind.__module__ == errors.__name__}
    assert set(kinds) == set(ACTIONS)
    for name, kind in kinds.items():
        error = kind(["x"]) if kind is errors.ConfigError else kind("x")
        assert disposition(error, attempts=1, policy=RetryPolicy()).action.value == ACTIONS[name], name
        assert error.remedy
        if not issubclass(kind, errors.InputError):
            assert exits.exit_status(error) in (exits.CONFIG, exits.UNAVAILABLE, exits.IO, exits.BUG)


# --- Imports -------------------------------------------------------------------------------


def python(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", **env},
        check=False,
    )


def test_no_command_has_threads_for_a_library_that_computes_next_to_nothing() -> None:
    code = "from watcher import cli; cli.main([]); import os, numpy, cv2; print(len(os.listdir('/proc/self/task')))"
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env, check=True
    )
    assert done.stdout.splitlines()[-1] == "1"


def test_the_daemon_imports_no_ml_framework() -> None:
    code = "import sys, watcher.daemon, watcher.commands.run, watcher.commands.doctor; print(*sys.modules)"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "watcher.daemon" in loaded
    assert not loaded & set(FRAMEWORKS)


def test_help_needs_none_of_the_heavy_imports() -> None:
    code = "import sys; from watcher import cli; cli.main([]); print(*sys.modules)"
    loaded = set(python("-c", code).stdout.split())
    assert "watcher.cli" in loaded
    assert not loaded & {"numpy", "cv2", "pydantic", "numba", *FRAMEWORKS}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_of_a_command_needs_nothing_that_computes(command) -> None:
    code = f"import sys, watcher.commands.{command.replace('-', '_')}; print(*sys.modules)"
    loaded = set(python("-c", code).stdout.split())
    assert "watcher" in loaded
    # Of these even the settings are about pictures.
    pictures = {"numpy", "cv2"} if command not in ("bench", "evaluate") else set()
    assert not loaded & {"numba", "watcher.assembly", *pictures, *FRAMEWORKS}


def test_what_is_compiled_is_compiled_when_it_is_needed() -> None:
    code = "import sys, watcher.daemon; print(*sys.modules)"
    assert "numba" not in python("-c", code).stdout.split()


# --- The command line ----------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    done = python("-m", "watcher", "--help")
    assert done.returncode == 0
    listed = re.findall(r"^    ([a-z][a-z-]*)(?: |$)", done.stdout, flags=re.MULTILINE)
    assert listed == list(cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: hotmatte {command} ")
    assert "--config" in said
    assert len(said.splitlines()) > 5


def test_a_wrong_option_is_wrong_usage() -> None:
    done = python("-m", "watcher", "status", "--jsno")
    assert done.returncode == exits.USAGE
    assert "--jsno" in done.stderr
    assert "--help" in done.stderr


PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CHANGELOG.md"])


def commands_in(page: Path) -> Iterator[list[str]]:
    """The `hotmatte ...` commands of indented or fenced lines, as words."""
    for line in page.read_text(encoding="utf-8").splitlines():
        found = re.match(r"(?: {4}|\$ |sudo )(?:\S*/)?hotmatte ([a-z-]+.*)", line)
        if found:
            yield shlex.split(found[1], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_the_commands_on_a_page_are_ones_there_are(page: Path) -> None:
    for words in commands_in(page):
        module = cli._module(words[0])
        cli._parser(words[0], module).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_the_make_targets_on_a_page_are_ones_there_are(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    used = set(re.findall(r"(?:^ {4}|`)make ([a-z]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert used <= targets


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_the_links_on_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def logged_fields() -> Iterator[str]:
    """The names of all fields that some `event(...)` is given, and those of a job."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "event":
                yield from (keyword.arg for keyword in node.keywords if keyword.arg)
    yield from ("job", "folder", "file")


def test_every_field_of_the_log_is_documented() -> None:
    section = OPERATING.partition("## The log")[2].partition("\n## ")[0]
    assert sorted({name for name in logged_fields() if f"`{name}`" not in section}) == []


def test_every_exit_status_is_documented() -> None:
    section = OPERATING.partition("## Exit statuses")[2].partition("\n## ")[0]
    told = {int(number) for number in re.findall(r"^\| (\d+) \|", section, flags=re.MULTILINE)}
    assert told == {value for value in vars(exits).values() if isinstance(value, int)}


def test_every_key_of_a_sidecar_is_documented() -> None:
    schema = json.loads((PACKAGE / "pipeline" / "sidecar.schema.json").read_text(encoding="utf-8"))
    section = OPERATING.partition("### Sidecar and report")[2].partition("\n## ")[0]
    for kind in ("sidecar", "report"):
        assert [key for key in schema["$defs"][kind]["properties"] if f"`{key}" not in section] == []


# --- Configuration -------------------------------------------------------------------------


def fields_of(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
    """Every field of `model` and of the models within, whatever holds them."""
    for name, field in model.model_fields.items():
        yield model, name
        for inner in models_in(field.annotation):
            yield from fields_of(inner)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def spelled_out(model: type[BaseModel], values: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The fields of `model`, and of the models within, that `values` (plain YAML) names."""
    for name in values:
        yield model, name
        for inner in models_in(model.model_fields[name].annotation):
            held = values[name]
            parts = held if isinstance(held, list) else [held]
            if isinstance(held, dict) and not held.keys() <= inner.model_fields.keys():
                parts = list(held.values())
            for part in parts:
                yield from spelled_out(inner, part)


def test_the_example_spells_out_every_setting() -> None:
    values = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert set(fields_of(Settings)) == set(spelled_out(Settings, values))


def test_the_example_is_the_embedded_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLE.parent)
    assert config.load(EXAMPLE) == config.load(None)


def test_every_setting_is_explained_above_it() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    settings = {name for _, name in fields_of(Settings)} - {"kind", "suffix", "max_attempts"}
    for number, line in enumerate(lines):
        name = line.strip().partition(":")[0]
        if name in settings and not re.match(r"\s*(retry|models|log|limits):", line):
            assert lines[number - 1].strip().startswith("#"), f"line {number + 1}: {line}"


def test_every_setting_has_a_description_for_editors() -> None:
    sections = {"limits", "retry", "models", "log", "level"}
    assert [
        name
        for model, name in fields_of(Settings)
        if not model.model_fields[name].description and name not in sections
    ] == []


def test_the_schema_is_up_to_date_and_the_example_fits_it() -> None:
    import jsonschema

    text = (EXAMPLE.parent / "hotmatte.schema.json").read_text(encoding="utf-8")
    assert text == check_config.schema(), "run: hotmatte check-config --schema > config/hotmatte.schema.json"
    jsonschema.validate(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), json.loads(text))
    assert "$schema=hotmatte.schema.json" in EXAMPLE.read_text(encoding="utf-8").splitlines()[0]


# --- The service ---------------------------------------------------------------------------


def test_the_unit_leaves_time_to_drain_and_does_not_repeat_what_cannot_heal() -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert settings["Type"] == "notify"
    assert float(settings["TimeoutStopSec"]) > config.Limits().drain_timeout_s + 10
    assert settings["RestartPreventExitStatus"].split() == [str(exits.USAGE), str(exits.CONFIG)]
    # A share that is away must not keep the others from being watched.
    assert "RequiresMountsFor" not in settings
    for line in ("ExecStart", "ExecReload"):
        words = shlex.split(settings[line])[1:]
        cli._parser(words[0], cli._module(words[0])).parse_args(words)
