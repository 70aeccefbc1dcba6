"""The widths that lose least for what they cost.

Every group has a curve of losses, and the cost is any function of all widths that does not fall when one grows. Widths
multiply in it (the MACs of a layer are the product of its inputs and outputs), so this is no textbook knapsack and has
no quick exact answer. Three simple allocations are improved as far as `exchange` can, and the best of what comes out is
taken: the same share everywhere, one cut-off for all, and the smallest widths. So it is never worse than the first two.

From the best widths at which every group keeps a unit, groups whose minimum is 0 may then go as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx_subprune.budget.allocate import Allocation, Cost, cheapest_cutoff, limit_of
from onnx_subprune.budget.curves import Curve, never_empty
from onnx_subprune.budget.exchange import improve
from onnx_subprune.budget.ladder import Ladders, State, losses_of
from onnx_subprune.budget.proportional import affordable_uniform

__all__ = ["CALLS", "knapsack", "lost_without"]

CALLS = 4000


def knapsack(
    curves: Sequence[Curve],
    cost: Cost,
    target_cost: float,
    weights: Mapping[str, float] | None = None,
    round_to: int = 1,
    *,
    power: float = 1.0,
    floor: float = 0.0,
    calls: int = CALLS,
) -> Allocation:
    """Find the widths of least `sum of weight * loss ** power` whose cost is within the target.

    Args:
        curves: one per group, with losses.
        cost: of the network with the given widths; must not fall when a width grows. Infinite where groups cannot lose
            all their units together.
        target_cost: the largest cost allowed, in the units of `cost`.
        weights: of the groups' losses, 0 or more; all 1 by default.
        round_to: widths are multiples of this (and of the curve's own) or the full size.
        power: of the losses; below 1 it spreads the loss over fewer groups, above 1 over more.
        floor: the least share of units that any group keeps.
        calls: about how often `cost` may be asked; the search stops then, with the best found so far.

    Raises:
        InternalError: a curve has no losses.
        OptionError: the target is NaN or `round_to` below 1.
        TargetError: even the minimum widths cost more; `nearest` is their cost.

    """
    free = [replace(c, minimum=max(c.minimum, math.ceil(floor * c.size - 1e-9))) for c in curves]
    nonempty = never_empty(free)
    starts = [affordable_uniform(nonempty, cost, target_cost, round_to=round_to)]
    starts.append(cheapest_cutoff(nonempty, cost, target_cost, round_to))
    ladders = Ladders(nonempty, cost, weights=weights, power=power, round_to=round_to)
    best = _least_loss_state(ladders, [ladders.state(start.counts) for start in starts], limit_of(target_cost), calls)
    counts = ladders.counts(best)
    if any(not curve.minimum for curve in free):
        ladders = Ladders(free, cost, weights=weights, power=power, round_to=round_to)
        best = improve(ladders, ladders.state(counts), limit_of(target_cost), calls)
    return Allocation(ladders.counts(best), None, ladders.cost(best))


def lost_without(curve: Curve, count: int) -> float:
    """The loss of a group's last units.

    Args:
        curve: of the group, with losses.
        count: how many units are left of it.

    >>> import numpy as np
    >>> curve = Curve("conv1", 2, np.array([1, 0]), np.array([0.0, 0.7, 1.0]), loss=np.array([4.0, 1.0, 0.0]))
    >>> lost_without(curve, 1)
    3.0

    """
    return float(losses_of(curve)[0] - losses_of(curve)[count])


def _least_loss_state(ladders: Ladders, starts: Sequence[State], limit: float, calls: int) -> State:
    """The state of least loss that the search finds from any start, the smallest and full widths among them."""
    if ladders.cost(ladders.top) <= limit:
        return ladders.top
    improved = [improve(ladders, start, limit, calls) for start in (*starts, ladders.bottom)]
    return min(improved, key=ladders.loss)
