"""What a benchmark found, and how it is shown: on a terminal, in the record, in the documentation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """`notes` say what a reader must know to judge the numbers; `samples` are what was condensed into them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    samples: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Table:
        rows = tuple(tuple(row) for row in kept["rows"])
        return cls(kept["title"], tuple(kept["columns"]), rows, tuple(kept["notes"]), kept["samples"])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def shown(cell: Cell) -> str:
    """Three significant digits, whole numbers whole; more would be noise."""
    match cell:
        case None:
            return "-"
        case float() if abs(cell) >= 1000:
            return f"{cell:,.0f}".replace(",", " ")
        case float():
            return f"{cell:.3g}"
        case int():
            return f"{cell:,}".replace(",", " ")
    return cell


def as_text(table: Table) -> str:
    """For a terminal: aligned columns, numbers to the right."""
    cells = [list(table.columns), *([shown(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    numeric = [_numeric(table.rows, i) for i in range(len(table.columns))]
    lines = ["  ".join(_padded(row, widths, numeric)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(
        [table.title, *(f"  {line}" for line in lines), *(f"  * {note}" for note in table.notes)]
    )


def as_markdown(table: Table) -> str:
    """For the documentation."""
    rule = ["---:" if _numeric(table.rows, i) else "---" for i in range(len(table.columns))]
    cells = [list(table.columns), rule, *([shown(cell) for cell in row] for row in table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([f"**{table.title}**", "", *lines, *_listed(table.notes)])


def _listed(notes: Sequence[str]) -> list[str]:
    return ["", *(f"- {note}" for note in notes)] if notes else []


def _numeric(rows: Sequence[Sequence[Cell]], column: int) -> bool:
    cells = [row[column] for row in rows]
    return any(isinstance(cell, int | float) for cell in cells)


def _padded(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    return [
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(row, widths, numeric, strict=True)
    ]
