"""Values on their way to another process: what is small goes as JSON, arrays and bytes lie in memory that is passed along."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np

from watcher.pipeline.rooms import Memory, Part

_ALIGN = 64


def packed(
    values: Mapping[str, Any], picture: Memory | None = None
) -> tuple[dict[str, Any], list[Part], int]:
    """The fields as JSON, what goes where in a room, and how many bytes that takes in all.

    Arrays that lie in `picture` stay there; for the other end that is a memory of its own.
    """
    fields: dict[str, Any] = {}
    parts: list[Part] = []
    end = 0
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            shape = {"shape": value.shape, "dtype": value.dtype.name}
            if picture is not None and (at := picture.place_of(value)) is not None:
                fields[name] = {"there": at, **shape}
                continue
            fields[name] = {"at": end, **shape}
            length = value.nbytes
        elif isinstance(value, bytes):
            fields[name] = {"at": end, "bytes": len(value)}
            length = len(value)
        else:
            fields[name] = value
            continue
        parts.append((end, value))
        end = -(-(end + length) // _ALIGN) * _ALIGN
    return fields, parts, max(1, end)


def unpacked(
    fields: Mapping[str, Any], memory: mmap.mmap, picture: mmap.mmap | None = None, *, copies: bool = False
) -> dict[str, Any]:
    """The values again; arrays are views of the memory they lie in unless `copies`. Lists of numbers become tuples.

    Raises ValueError, TypeError or LookupError where they do not add up.
    """
    return {name: _value(field, memory, picture, copies) for name, field in fields.items()}


def _value(field: Any, memory: mmap.mmap, picture: mmap.mmap | None, copies: bool) -> Any:
    match field:
        # NumPy takes a place before the memory for one, too.
        case {"at": int() as at} | {"there": int() as at} if at < 0:
            raise ValueError("a field before its memory")
        case {"at": int() as at, "bytes": int() as count}:
            return memory[at : at + count]
        case {"at": int() as at, "shape": list() as shape, "dtype": "uint8" | "uint16" | "float32" as dtype}:
            array = np.ndarray(tuple(shape), dtype, memory, at)
            return array.copy() if copies else array
        case {"there": int() as at, "shape": list() as shape, "dtype": "uint8" | "uint16" as dtype} if (
            picture is not None
        ):
            return np.ndarray(tuple(shape), dtype, picture, at)
        case list() if field and all(isinstance(item, float | int) for item in field):
            return tuple(field)
        case {}:
            raise ValueError("a field of an unknown kind")
    return field
