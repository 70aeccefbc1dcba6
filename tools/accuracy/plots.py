"""Line plots as SVG, written by hand: small, the same bytes for the same figures, and nothing to install."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Line", "plot"]

WIDTH, HEIGHT = 800, 460
LEFT, RIGHT, TOP, BOTTOM = 56, 270, 16, 44
# Okabe and Ito's colours, which stay apart for all eyes, but for their yellow, too pale on white; then three more.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00", "#8c564b", "#7f7f7f", "#6a3d9a")
DASHES = ("", "6 3", "2 3")
MARGIN = 0.04


@dataclass(frozen=True)
class Line:
    """A method's points (share of the MACs, metric), its colour by number, and its dashes."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dashes: int = 0


@dataclass(frozen=True)
class _Scale:
    """Values between `low` and `high` onto pixels from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(x) if self.logarithmic else x for x in (self.low, self.high, value))
        return self.start + (self.stop - self.start) * (at - low) / (high - low)

    def ticks(self) -> list[float]:
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        else:
            rough = (self.high - self.low) / 5
            power = 10.0 ** math.floor(math.log10(rough))
            step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
            first = math.ceil(self.low / step - 1e-9)
            found = [round(number * step, 10) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [each for each in found if self.low <= each <= self.high]


def plot(lines: Sequence[Line], x_label: str, y_label: str, *, logarithmic: bool = False) -> str:
    """Draw lines with a legend; the vertical axis is logarithmic where figures span decades."""
    across = _scale([x for line in lines for x, _ in line.points], LEFT, WIDTH - RIGHT)
    upward = _scale([y for line in lines for _, y in line.points], HEIGHT - BOTTOM, TOP, logarithmic=logarithmic)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_axes(across, upward, x_label, y_label),
        *(part for number, line in enumerate(lines) for part in _line(number, line, across, upward)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _scale(values: Sequence[float], start: float, stop: float, *, logarithmic: bool = False) -> _Scale:
    low, high = min(values), max(values)
    if logarithmic:
        room = (high / low) ** MARGIN if high > low else 1.1
        return _Scale(low / room, high * room, start, stop, logarithmic=True)
    room = MARGIN * (high - low) or 1.0
    return _Scale(low - room, high + room, start, stop)


def _axes(across: _Scale, upward: _Scale, x_label: str, y_label: str) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in upward.ticks():
        y = f"{upward(tick):.1f}"
        parts.append(f'<path d="M{LEFT} {y}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{tick:g}</text>')
    for tick in across.ticks():
        x = f"{across(tick):.1f}"
        parts.append(f'<path d="M{x} {TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#000"/>')
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text transform="translate(14 {(TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return parts


def _line(number: int, line: Line, across: _Scale, upward: _Scale) -> list[str]:
    colour = COLOURS[line.colour % len(COLOURS)]
    dashes = f' stroke-dasharray="{DASHES[line.dashes]}"' if line.dashes else ""
    style = f'stroke="{colour}" stroke-width="2"{dashes}'
    spots = [(f"{across(x):.1f}", f"{upward(y):.1f}") for x, y in sorted(line.points)]
    path = "L".join(f"{x} {y}" for x, y in spots)
    left, y = WIDTH - RIGHT + 14, TOP + 10 + 18 * number
    return [
        f'<path d="M{path}" fill="none" {style}/>',
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in spots),
        f'<path d="M{left} {y}h26" {style}/>',
        f'<text x="{left + 32}" y="{y}" dy="4">{escape(line.label)}</text>',
    ]
