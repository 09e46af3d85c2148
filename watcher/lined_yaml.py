"""YAML, and where each part of it stands. `safe_load` only; knows nothing of what the parts mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from watcher.errors import ConfigError

Where = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lined:
    """A document as plain Python objects. `problems` are keys given twice: (line, where, words)."""

    raw: Any
    lines: dict[Where, int]
    problems: list[tuple[int, Where, str]]

    def line(self, where: Where) -> int:
        """The line of `where`, or of the nearest thing around it that is in the file."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)


def read(path: Path) -> Lined:
    """The one document in `path`; an empty file is an empty mapping. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: is not text in UTF-8"]) from error
    try:
        return _parse(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"{path}:{line}: not valid YAML: a control character"]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error)
        plain = next((words for part, words in _PLAIN if part in what), what)
        raise ConfigError([f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {plain}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: not valid YAML: nested too deeply"]) from error


# What PyYAML says of the usual slips, and what that means.
_PLAIN = (
    ("'\\t' that cannot start", "a tab: YAML is indented by spaces"),
    ("expected <block end>", "it is indented otherwise than what it belongs to"),
    (
        "mapping values are not allowed",
        "a colon too many: is it indented as the line before, and a text that holds a colon quoted?",
    ),
    ("could not find expected ':'", "a colon and a space are missing here, or in the line before"),
)


class _Loader(yaml.SafeLoader):
    """Says where a value is that looks like a date or a number and is none, such as 2026-13-45.

    A key is what is written there: a hot folder may be called 2024, on or no.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


def _parse(text: str) -> Lined:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Lined({}, {}, [])
        lines: dict[Where, int] = {}
        twice: dict[Where, tuple[int, Where, str]] = {}
        for where, line in _walk(node, (), set()):
            if where in lines and not any(where[:length] in twice for length in range(len(where))):
                twice[where] = (line, where, f"given twice, first in line {lines[where]}")
            # The last one is what YAML takes.
            lines[where] = line
        return Lined(loader.construct_document(node), lines, list(twice.values()))
    finally:
        loader.dispose()


def _walk(node: yaml.Node, where: Where, visited: set[int]) -> Iterator[tuple[Where, int]]:
    """Every path below `node`, with its line."""
    if id(node) in visited:
        # An alias: its parts stand where they stand. It may even lead back to itself.
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*where, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _walk(value, inner, visited)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            inner = (*where, str(index))
            yield inner, value.start_mark.line + 1
            yield from _walk(value, inner, visited)


def mapping(value: Any) -> Mapping[Any, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}
