"""How much of the code has types that are known: expressions without `Any`, by package, from a report of mypy.

What counts is the type of the whole expression, as mypy counts it: an array of some element type is known, an element
taken out of it is not.

    mypy --any-exprs-report FOLDER && python tools/typed.py FOLDER

The exit status is 1 if a package has fewer of them than it must have.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ALL = "all"
LEAST = {ALL: 0.97, "model": 0.97, "passes": 0.97, "structure": 0.97}
"""The share that has to be known, over all and by package."""


@dataclass(frozen=True)
class Typed:
    """How many expressions there are, and the type of how many is `Any`."""

    untyped: int = 0
    expressions: int = 0

    def __add__(self, other: Typed) -> Typed:
        return Typed(self.untyped + other.untyped, self.expressions + other.expressions)

    @property
    def share(self) -> float:
        """The share of expressions whose type is known."""
        return 1 - self.untyped / self.expressions if self.expressions else 1.0


def read(folder: Path) -> dict[str, Typed]:
    """Return the counts by top-level package or module, and over all, of a folder that mypy has written."""
    counts: dict[str, Typed] = {ALL: Typed()}
    for module, count in _modules(folder / "any-exprs.txt"):
        _, _, inner = module.partition(".")
        room = inner.partition(".")[0] or "__init__"
        counts[room] = counts.get(room, Typed()) + count
        counts[ALL] += count
    return counts


def _modules(report: Path) -> Iterator[tuple[str, Typed]]:
    for line in report.read_text(encoding="utf-8").splitlines():
        name, *figures = line.split()
        if len(figures) == 3 and figures[-1].endswith("%") and name != "Total":
            yield name, Typed(int(figures[0]), int(figures[1]))


def lacking(counts: Mapping[str, Typed]) -> list[str]:
    """Return a line for every package that has fewer known types than it must have."""
    shares = {room: counts[room].share if room in counts else 0.0 for room in LEAST}
    return [
        f"{room}: {shares[room]:.2%} of the expressions have a known type, {least:.0%} expected"
        for room, least in LEAST.items()
        if shares[room] < least
    ]


def table(counts: Mapping[str, Typed]) -> str:
    """Return one line for each package."""
    lines = [f"{'package':14} {'expressions':>11} {'Any':>6} {'known':>8}"]
    for room, count in sorted(counts.items(), key=lambda item: (item[0] == ALL, item[0])):
        lines.append(f"{room:14} {count.expressions:11} {count.untyped:6} {count.share:8.2%}")
    return "\n".join(lines)


def main() -> int:
    counts = read(Path(sys.argv[1]))
    print(table(counts))
    for line in lacking(counts):
        print(line, file=sys.stderr)
    return 1 if lacking(counts) else 0


if __name__ == "__main__":
    sys.exit(main())
