"""Draw the floors of the package, as the contract on imports in `pyproject.toml` has them: docs/floors.svg.

    python tools/draw_floors.py

A floor is a row and a package a box in it. Numbers in the boxes are the stages of a run, in their order.
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "floors.svg"

WORDS = {
    "cli": "commands, their options and exit codes",
    "pipeline": "prune, apply, calibrate: the whole run, top to bottom",
    "factorisation": "the low-rank baseline",
    "result": "everything a run gives back",
    "planning": "from statistics to a plan: curves, widths, time",
    "recovery": "from a plan to the smaller network; exact/ fits layer after layer",
    "network": "a model taken apart, its taps, its rewrites, its oracle",
    "report": "tables, the page and figures, made from documents",
    "latency": "kernels and clocks: how long networks take here",
    "evaluate": "error, accuracy, time and memory, measured",
    "passes": "edits of the graph, one pass a file",
    "plan": "which units stay, as a file",
    "options": "every choice of the user",
    "budget": "sharing a target",
    "subspace": "orderings, least squares",
    "calibration": "data in, Gram matrices out",
    "structure": "groups of units: axes/ is the algebra, rules/ the operators",
    "demo": "the model in the package",
    "model": "files, graphs, sessions, costs",
    "noise": "what libraries print by themselves goes to the log",
    "cleanup": "what must not stay",
    "errors": "one line each",
    "formatting": "numbers, names",
    "progress": "phases",
    "threads": "cores",
}
STAGES = (
    ("load", "model"),
    ("normalise", "network"),
    ("structure", "structure"),
    ("calibrate", "calibration"),
    ("rank", "subspace"),
    ("measure", "evaluate"),
    ("time", "latency"),
    ("budget", "budget"),
    ("plan", "planning"),
    ("shrink", "passes"),
    ("recover", "recovery"),
    ("verify", "network"),
    ("report", "report"),
    ("save", "model"),
)
"""The stages of a run and the package that does most of each."""

WIDTH, MARGIN, GAP = 980, 20, 10
TOP, ROW, HEIGHT = 78, 56, 46
LEFT = MARGIN + 34
INK, QUIET, PAPER, BOX, EDGE, BADGE = "#1c2733", "#51606f", "#ffffff", "#eef3f8", "#8fa3b7", "#1f6feb"


def floors(text: str) -> list[list[str]]:
    """Return the packages of every floor, from the top, out of the text of a `pyproject.toml`."""
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in layer.replace(":", "|").split("|")] for layer in layers]


def picture(rows: list[list[str]]) -> str:
    """Return the drawing as SVG, the same for the same floors."""
    height = TOP + ROW * len(rows) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>The floors of onnx_subprune: imports point down, numbers are the stages of a run</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        *_legend(),
        *_arrow(height),
    ]
    for row, names in enumerate(rows):
        width = (WIDTH - LEFT - MARGIN - GAP * (len(names) - 1)) / len(names)
        for column, name in enumerate(names):
            parts += _box(name, LEFT + column * (width + GAP), TOP + row * ROW, width)
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> list[str]:
    half = (len(STAGES) + 1) // 2
    lines = []
    for line, stages in enumerate((STAGES[:half], STAGES[half:])):
        for column, (stage, _) in enumerate(stages):
            x, y = LEFT + 11 + column * (WIDTH - LEFT - MARGIN) / half, 20 + 26 * line
            lines += [*_badge(x, y, line * half + column + 1), _text(x + 18, y + 4, stage, 13, INK)]
    return lines


def _arrow(height: int) -> list[str]:
    x, bottom = MARGIN + 8, height - MARGIN - 8
    middle = (TOP + bottom) // 2
    return [
        f'<path d="M{x} {TOP}V{bottom - 8}" stroke="{EDGE}" stroke-width="2"/>',
        f'<path d="M{x - 5} {bottom - 10}h10l-5 10z" fill="{EDGE}"/>',
        f'<text transform="translate({x + 16} {middle}) rotate(-90)" text-anchor="middle" font-size="12" '
        f'fill="{QUIET}">imports point down</text>',
    ]


def _box(name: str, x: float, y: float, width: float) -> list[str]:
    numbers = [number for number, (_, package) in enumerate(STAGES, 1) if package == name]
    badges = [
        part
        for place, number in enumerate(reversed(numbers))
        for part in _badge(x + width - 18 - 25 * place, y + 16, number)
    ]
    return [
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" rx="5" fill="{BOX}" stroke="{EDGE}"/>',
        _text(x + 12, y + 19, name, 15, INK, bold=True),
        _text(x + 12, y + 37, WORDS[name], 12, QUIET),
        *badges,
    ]


def _badge(x: float, y: float, number: int) -> list[str]:
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11" fill="{BADGE}"/>',
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" font-size="12" font-weight="bold" '
        f'fill="{PAPER}">{number}</text>',
    ]


def _text(x: float, y: float, words: str, size: int, colour: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{weight} fill="{colour}">{escape(words)}</text>'


def main() -> None:
    """Write the picture beside the documentation."""
    PICTURE.write_text(picture(floors((ROOT / "pyproject.toml").read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
