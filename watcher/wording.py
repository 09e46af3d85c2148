"""What was found wrong, in words for who reads them: an operator of a daemon, or of a command. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watcher.domain import printable
from watcher.places import Problem

# What texts of these patterns look like, for people.
_SHAPES = {
    r"^(rediss?|amqps?)://[^\s]+$": "must begin with redis://, rediss://, amqp:// or amqps://, and hold no spaces",
    r"^https?://[^\s]+$": "must begin with http:// or https://, and hold no spaces",
    r"^[^/\x00-\x1f]{0,64}$": "must be up to 64 characters without /",
    r"^(#[0-9a-fA-F]{6}( #[0-9a-fA-F]{6})?|blur)$": "must be '#rrggbb', '#rrggbb #rrggbb' or blur",
}


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
        case "tuple_type" | "list_type":
            problem = "must be a list, such as [one, two]"
        case "dict_type" | "model_type" | "model_attributes_type" if item["input"] is None:
            problem = "is empty: indent what belongs to it below it"
        case "dict_type" | "model_type" | "model_attributes_type":
            problem = "must be a mapping of settings"
        case "too_short":
            problem = "must not be empty"
        case "string_pattern_mismatch" if item["ctx"]["pattern"].startswith("^[A-Za-z0-9]"):
            problem = "must be up to 64 letters, digits and - _ . that begin with a letter or digit"
        case "string_pattern_mismatch" if item["ctx"]["pattern"] in _SHAPES:
            problem = _SHAPES[item["ctx"]["pattern"]]
        case "string_pattern_mismatch" if "cuda" in item["ctx"]["pattern"]:
            problem = "must be auto, cpu, cuda or cuda:N"
        case "int_parsing" | "float_parsing" if item["input"] in ("true", "false"):
            problem = "must be a number; true, false, yes, no, on and off are none"
        case "int_parsing" | "float_parsing" | "int_type" | "float_type" if item["input"] is not None:
            problem = f"must be a number, not {printable(str(item['input']))[:80]}"
        case "string_type" if item["input"] is None:
            problem += " (what begins with # is a comment unless quoted)"
    return where, problem


# What remedies say of a daemon, and what takes its place where none runs.
_BY_ITSELF = (
    (
        "Nothing: the new version is picked up by itself.",
        "Run the command again once nobody writes to the photo.",
    ),
    (" and drop it again.", "."),
    (", then drop it again.", ", then run the command again."),
    ("; a new copy is picked up by itself.", ", then run the command again."),
    ("; work resumes by itself.", ", then run the command again."),
    ("; work goes on by itself.", ", then run the command again."),
)


def by_hand(remedy: str) -> str:
    """`remedy`, for who has run a command that ends with what went wrong."""
    for daemon, here in _BY_ITSELF:
        remedy = remedy.replace(daemon, here)
    return remedy
