from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from onnx_subprune.budget import affordable_uniform, blend, candidates, knapsack, neighbours
from onnx_subprune.budget.ladder import rungs
from onnx_subprune.errors import TargetError

Make = Callable[..., Any]


def units(counts: dict[str, int]) -> float:
    return float(sum(counts.values()))


@pytest.mark.parametrize("round_to", [1, 4])
def test_candidates_are_distinct_and_meet_the_target(make_problem: Make, round_to: int) -> None:
    for seed in range(5):
        problem = make_problem(seed, groups=8, largest=32)
        weights = {c.group: float(10 ** (i % 3)) for i, c in enumerate(problem.curves)}
        target = 0.5 * problem.cost({c.group: c.size for c in problem.curves})
        found = dict(candidates(problem.curves, problem.cost, target, weights, round_to))
        assert next(iter(found)) == "uniform"
        assert set(found) <= {
            "uniform",
            "cutoff",
            "loss",
            "relative",
            "root",
            "sensitivity",
            "loss+uniform",
            "sensitivity+uniform",
        }
        assert 4 <= len(found) == len({tuple(counts.values()) for counts in found.values()})
        for counts in found.values():
            assert problem.cost(counts) <= target
            assert all(counts[c.group] in rungs(c, round_to) for c in problem.curves)
        assert problem.loss(found["loss"]) == min(problem.loss(counts) for counts in found.values())


def test_each_candidate_is_best_by_its_own_measure(make_lossy: Make) -> None:
    large = make_lossy("large", [400.0, 100.0, 25.0, 6.0, 0.0])
    small = make_lossy("small", [4.0, 3.0, 2.0, 1.0, 0.0])
    found = dict(candidates([large, small], units, 5.0, {"large": 1.0, "small": 1000.0}))
    assert found["uniform"] == {"large": 3, "small": 2}
    assert found["loss"] == {"large": 4, "small": 1}
    assert found["cutoff"] == {"large": 1, "small": 4}
    assert not {"relative", "sensitivity"} & set(found)  # the same widths as those of the cut-off
    found = dict(candidates([large, small], units, 5.0, {"large": 1.0, "small": 20.0}))
    assert found["sensitivity"] == {"large": 2, "small": 3}


def test_an_allocation_that_was_found_already_is_not_found_again(
    make_problem: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(3)
    target = 0.5 * problem.cost({c.group: c.size for c in problem.curves})
    before = candidates(problem.curves, problem.cost, target)
    powers = []

    def counting(*given: Any, power: float) -> Any:
        powers.append(power)
        return knapsack(*given, power=power)

    # The package has a function of the module's name.
    monkeypatch.setattr(import_module("onnx_subprune.budget.candidates"), "knapsack", counting)
    loss = knapsack(problem.curves, problem.cost, target).counts
    assert candidates(problem.curves, problem.cost, target, loss=loss) == before
    assert powers == [1.0, 0.5], "relative losses, and their roots"


def test_without_losses_two_candidates_are_left(make_lossy: Make) -> None:
    bare = [replace(make_lossy(name, [9.0, 3.0, 1.0, 0.0]), loss=None) for name in ("a", "b")]
    assert [name for name, _ in candidates(bare, units, 3.0)] == ["uniform"]
    steep = replace(make_lossy("c", [9.0, 0.1, 0.05, 0.0]), loss=None)
    assert [name for name, _ in candidates([bare[0], steep], units, 4.0)] == ["uniform", "cutoff"]
    with pytest.raises(TargetError):
        candidates(bare, units, 1.0)


def test_a_blend_lies_between(make_lossy: Make) -> None:
    curves = [make_lossy(name, [0.0] * 21) for name in ("a", "b")]
    first, second = {"a": 18, "b": 2}, {"a": 10, "b": 10}
    assert blend(curves, first, second, units, 20.0) == {"a": 14, "b": 6}
    assert blend(curves, first, second, units, 20.0, share=0.25) == {"a": 16, "b": 4}
    assert blend(curves, first, second, units, 20.0, share=1.0) == second


def test_a_neighbour_gives_one_group_more_and_the_cheapest_pay(make_lossy: Make) -> None:
    steep, flat, mid = (
        make_lossy(name, np.arange(8, -1, -1) * slope) for name, slope in zip("sfm", (9, 1, 4), strict=True)
    )
    found = dict(neighbours([steep, flat, mid], {"s": 4, "f": 4, "m": 4}, units, 12.0, 0.25))
    assert found == {"s": {"s": 6, "f": 2, "m": 4}, "f": {"s": 4, "f": 6, "m": 2}, "m": {"s": 4, "f": 2, "m": 6}}
    found = dict(neighbours([steep, flat, mid], {"s": 4, "f": 4, "m": 4}, units, 12.0, -0.25))
    assert found == {"s": {"s": 2, "f": 4, "m": 6}, "f": {"s": 6, "f": 2, "m": 4}, "m": {"s": 6, "f": 4, "m": 2}}


def test_neighbours_stay_within_target_and_widths(make_problem: Make) -> None:
    for seed in range(10):
        problem = make_problem(seed, groups=6, largest=24)
        target = 0.5 * problem.cost({c.group: c.size for c in problem.curves})
        start = knapsack(problem.curves, problem.cost, target).counts
        for step in (0.01, 0.2, -0.1):
            for group, counts in neighbours(problem.curves, start, problem.cost, target, step):
                assert problem.cost(counts) <= target * (1 + 1e-9)
                assert (counts[group] > start[group]) == (step > 0)
                others = [c for c in problem.curves if c.group != group]
                assert all((counts[c.group] - start[c.group]) * step <= 0 for c in others)
                assert all(counts[c.group] in rungs(c, 1) for c in problem.curves)


def test_groups_that_cannot_change_have_no_neighbour(make_lossy: Make) -> None:
    curves = [make_lossy(name, [2.0, 1.0, 0.0]) for name in ("a", "b")]
    assert neighbours(curves, {"a": 2, "b": 1}, units, 3.0) == [("b", {"a": 1, "b": 2})]
    assert neighbours(curves, {"a": 2, "b": 2}, units, 4.0) == []
    assert affordable_uniform(curves, units, 3.0).counts == {"a": 2, "b": 1}
