"""Curves with losses, and costs in which widths multiply, made at random."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from onnx_subprune.budget import Cost, Counts, Curve
from onnx_subprune.budget.ladder import rungs


def lossy(group: str, loss: list[float] | np.ndarray, **options: int) -> Curve:
    """A curve with these losses; its share of variance is the share of loss that is avoided."""
    loss = np.asarray(loss, dtype=np.float64)
    share = 1.0 - loss / loss[0] if loss[0] else np.ones(len(loss))
    share[0], share[-1] = 0.0, 1.0
    return Curve(group, len(loss) - 1, np.arange(len(loss) - 1), share, loss=loss, **options)


@dataclass(frozen=True)
class Problem:
    curves: list[Curve]
    cost: Cost

    def loss(self, counts: Counts) -> float:
        return sum(float(c.loss[counts[c.group]]) for c in self.curves if c.loss is not None)

    def everything(self) -> tuple[np.ndarray, np.ndarray]:
        """Costs and losses of all choices of widths."""
        names = [c.group for c in self.curves]
        all_widths = itertools.product(*(rungs(c, 1).tolist() for c in self.curves))
        found = [dict(zip(names, widths, strict=True)) for widths in all_widths]
        return np.array([self.cost(one) for one in found]), np.array([self.loss(one) for one in found])


def _steps(rng: np.random.Generator, size: int) -> np.ndarray:
    """What each unit adds, convex, concave, with dead units, or uneven."""
    steps = rng.random(size) ** 3 * 10 ** rng.uniform(-1, 1)
    kind = rng.integers(4)
    if kind < 2:
        return np.sort(steps)[:: -1 if kind else 1]
    return np.where(rng.random(size) < 0.4, 0.0, steps) if kind == 2 else steps


def _cost(rng: np.random.Generator, names: list[str]) -> Cost:
    """A sum, a chain of products, or a chain with a square in it (a residual stream)."""
    kind = rng.integers(3)
    single = 3 * rng.random(len(names)) if kind < 2 else np.zeros(len(names))
    pairs = np.diag(2 * rng.random(len(names) - 1), 1) if kind else np.zeros((len(names), len(names)))
    if kind == 2:
        single[-1], pairs[0, 0] = 0.1, rng.random()

    def cost(counts: Counts) -> float:
        widths = np.array([counts[name] for name in names], dtype=np.float64)
        return float(single @ widths + widths @ pairs @ widths)

    return cost


def problem(seed: int, groups: int | None = None, largest: int = 6) -> Problem:
    rng = np.random.default_rng(seed)
    curves = []
    for i in range(groups or int(rng.integers(2, 6))):
        steps = _steps(rng, int(rng.integers(2, largest + 1)))
        loss = np.append(np.cumsum(steps[::-1])[::-1], 0.0)
        curves.append(lossy(f"g{i}", loss, round_to=int(rng.choice([1, 1, 2]))))
    return Problem(curves, _cost(rng, [c.group for c in curves]))


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    """`make_problem(seed, groups, largest)`: curves and a cost."""
    return problem


@pytest.fixture
def make_lossy() -> Callable[..., Curve]:
    """`make_lossy(group, loss, **options)`: a curve with these losses."""
    return lossy
