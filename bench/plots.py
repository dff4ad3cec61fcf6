"""Plots as SVG: bars that lie, and lines. Text in, text out.

They are read on white and on dark pages, so that they bring their own ground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

WIDTH: Final = 760
_MARGIN: Final = 24
_HEAD: Final = 76

_GROUND: Final = "#ffffff"
_EDGE: Final = "#d9dee4"
_INK: Final = "#1f2933"
_SOFT: Final = "#5f6c7b"
_GRID: Final = "#e8ebef"
OURS: Final = "#0b7a75"
OTHER: Final = "#b3bcc7"
# For lines that are not ours, told apart also in print.
PALETTE: Final = (
    *("#c2410c", "#6d5bd0", "#2f6fb7", "#a16207", "#be3a7a"),
    *("#64748b", "#4d7c0f", "#0891b2", "#7f1d1d"),
)

_FONT: Final = (
    "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial,"
    ' sans-serif"'
)
# About as wide as a letter is, as a part of the font's size.
_LETTER: Final = 0.6


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: What it is of.
        value: Its length.
        text: What is written behind it.
        ours: Whether it is to stand out.
    """

    name: str
    value: float
    text: str
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        name: What it is of.
        points: Its points, from left to right.
        ours: Whether it is to stand out.
        dashed: Whether it is broken.
    """

    name: str
    points: Sequence[tuple[float, float]]
    ours: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """What a line is drawn over.

    Attributes:
        title: What it is, with its unit.
        log: Whether equal steps are equal factors.
        form: Writes a value; None for the plain number.
        ticks: Where it is marked; None for round numbers.
        floor: Its least value; None for what there is.
    """

    title: str
    log: bool = False
    form: Callable[[float], str] | None = None
    ticks: Sequence[float] | None = None
    floor: float | None = None

    def write(self, value: float) -> str:
        return self.form(value) if self.form else f"{value:,.10g}"


# Pieces.


def _tag(name: str, words: str = "", /, **values: str | float) -> str:
    """Write an element; ``_`` in the names of its attributes stands for ``-``."""
    attributes = "".join(
        f' {each.replace("_", "-")}="{_value(value)}"' for each, value in values.items()
    )
    if words:
        return f"<{name}{attributes}>{escape(words)}</{name}>"
    return f"<{name}{attributes}/>"


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = 12,
    fill: str = _INK,
    anchor: str = "start",
    weight: int = 400,
) -> str:
    return _tag(
        "text",
        words,
        x=x,
        y=y,
        font_size=size,
        fill=fill,
        text_anchor=anchor,
        font_weight=weight,
    )


def _rule(x1: float, y1: float, x2: float, y2: float, stroke: str = _GRID) -> str:
    return _tag("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke)


def _page(height: float, title: str, subtitle: str, body: Iterable[str]) -> str:
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    edge = {"x": 0.5, "y": 0.5, "width": WIDTH - 1, "height": round(height) - 1}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {_FONT}>',
        _tag("title", title),
        _tag("rect", **edge, rx=8, fill=_GROUND, stroke=_EDGE),
        _text(_MARGIN, 34, title, size=17, weight=600),
        _text(_MARGIN, 55, subtitle, size=12.5, fill=_SOFT),
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _width_of(words: str, size: float) -> float:
    return len(words) * size * _LETTER


# Bars.

_BAR: Final = 18
_STEP: Final = 27
_GROUP_GAP: Final = 34


def bars(title: str, subtitle: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Draw bars in groups; those without a name have no heading.

    Args:
        title: What it shows.
        subtitle: How to read it, with the unit.
        groups: Headings, and what stands below them. All are drawn to one scale.
    """
    every = [bar for _, group in groups for bar in group]
    size = 13
    left = _MARGIN + max(_width_of(bar.name, size) for bar in every) + 10
    right = max(_width_of(bar.text, size) for bar in every) + 10
    room = WIDTH - _MARGIN - right - left
    largest = max(bar.value for bar in every) or 1.0
    body: list[str] = []
    y = float(_HEAD)
    for heading, group in groups:
        if heading:
            body.append(_text(_MARGIN, y + 12, heading, size=13, weight=600))
            y += 24
        for bar in group:
            length = max(1.5, bar.value / largest * room)
            fill = OURS if bar.ours else OTHER
            weight = 600 if bar.ours else 400
            middle = y + _BAR / 2 + 4.5
            body += [
                _text(
                    left - 10, middle, bar.name, size=size, anchor="end", weight=weight
                ),
                _tag("rect", x=left, y=y, width=length, height=_BAR, rx=2.5, fill=fill),
                _text(left + length + 8, middle, bar.text, size=size, weight=weight),
            ]
            y += _STEP
        y += _GROUP_GAP - _STEP
    return _page(y + 4, title, subtitle, body)


# Lines.

_PLOT_HEIGHT: Final = 300
_LABEL: Final = 12.5
_LABEL_STEP: Final = 16


def lines(
    title: str, subtitle: str, x_axis: Axis, y_axis: Axis, series: Sequence[Line]
) -> str:
    """Draw lines, each with its name at its end.

    Args:
        title: What it shows.
        subtitle: How to read it.
        x_axis: The axis below.
        y_axis: The axis on the left.
        series: The lines; ours is drawn above the others.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    x_ticks, x_ends = _scale(x_axis, xs)
    y_ticks, y_ends = _scale(y_axis, ys)
    left = _MARGIN + max(_width_of(y_axis.write(tick), 12) for tick in y_ticks) + 10
    right = WIDTH - _MARGIN - max(_width_of(line.name, _LABEL) for line in series) - 14
    top, bottom = _HEAD + 22, _HEAD + 22 + _PLOT_HEIGHT

    def x_at(value: float) -> float:
        return left + _share(x_axis, value, x_ends) * (right - left)

    def y_at(value: float) -> float:
        return bottom - _share(y_axis, value, y_ends) * (bottom - top)

    body = [_text(_MARGIN, top - 14, y_axis.title, fill=_SOFT)]
    for tick in y_ticks:
        body.append(_rule(left, y_at(tick), right, y_at(tick)))
        words = y_axis.write(tick)
        body.append(_text(left - 8, y_at(tick) + 4, words, fill=_SOFT, anchor="end"))
    for tick in x_ticks:
        body.append(_rule(x_at(tick), bottom, x_at(tick), bottom + 5, _SOFT))
        words = x_axis.write(tick)
        body.append(_text(x_at(tick), bottom + 20, words, fill=_SOFT, anchor="middle"))
    body.append(_rule(left, bottom, right, bottom, _SOFT))
    middle = (left + right) / 2
    body.append(_text(middle, bottom + 42, x_axis.title, fill=_SOFT, anchor="middle"))
    colours = _colours(series)
    for line in sorted(series, key=lambda each: each.ours):
        body += _draw(line, colours[line.name], x_at, y_at)
    body += _names(series, colours, x_at, y_at, right, (top, bottom))
    return _page(bottom + 60, title, subtitle, body)


def _colours(series: Sequence[Line]) -> dict[str, str]:
    others = [line for line in series if not line.ours]
    colours = {line.name: PALETTE[i % len(PALETTE)] for i, line in enumerate(others)}
    return colours | {line.name: OURS for line in series if line.ours}


def _draw(
    line: Line,
    colour: str,
    x_at: Callable[[float], float],
    y_at: Callable[[float], float],
) -> list[str]:
    width, radius = (3, 4) if line.ours else (1.8, 2.8)
    places = [(x_at(x), y_at(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = {"stroke_dasharray": "6 4"} if line.dashed else {}
    drawn = [
        _tag(
            "polyline",
            points=path,
            fill="none",
            stroke=colour,
            stroke_width=width,
            stroke_linejoin="round",
            **dash,
        )
    ]
    drawn += [
        _tag(
            "circle",
            cx=x,
            cy=y,
            r=radius,
            fill=colour,
            stroke=_GROUND,
            stroke_width=1.2,
        )
        for x, y in places
    ]
    return drawn


def _names(
    series: Sequence[Line],
    colours: dict[str, str],
    x_at: Callable[[float], float],
    y_at: Callable[[float], float],
    right: float,
    ends: tuple[float, float],
) -> list[str]:
    """Write names at the right, none over another, and lead to them."""
    wanted = sorted((y_at(line.points[-1][1]), i) for i, line in enumerate(series))
    heights = spaced([y for y, _ in wanted], _LABEL_STEP, ends)
    drawn: list[str] = []
    for (at, i), height in zip(wanted, heights, strict=True):
        line = series[i]
        colour = colours[line.name]
        end = x_at(line.points[-1][0])
        if end < right - 8 or abs(at - height) > 3:
            drawn.append(
                _tag(
                    "path",
                    d=f"M{end + 5:.1f},{at:.1f} L{right + 8:.1f},{height:.1f}",
                    stroke=colour,
                    stroke_width=0.8,
                    stroke_dasharray="2 3",
                    fill="none",
                )
            )
        weight = 700 if line.ours else 500
        drawn.append(
            _text(
                right + 12,
                height + 4,
                line.name,
                size=_LABEL,
                fill=colour,
                weight=weight,
            )
        )
    return drawn


def spaced(
    heights: Sequence[float], step: float, ends: tuple[float, float]
) -> list[float]:
    """Move what is too near to its neighbour, as little as can be.

    Args:
        heights: Where they are wanted, in order.
        step: How far apart they are to be.
        ends: Between which they are to stay, if there is room.
    """
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + step) if placed else height)
    over = placed[-1] - ends[1] if placed else 0.0
    if over > 0:
        placed[-1] -= over
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - step)
    return placed


# Scales.


def _scale(
    axis: Axis, values: Sequence[float]
) -> tuple[list[float], tuple[float, float]]:
    """Choose marks, and the ends of an axis."""
    least = min(values) if axis.floor is None else axis.floor
    most = max(values)
    if axis.log:
        ticks = list(axis.ticks or log_ticks(least, most))
        return ticks, (min(least, ticks[0]), max(most, ticks[-1]))
    ticks = list(axis.ticks or linear_ticks(least, most))
    return ticks, (min(least, ticks[0]), max(most, ticks[-1]))


def _share(axis: Axis, value: float, ends: tuple[float, float]) -> float:
    low, high = (math.log(end) for end in ends) if axis.log else ends
    at = math.log(value) if axis.log else value
    return (at - low) / (high - low) if high > low else 0.5


def linear_ticks(least: float, most: float) -> list[float]:
    """Round numbers, some five of them, that enclose a range."""
    span = most - least or abs(most) or 1.0
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.floor(least / step + 1e-9)
    last = math.ceil(most / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def log_ticks(least: float, most: float) -> list[float]:
    """Round numbers that enclose a range: 1, 2 and 5, or powers of ten alone."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    factors = (1, 2, 5) if high - low <= 3 else (1,)
    every = [f * 10.0**power for power in range(low, high + 1) for f in factors]
    above = next(i for i, tick in enumerate(every) if tick >= most * 0.999)
    below = max(i for i, tick in enumerate(every) if tick <= least * 1.001)
    return [float(f"{tick:.6g}") for tick in every[below : above + 1]]
