"""Widths as rungs: which there are, what is lost on each, and costs that are asked for once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_subprune.budget import Curve
from onnx_subprune.budget.ladder import Ladders, losses_of, rungs
from onnx_subprune.errors import InternalError

Make = Callable[..., Any]


def units(counts: dict[str, int]) -> float:
    return float(sum(counts.values()))


@pytest.mark.parametrize(
    ("size", "minimum", "own", "round_to", "expected"),
    [
        (5, 1, 1, 1, [1, 2, 3, 4, 5]),
        (5, 0, 1, 1, [0, 1, 2, 3, 4, 5]),
        (10, 3, 1, 4, [4, 8, 10]),
        (12, 1, 2, 3, [6, 12]),
        (3, 1, 1, 8, [3]),
        (8, 8, 1, 1, [8]),
    ],
)
def test_rungs_are_multiples_from_the_minimum_and_the_whole(
    make_lossy: Make, size: int, minimum: int, own: int, round_to: int, expected: list[int]
) -> None:
    curve = make_lossy("a", np.linspace(1, 0, size + 1), minimum=minimum, round_to=own)
    assert rungs(curve, round_to).tolist() == expected


def test_losses_are_weighted_and_raised_to_a_power(make_lossy: Make) -> None:
    curves = [make_lossy("a", [3.0, 2.0, 0.0]), make_lossy("b", [4.0, 1.0, 0.0])]
    ladders = Ladders(curves, units, weights={"a": 10.0, "b": 1.0}, power=2.0)
    assert ladders.losses[0].tolist() == [40.0, 0.0]
    assert ladders.losses[1].tolist() == [1.0, 0.0]
    assert ladders.loss((0, 0)) == 41.0
    assert ladders.loss(ladders.top) == 0.0


def test_states_and_counts_are_two_names_of_the_same(make_lossy: Make) -> None:
    ladders = Ladders([make_lossy("a", [3, 2, 1, 0]), make_lossy("b", [1, 0])], units)
    assert ladders.top == (2, 0)
    assert ladders.bottom == (0, 0)
    for state in ((0, 0), (1, 0), (2, 0)):
        assert ladders.state(ladders.counts(state)) == state


def test_a_width_between_two_rungs_is_the_lower_one(make_lossy: Make) -> None:
    ladders = Ladders([make_lossy("a", np.linspace(1, 0, 13))], units, round_to=4)
    assert [ladders.state({"a": count})[0] for count in (1, 4, 7, 8, 11, 12)] == [0, 0, 0, 1, 1, 2]


def test_a_cost_is_asked_for_once(make_lossy: Make) -> None:
    asked: list[dict[str, int]] = []

    def cost(counts: dict[str, int]) -> float:
        asked.append(dict(counts))
        return units(counts)

    ladders = Ladders([make_lossy("a", [2, 1, 0])], cost)
    assert [ladders.cost(state) for state in ((0,), (1,), (0,), (1,))] == [1.0, 2.0, 1.0, 2.0]
    assert asked == [{"a": 1}, {"a": 2}]
    assert ladders.calls == 2


def test_a_curve_without_losses_is_an_error_of_ours() -> None:
    with pytest.raises(InternalError, match="curve of group 'bare': expected losses"):
        losses_of(Curve("bare", 1, np.arange(1), np.array([0.0, 1.0])))


def test_no_groups_cost_what_nothing_costs() -> None:
    ladders = Ladders([], units)
    assert ladders.top == ladders.bottom == ()
    assert ladders.cost(()) == ladders.loss(()) == 0.0


def test_a_cost_beside_a_state_is_asked_of_the_one_group(make_lossy: Make) -> None:
    class Sum:
        def __init__(self) -> None:
            self.beside_asked: list[tuple[str, int]] = []

        def __call__(self, counts: dict[str, int]) -> float:
            return float(sum(counts.values()))

        def beside(self, counts: dict[str, int], group: str, width: int) -> float:
            self.beside_asked.append((group, width))
            return self({**counts, group: width})

    curves = [make_lossy(name, [3.0, 2.0, 1.0, 0.0]) for name in ("one", "two")]
    cost = Sum()
    ladders, plain = Ladders(curves, cost), Ladders(curves, lambda counts: float(sum(counts.values())))
    for _ in range(2):
        assert ladders.cost_beside((2, 1), 0, 0) == plain.cost_beside((2, 1), 0, 0) == plain.cost((0, 1))
    assert cost.beside_asked == [("one", int(ladders.widths[0][0]))]
    assert (ladders.calls, plain.calls) == (1, 1)


def test_a_cut_of_a_few_units_is_none() -> None:
    curve = Curve("g", 10, np.arange(10), np.linspace(0, 1, 11), minimum=5, least_cut=3)
    assert rungs(curve, 1).tolist() == [5, 6, 7, 10]
    assert rungs(curve, 4).tolist() == [10]
