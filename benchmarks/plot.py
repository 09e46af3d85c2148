"""Curves as SVG, for the documentation: a few lines of text instead of a drawing library. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.table import shown

Point = tuple[float, float]

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _BOTTOM = 70, 34, 50
# Okabe and Ito: told apart by everyone, in print as well.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines through points; y begins at 0. `decades`: x in powers of ten."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[Point]]
    decades: bool = False


def as_svg(plot: Plot) -> str:
    """A drawing that reads on white and on dark pages."""
    points = [point for line in plot.lines.values() for point in line]
    place_x, ticks_x = _axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT, decades=plot.decades)
    top = 24 + 15 * max(2, len(plot.lines))
    place_y, ticks_y = _axis([0.0, *(y for _, y in points)], _HEIGHT - _BOTTOM, top, decades=False)
    style = 'font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {style}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        _text(_LEFT, 18, plot.title, 'font-weight="bold"'),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, plot.x, 'text-anchor="middle"'),
        _text(_LEFT - 60, top - 14, plot.y, ""),
    ]
    for tick in ticks_y:
        at = place_y(tick)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, at + 4, shown(float(tick)), 'text-anchor="end"'))
    for tick in ticks_x:
        parts.append(_text(place_x(tick), _HEIGHT - _BOTTOM + 18, _whole(tick), 'text-anchor="middle"'))
    parts += _lines(plot, place_x, place_y)
    return "\n".join([*parts, "</svg>", ""])


def _lines(plot: Plot, place_x: Callable[[float], float], place_y: Callable[[float], float]) -> Iterator[str]:
    for number, (name, line) in enumerate(plot.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        spots = [(place_x(x), place_y(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        if len(spots) <= 20:
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots)
        yield _text(_WIDTH - _RIGHT, 18 + 15 * number, name, f'text-anchor="end" fill="{colour}"')


def _axis(
    values: Sequence[float], begin: float, end: float, *, decades: bool
) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies between the pixels `begin` and `end`, and the values that get a number."""
    if decades:
        first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        last = max(last, first + 1)
        ticks = [10.0**power for power in range(first, last + 1)]
        return lambda value: begin + (math.log10(value) - first) / (last - first) * (end - begin), ticks
    step = _step(max(values) or 1.0)
    top = step * math.ceil((max(values) or 1.0) / step)
    ticks = [step * number for number in range(round(top / step) + 1)]
    return lambda value: begin + value / top * (end - begin), ticks


def _step(top: float) -> float:
    """A round one that makes about five of them."""
    power = 10.0 ** math.floor(math.log10(top / 5))
    return next(step * power for step in _STEPS if step * power >= top / 5)


def _whole(value: float) -> str:
    return f"{round(value):,}".replace(",", " ")


def _text(x: float, y: float, words: str, more: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more or ""}>{escape(words)}</text>'.replace(" >", ">")
