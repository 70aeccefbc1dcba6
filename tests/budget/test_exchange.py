"""Groups that give and take at once: the model is a sum of changes, the answer is held to the real cost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_subprune.budget.exchange import Moves, choose, improve, moves_within, settle
from onnx_subprune.budget.ladder import Ladders

Make = Callable[..., Any]


def units(counts: dict[str, int]) -> float:
    return float(sum(counts.values()))


def moves(rng: np.random.Generator, count: int) -> Moves:
    """A group's rungs, whose costs rise and losses fall."""
    return Moves(np.arange(count), np.sort(rng.uniform(-4, 4, count)), np.sort(rng.uniform(0, 20, count))[::-1])


@pytest.mark.parametrize("seed", range(20))
def test_choices_are_those_of_an_exhaustive_search(seed: int) -> None:
    """To within the grid that costs are rounded to, of 2,048 steps."""
    rng = np.random.default_rng(seed)
    groups = [moves(rng, int(rng.integers(2, 6))) for _ in range(4)]
    states = list(itertools.product(*(range(len(group.rungs)) for group in groups)))
    costs = {s: sum(g.change[rung] for g, rung in zip(groups, s, strict=True)) for s in states}
    losses = {s: sum(g.loss[rung] for g, rung in zip(groups, s, strict=True)) for s in states}
    for slack in (min(costs.values()) + 0.5, 0.0, 3.0, 20.0):
        most = min(slack, max(costs.values()))
        grid = (most - min(costs.values())) * len(groups) / 2048
        found = choose(groups, slack)
        assert found is not None
        assert costs[found] <= slack + grid
        assert losses[found] <= min(losses[s] for s in states if costs[s] <= most - grid)
    assert choose(groups, min(costs.values()) - 0.5) is None


def test_what_is_infinitely_dear_is_not_taken() -> None:
    group = Moves(np.arange(3), np.array([0.0, 1.0, np.inf]), np.array([5.0, 3.0, 0.0]))
    assert choose([group], 1e6) == (1,)


def test_rungs_within_a_reach_are_priced_by_what_they_really_change(make_lossy: Make) -> None:
    ladders = Ladders([make_lossy("a", [9, 6, 4, 1, 0]), make_lossy("b", [5, 2, 0])], lambda c: c["a"] * c["b"] * 1.0)
    found = moves_within(ladders, (1, 1), 0, 0, 3)
    assert found.rungs.tolist() == [0, 1, 2, 3]
    # At two units of `b` each unit of `a` costs two.
    np.testing.assert_allclose(found.change, [-2.0, 0.0, 2.0, 4.0])
    np.testing.assert_allclose(found.loss, [6.0, 4.0, 1.0, 0.0])


def test_a_rung_that_would_take_the_last_unit_away_is_left_out(make_lossy: Make) -> None:
    curves = [make_lossy(name, [9, 4, 0], minimum=0) for name in "ab"]
    ladders = Ladders(curves, lambda counts: units(counts) if any(counts.values()) else float("inf"))
    assert moves_within(ladders, (1, 0), 0, 0, 2).rungs.tolist() == [1, 2]
    assert moves_within(ladders, (1, 1), 0, 0, 2).rungs.tolist() == [0, 1, 2]


def test_many_rungs_are_thinned_out_near_ones_kept(make_lossy: Make) -> None:
    ladders = Ladders([make_lossy("a", np.linspace(1, 0, 401))], units)
    rungs = moves_within(ladders, (200,), 0, 0, 399).rungs
    assert len(rungs) <= 34
    assert set(range(196, 205)) <= set(rungs.tolist())
    assert {0, 399} <= set(rungs.tolist())


def test_where_the_sum_says_too_little_less_is_spent(make_lossy: Make) -> None:
    """Both factors of a product grow: the real cost is above the sum of changes, so that a smaller step is taken."""
    curves = [make_lossy(name, [9, 6, 4, 1, 0]) for name in "ab"]
    ladders = Ladders(curves, lambda counts: float(counts["a"] * counts["b"]))
    state, limit = (0, 0), 9.0
    reach = [moves_within(ladders, state, group, 0, 3) for group in range(2)]
    found = settle(ladders, reach, limit - ladders.cost(state), limit)
    assert found is not None
    assert ladders.cost(found) <= limit
    assert ladders.loss(found) < ladders.loss(state)


def test_nothing_is_within_a_limit_below_everything(make_lossy: Make) -> None:
    ladders = Ladders([make_lossy("a", [9, 6, 0])], units)
    assert settle(ladders, [moves_within(ladders, (0,), 0, 0, 1)], -5.0, -4.0) is None


@pytest.mark.parametrize("seed", range(8))
def test_a_state_is_only_ever_improved(make_problem: Make, seed: int) -> None:
    problem = make_problem(seed, groups=6, largest=12)
    ladders = Ladders(problem.curves, problem.cost)
    limit = 0.5 * (ladders.cost(ladders.bottom) + ladders.cost(ladders.top))
    better = improve(ladders, ladders.bottom, limit, 2000)
    assert ladders.cost(better) <= limit
    assert ladders.loss(better) < ladders.loss(ladders.bottom)
    again = improve(ladders, better, limit, 4000)
    assert ladders.cost(again) <= limit
    assert ladders.loss(again) <= ladders.loss(better)


def test_the_cost_is_asked_for_about_as_often_as_allowed(make_problem: Make) -> None:
    problem = make_problem(1, groups=10, largest=30)
    ladders = Ladders(problem.curves, problem.cost)
    limit = 0.5 * (ladders.cost(ladders.bottom) + ladders.cost(ladders.top))
    improve(ladders, ladders.bottom, limit, 100)
    assert ladders.calls < 250
