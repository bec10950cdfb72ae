"""A line plot as SVG, coloured by the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 900, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 36, 44
_COLOURS = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One line: ``x`` ascending; ``stroke`` "solid", "dashed" or "dotted"."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    stroke: str = "solid"


def line_plot(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """An SVG element. A line that is not solid has the colour of the last that is; ``x`` is spread by its logarithm."""
    ticks_x = sorted({x for line in lines for x in line.x})
    top = _round_up(max(y for line in lines for y in line.y))
    parts = [_axes(ticks_x, top, x_label, y_label)]
    colour = -1
    label_heights: list[float] = []
    for line in lines:
        colour += line.stroke == "solid"
        style = f"c{colour % _COLOURS} {line.stroke}"
        points = [(_x(x, ticks_x), _y(y, top)) for x, y in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line {style}" style="fill:none" points="{path}"/>')
        parts += [f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
        height = _free_height(points[-1][1], label_heights)
        label_heights.append(height)
        text = escape(line.label)
        parts.append(f'<text class="label" x="{_WIDTH - _RIGHT + 12}" y="{height + 4:.1f}">{text}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _free_height(wanted: float, taken: Sequence[float]) -> float:
    """The height nearest above ``wanted`` where a label covers none of those ``taken``."""
    while any(abs(wanted - other) < 14 for other in taken):
        wanted -= 2
    return wanted


def _x(value: float, ticks: Sequence[float]) -> float:
    width = _WIDTH - _LEFT - _RIGHT
    if len(ticks) == 1:
        return _LEFT + width / 2
    low, high = math.log(ticks[0]), math.log(ticks[-1])
    return _LEFT + width * (math.log(value) - low) / (high - low)


def _y(value: float, top: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / top)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... at or above ``value``."""
    if value <= 0:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in (1, 2, 5, 10) if step * scale >= value * (1 - 1e-9))


def _axes(ticks_x: Sequence[float], top: float, x_label: str, y_label: str) -> str:
    parts = []
    for part in range(5):
        value, height = top * part / 4, _y(top * part / 4, top)
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{value:g}</text>')
    for tick in ticks_x:
        place = f'x="{_x(tick, ticks_x):.1f}" y="{_HEIGHT - _BOTTOM + 20}"'
        parts.append(f'<text {place} text-anchor="middle">{tick:g}</text>')
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="4" y="{_TOP - 20}">{escape(y_label)}</text>')
    return "".join(parts)
