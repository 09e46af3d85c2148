"""What a validator found wrong, as a sentence for an operator. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watcher.places import Problem


def deeper(place: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    """Does `place` lie within `outer`?"""
    return len(place) > len(outer) and place[: len(outer)] == outer


def sentence(item: Mapping[str, Any]) -> Problem:
    """Where, and what, of one of pydantic's errors."""
    where = tuple(str(part) for part in item["loc"] if part != "[key]")
    problem = item["msg"].removeprefix("Value error, ").replace(" after validation", "")
    match item["type"]:
        case "extra_forbidden":
            problem = "unknown setting"
        case "missing":
            problem = "must be set"
        case "string_type" if item["input"] is None:
            problem += " (what begins with # is a comment unless quoted)"
    return where, problem
