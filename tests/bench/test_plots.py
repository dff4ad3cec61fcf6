"""Plots are well-formed, hold what they are given, and nothing lies over another."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET

import pytest

from bench.charts import CHARTS
from bench.plots import (
    OURS,
    Axis,
    Bar,
    Line,
    bars,
    linear_ticks,
    lines,
    log_ticks,
    spaced,
)
from bench.records import Run
from tests.bench.made_up import good_run

SVG = "{http://www.w3.org/2000/svg}"


def all_of(text: str, name: str) -> list[dict[str, str]]:
    return [element.attrib for element in ET.fromstring(text).iter(SVG + name)]


def words_of(text: str) -> list[str | None]:
    return [element.text for element in ET.fromstring(text).iter(SVG + "text")]


def test_bars_are_as_long_as_their_values() -> None:
    drawn = bars(
        "Title <&>", "unit", [("", [Bar("a", 4.0, "4", ours=True), Bar("b", 1.0, "1")])]
    )
    _, first, second = all_of(drawn, "rect")
    assert float(first["width"]) == pytest.approx(4 * float(second["width"]), rel=0.01)
    assert first["fill"] == OURS != second["fill"]
    assert {"Title <&>", "unit", "a", "4"} <= set(words_of(drawn))


def test_points_stand_where_their_values_are() -> None:
    points = [(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)]
    drawn = lines(
        "T",
        "s",
        Axis("x", log=True, ticks=[1, 10, 100]),
        Axis("y", log=True),
        [Line("ours", points, ours=True)],
    )
    places = [
        (float(circle["cx"]), float(circle["cy"])) for circle in all_of(drawn, "circle")
    ]
    (x1, y1), (x2, y2), (x3, y3) = places
    # Equal factors are equal steps, to the right and up.
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2) != 0
    assert y1 > y2


def test_all_charts_are_drawn_from_a_full_run() -> None:
    run = good_run()
    for chart in CHARTS:
        drawn = chart.draw(run)
        assert drawn.startswith("<svg "), chart.name
        ET.fromstring(drawn)


def test_no_chart_is_drawn_from_nothing() -> None:
    assert [chart.name for chart in CHARTS if chart.draw(Run({}))] == []


@pytest.mark.parametrize(
    ("least", "most", "ticks"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (0.0, 0.047, [0, 0.01, 0.02, 0.03, 0.04, 0.05]),
        (3.0, 3.0, [3]),
    ],
)
def test_linear_ticks_are_round(least: float, most: float, ticks: list[float]) -> None:
    assert linear_ticks(least, most) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("least", "most"), [(0.008, 1.7), (1.0, 1.0), (2e4, 1.5e7), (5.0, 100.0)]
)
def test_logarithmic_ticks_enclose_what_there_is(least: float, most: float) -> None:
    ticks = log_ticks(least, most)
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= least * 1.001
    assert ticks[-1] >= most * 0.999
    assert all(
        f"{tick / 10 ** math.floor(math.log10(tick) + 1e-9):.3f}"[0] in "125"
        for tick in ticks
    )


def test_names_are_moved_apart_and_stay_inside() -> None:
    placed = spaced([10.0, 11.0, 12.0, 95.0, 99.0], 16.0, (0.0, 100.0))
    assert all(b - a >= 16 - 1e-9 for a, b in itertools.pairwise(placed))
    assert placed[0] == 10.0
    assert placed[-1] == 100.0
    assert spaced([], 16.0, (0.0, 100.0)) == []
