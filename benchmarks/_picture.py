"""Lines over a logarithmic axis as an SVG file, with nothing but text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

__all__ = ["Line", "write_picture"]

_WIDTH, _HEIGHT = 800, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 270, 50, 60
# Told apart by those who see no red or green, too (Okabe and Ito 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


class Line(NamedTuple):
    """A name, and points (x, y) in order of x; x above 0."""

    name: str
    points: Sequence[tuple[float, float]]


def write_picture(path: Path, lines: Sequence[Line], *, title: str, x: str, y: str) -> None:
    """Write lines over log10 of x; y begins at 0."""
    path.write_text(picture(lines, title=title, x=x, y=y))


def picture(lines: Sequence[Line], *, title: str, x: str, y: str) -> str:
    """The SVG's text."""
    xs = [point[0] for line in lines for point in line.points]
    low, high = math.log10(min(xs)), math.log10(max(xs))
    step = _step(max(point[1] for line in lines for point in line.points))
    top = step * math.ceil(max(point[1] for line in lines for point in line.points) / step)

    def across(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log10(value) - low) / ((high - low) or 1)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        "<style>text { font: 13px sans-serif }</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="28" font-weight="bold">{escape(title)}</text>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 15}" text-anchor="middle">{escape(x)}</text>',
        f'<text transform="translate(18 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>',
    ]
    for number in range(round(top / step) + 1):
        at = up(number * step)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{number * step:,.0f}</text>')
    for power in range(math.ceil(low), math.floor(high) + 1):
        at = across(10.0**power)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{10**power:,}</text>')
    for index, line in enumerate(lines):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(f"{across(px):.1f},{up(py):.1f}" for px, py in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = _TOP + 20 * index + 10
        parts.append(f'<path d="M{_WIDTH - _RIGHT + 15} {at}h22" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 43}" y="{at + 4}">{escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _step(highest: float) -> float:
    """A round distance of lines, of which 4 to 10 reach the highest value."""
    power = 10.0 ** math.floor(math.log10(highest / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if highest / (power * factor) <= 10)
