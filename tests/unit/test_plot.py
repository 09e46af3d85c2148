"""The drawings of docs/benchmarks.md."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from benchmarks import record
from benchmarks.plot import Plot, as_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(plot):
    return ElementTree.fromstring(as_svg(plot))


def points(svg):
    return [
        [tuple(map(float, spot.split(","))) for spot in line.get("points").split()]
        for line in svg.iter(f"{SVG}polyline")
    ]


def test_a_larger_value_lies_higher_and_zero_on_the_ground():
    svg = drawn(Plot("t", "x", "y", {"a": [(0, 0), (1, 5), (2, 10)]}))
    ((low, middle, high),) = points(svg)
    assert low[0] < middle[0] < high[0]
    assert low[1] > middle[1] > high[1]
    assert middle[1] == pytest.approx((low[1] + high[1]) / 2)
    grid = [float(re.search(r"M\d+ ([\d.]+)H", path.get("d"))[1]) for path in svg.iter(f"{SVG}path")]
    assert max(grid) == low[1]


def test_powers_of_ten_are_equally_far_apart():
    ((first, second, third),) = points(
        drawn(Plot("t", "x", "y", {"a": [(10, 1), (1000, 1), (100_000, 1)]}, decades=True))
    )
    assert second[0] - first[0] == pytest.approx(third[0] - second[0])


def test_words_may_hold_anything():
    svg = drawn(Plot("a < b & c", "x", "y", {"<1>": [(0, 1)]}))
    assert {"a < b & c", "<1>"} <= {text.text for text in svg.iter(f"{SVG}text")}


def test_every_drawing_that_the_page_shows_is_there_and_no_other():
    page = record.PAGE.read_text(encoding="utf-8")
    shown = set(re.findall(r"\((benchmarks-[\w.]+\.svg)\)", page))
    assert shown == {path.name for path in record.PAGE.parent.glob("benchmarks-*.svg")}
    for name in shown:
        ElementTree.parse(record.PAGE.with_name(name))
