"""A line plot with logarithmic axes as SVG, without anything that would have to be installed for it."""

import math
from dataclasses import dataclass
from html import escape

_COLOURS = (
    "#1b6ca8",
    "#d1495b",
    "#2e933c",
    "#8f5bb5",
    "#e08e2b",
    "#4f5d75",
    "#0f8b8d",
    "#a23b72",
    "#6b8f00",
    "#444444",
)
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 440, 70, 260, 44, 46


@dataclass(frozen=True)
class Line:
    """A name and its points, of positive numbers."""

    name: str
    points: list[tuple[float, float]]


def plot(title: str, lines: list[Line]) -> str:
    """The picture; the axes reach from power of ten to power of ten."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    across, up = _Axis(xs, _LEFT, _WIDTH - _RIGHT), _Axis(ys, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for power in across.powers:
        x = across.place(10**power)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{10**power:,.10g}</text>')
    for power in up.powers:
        y = up.place(10**power)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**power:,.10g}</text>')
    for number, line in enumerate(lines):
        parts += _line(line, number, across, up)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axis:
    def __init__(self, values: list[float], start: float, end: float) -> None:
        self._low, self._high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        self._high = max(self._high, self._low + 1)
        self._start, self._end = start, end

    @property
    def powers(self) -> range:
        return range(self._low, self._high + 1)

    def place(self, value: float) -> float:
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + part * (self._end - self._start)


def _line(line: Line, number: int, across: _Axis, up: _Axis) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    places = " ".join(f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in line.points)
    y = _TOP + 8 + 20 * number
    return [
        f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>',
        f'<rect x="{_WIDTH - _RIGHT + 18}" y="{y - 5}" width="14" height="4" fill="{colour}"/>',
        f'<text x="{_WIDTH - _RIGHT + 38}" y="{y + 1}">{escape(line.name)}</text>',
    ]
