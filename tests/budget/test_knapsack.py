"""The knapsack against brute force, against its starting points, and on curves where the answer is plain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnx_subprune.budget import Curve, affordable_uniform, cheapest_cutoff, drop_branches, knapsack, lost_without
from onnx_subprune.budget.exchange import Moves, choose
from onnx_subprune.budget.ladder import Ladders, rungs
from onnx_subprune.errors import InternalError, OptionError, TargetError

Make = Callable[..., Any]
QUARTERS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)


def units(counts: dict[str, int]) -> float:
    return float(sum(counts.values()))


@pytest.mark.parametrize("problems", [24, pytest.param(80, marks=pytest.mark.slow)])
def test_it_is_within_a_hair_of_the_optimum(make_problem: Make, problems: int) -> None:
    """Of small problems, at six targets each, nearly all are solved exactly, and none is far off."""
    excess = []
    for seed in range(problems):
        problem = make_problem(seed)
        costs, losses = problem.everything()
        for share in QUARTERS:
            target = costs.min() + share * (costs.max() - costs.min())
            found = knapsack(problem.curves, problem.cost, target)
            assert found.cost == problem.cost(found.counts) <= target
            best = losses[costs <= target].min()
            excess.append((problem.loss(found.counts) - best) / losses.max())
    assert np.min(excess) > -1e-12
    assert np.mean(np.array(excess) < 1e-9) > 0.99
    assert np.max(excess) < 0.01


@pytest.mark.parametrize("problems", [10, pytest.param(30, marks=pytest.mark.slow)])
def test_a_larger_target_never_loses_more(make_problem: Make, problems: int) -> None:
    for seed in range(problems):
        problem = make_problem(seed, largest=12)
        top = problem.cost({c.group: c.size for c in problem.curves})
        least = problem.cost({c.group: int(rungs(c, 1)[0]) for c in problem.curves})
        targets = np.linspace(least, top, 15)
        losses = [problem.loss(knapsack(problem.curves, problem.cost, t).counts) for t in targets]
        assert (np.diff(losses) <= 1e-9).all()
        assert losses[-1] == 0.0


@pytest.mark.parametrize("round_to", [1, 4])
def test_it_is_never_worse_than_uniform_or_one_cutoff(make_problem: Make, round_to: int) -> None:
    for seed in range(10):
        problem = make_problem(seed, groups=12, largest=40)
        target = 0.5 * problem.cost({c.group: c.size for c in problem.curves})
        found = knapsack(problem.curves, problem.cost, target, round_to=round_to)
        assert found.cost <= target
        for c in problem.curves:
            assert found.counts[c.group] in rungs(c, round_to)
        for other in (affordable_uniform, cheapest_cutoff):
            counts = other(problem.curves, problem.cost, target, round_to=round_to).counts
            assert problem.loss(found.counts) <= problem.loss(counts)


def test_dead_units_go_first_and_steep_groups_stay(make_lossy: Make) -> None:
    dead = make_lossy("dead", [1.0, 0.0, 0.0, 0.0, 0.0])
    needed = make_lossy("needed", [40.0, 30.0, 20.0, 10.0, 0.0])
    assert knapsack([dead, needed], units, 5.0).counts == {"dead": 1, "needed": 4}
    assert knapsack([dead, needed], units, 8.0).counts == {"dead": 4, "needed": 4}


def test_a_flat_then_steep_curve_is_looked_past(make_lossy: Make) -> None:
    """The first unit of `cliff` costs most of its loss and the others nothing: all or none."""
    cliff = make_lossy("cliff", [10.0, 10.0, 10.0, 10.0, 0.0])
    slope = make_lossy("slope", [12.0, 9.0, 6.0, 3.0, 0.0])
    assert knapsack([cliff, slope], units, 5.0).counts == {"cliff": 4, "slope": 1}
    assert knapsack([cliff, slope], units, 4.0).counts == {"cliff": 1, "slope": 3}


def test_weights_power_and_floor_change_what_is_best(make_lossy: Make) -> None:
    curves = [make_lossy(name, [8.0, 4.0, 2.0, 1.0, 0.0]) for name in ("a", "b")]
    assert knapsack(curves, units, 5.0, {"a": 1.0, "b": 100.0}).counts == {"a": 1, "b": 4}
    assert knapsack(curves, units, 6.0, power=4.0).counts == {"a": 3, "b": 3}
    assert sorted(knapsack(curves, units, 5.0, power=0.1).counts.values()) == [1, 4]
    assert knapsack(curves, units, 5.0, {"a": 1.0, "b": 100.0}, floor=0.5).counts == {"a": 2, "b": 3}


def test_a_target_out_of_reach_or_without_sense(make_lossy: Make) -> None:
    curves = [make_lossy("a", [2.0, 1.0, 0.0]), make_lossy("b", [2.0, 1.0, 0.0], minimum=2)]
    with pytest.raises(TargetError, match="smallest widths cost 3") as caught:
        knapsack(curves, units, 2.0)
    assert caught.value.nearest == 3.0
    with pytest.raises(OptionError, match="NaN"):
        knapsack(curves, units, float("nan"))
    with pytest.raises(OptionError, match="multiples"):
        knapsack(curves, units, 3.0, round_to=0)
    with pytest.raises(InternalError, match="expected losses"):
        knapsack([*curves, Curve("bare", 1, np.arange(1), np.array([0.0, 1.0]))], units, 4.0)
    assert knapsack([], units, 1.0).counts == {}


def test_whole_branches_go_with_it_too(make_lossy: Make) -> None:
    """At one unit each, `a` still saves 1 and `b` 3: `a` goes."""
    curves = [make_lossy("a", [5.0, 4.0, 0.0]), make_lossy("b", [4.0, 1.0, 0.0]), make_lossy("c", [9.0, 0.5, 0.0])]
    found = drop_branches(curves, units, 2.0, lambda _: True, allocate=knapsack, worth=lost_without)
    assert found.counts == {"a": 0, "b": 1, "c": 1}
    found = drop_branches(curves, units, 2.0, lambda names: "a" not in names, allocate=knapsack, worth=lost_without)
    assert found.counts == {"a": 1, "b": 0, "c": 1}
    assert drop_branches(curves, units, 4.0, lambda _: True, allocate=knapsack).counts["a"] == 2


def test_it_asks_for_the_cost_at_most_a_few_thousand_times(make_problem: Make) -> None:
    problem = make_problem(3, groups=60, largest=400)
    asked = 0

    def cost(counts: dict[str, int]) -> float:
        nonlocal asked
        asked += 1
        return float(problem.cost(counts))

    target = 0.5 * problem.cost({c.group: c.size for c in problem.curves})
    once = knapsack(problem.curves, cost, target)
    assert asked < 5000
    assert problem.loss(once.counts) < 0.8 * problem.loss(cheapest_cutoff(problem.curves, cost, target).counts)


def test_it_chooses_alike_twice(make_problem: Make) -> None:
    problem = make_problem(3, groups=20, largest=60)
    target = 0.5 * problem.cost({c.group: c.size for c in problem.curves})
    assert knapsack(problem.curves, problem.cost, target) == knapsack(problem.curves, problem.cost, target)


def test_ladders_know_their_widths(make_lossy: Make) -> None:
    curve = make_lossy("a", list(range(10, -1, -1)), minimum=3)
    assert rungs(curve, 4).tolist() == [4, 8, 10]
    assert rungs(make_lossy("a", [2.0, 1.0, 0.0]), 8).tolist() == [2]
    ladders = Ladders([curve], units, round_to=4)
    assert ladders.state({"a": 8}) == ladders.state({"a": 9}) == (1,)
    assert ladders.state({"a": 1}) == ladders.bottom == (0,)
    assert [ladders.cost(state) for state in ((0,), (2,), (0,))] == [4.0, 10.0, 4.0]
    assert ladders.calls == 2


def test_choices_are_exact_where_costs_are_sums() -> None:
    """Spend 3: the two units of `a` save 5 for 2, the third thing of `b` saves 4 for 3."""
    a = Moves(np.array([0, 1, 2]), np.array([0.0, 1.0, 2.0]), np.array([5.0, 4.0, 0.0]))
    b = Moves(np.array([0, 1, 2]), np.array([-1.0, 0.0, 3.0]), np.array([5.0, 4.0, 0.0]))
    assert choose([a, b], 1.0) == (2, 0)
    assert choose([a, b], 2.0) == (2, 1)
    assert choose([a, b], 3.0) == (2, 1)
    assert choose([a, b], 5.0) == (2, 2)
    assert choose([a, b], -1.0) == (0, 0)
    assert choose([a, b], -1.5) is None


def test_a_group_goes_as_a_whole_where_its_minimum_is_none(make_lossy: Make) -> None:
    """Units of `branch` are worth less than any of `stem`, and without the branch there is room for all of them."""
    stem = make_lossy("stem", [90.0, 60.0, 40.0, 20.0, 0.0])
    for minimum, expected in ((0, {"stem": 4, "branch": 0}), (1, {"stem": 3, "branch": 1})):
        branch = make_lossy("branch", [3.0, 2.0, 1.0, 0.5, 0.0], minimum=minimum)
        assert knapsack([stem, branch], units, 4.0).counts == expected


def test_groups_that_cannot_go_together_do_not(make_lossy: Make) -> None:
    one, other = (make_lossy(name, [1.0, 0.9, 0.0], minimum=0) for name in ("one", "other"))

    def cost(counts: dict[str, int]) -> float:
        return units(counts) if any(counts.values()) else float("inf")

    assert sum(knapsack([one, other], cost, 2.0).counts.values()) == 2
    with pytest.raises(TargetError):
        knapsack([one, other], cost, 0.5)


def test_groups_that_could_go_anyway_go_as_far_as_they_can_go_together(make_lossy: Make) -> None:
    """No more than one of them may go; at a unit each all three cost more than the target."""
    curves = [replace(make_lossy(name, [9.0, 1.0, 0.0]), minimum=0) for name in "abc"]

    def cost(counts: dict[str, int]) -> float:
        return units(counts) if list(counts.values()).count(0) < 2 else math.inf

    def removable(names: list[str]) -> bool:
        return len(names) < 2

    found = drop_branches(curves, cost, 2.0, removable, allocate=knapsack, worth=lost_without)
    assert sorted(found.counts.values()) == [0, 1, 1]
    found = drop_branches(curves, units, 0.0, lambda _: True, allocate=knapsack, worth=lost_without)
    assert sum(found.counts.values()) == 0
    found = drop_branches([*curves[:2], replace(curves[2], minimum=1)], units, 0.0, lambda _: True)
    assert sum(found.counts.values()) == 0
