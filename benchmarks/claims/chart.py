"""A line chart as SVG, with the range of every point."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 54, 170, 36, 40
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#e0a100", "#6f4e9c", "#5c5c5c")


class Line(NamedTuple):
    name: str
    values: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]


def line_chart(title: str, ticks: Sequence[str], lines: Sequence[Line]) -> str:
    """Lines over named ticks; a line with one point is drawn across as a dashed level."""
    top = max((high for line in lines for _, high in line.ranges.values()), default=1.0)
    step = next(size for size in (0.02, 0.05, 0.1, 0.2, 1.0) if top / size <= 6)
    limit = step * (int(top / step) + 1)

    def x(tick: str) -> float:
        return LEFT + 20 + ticks.index(tick) * (WIDTH - LEFT - RIGHT - 40) / (len(ticks) - 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / limit * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="13">{escape(title)}</text>',
    ]
    for number in range(int(limit / step) + 1):
        value = number * step
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            f'stroke="#ddd"/><text x="{LEFT - 8}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{value:.2f}</text>'
        )
    for tick in ticks:
        parts.append(
            f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 20}" '
            f'text-anchor="middle">{escape(tick)}</text>'
        )
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        points = [(x(tick), y(value)) for tick, value in line.values.items()]
        if len(points) == 1:
            level = points[0][1]
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}" '
                f'stroke="{colour}" stroke-dasharray="5 4"/>'
            )
        else:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            )
        for tick, (low, high) in line.ranges.items():
            parts.append(
                f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{y(low):.1f}" '
                f'y2="{y(high):.1f}" stroke="{colour}"/>'
            )
            parts.append(
                f'<circle cx="{x(tick):.1f}" cy="{y(line.values[tick]):.1f}" r="3" '
                f'fill="{colour}"/>'
            )
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 16}" y="{TOP + 20 * number}" width="10" height="10" '
            f'fill="{colour}"/><text x="{WIDTH - RIGHT + 32}" '
            f'y="{TOP + 20 * number + 9}">{escape(line.name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
