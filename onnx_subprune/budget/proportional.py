"""Widths in given proportions, as large as a target cost affords: the same share of every group, for one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnx_subprune.budget.allocate import Allocation, Cost, Counts, cost_beside, largest, limit_of, width_of
from onnx_subprune.budget.curves import Curve
from onnx_subprune.budget.ladder import rungs

__all__ = ["affordable_uniform", "in_proportion"]


def affordable_uniform(curves: Sequence[Curve], cost: Cost, target_cost: float, *, round_to: int = 1) -> Allocation:
    """The largest share of units, the same in every group, that the target affords.

    Args:
        curves: one per group.
        cost: of the network with the given widths; must not fall when a width grows.
        target_cost: the largest cost allowed, in the units of `cost`.
        round_to: widths are multiples of this (and of the curve's own) or the full size.

    Raises:
        OptionError, TargetError: as `in_proportion`.

    >>> curves = [Curve(name, 8, np.arange(8), np.linspace(0, 1, 9)) for name in ("conv1", "conv2")]
    >>> affordable_uniform(curves, lambda widths: widths["conv1"] * widths["conv2"] / 64, 0.25).counts
    {'conv1': 4, 'conv2': 4}

    """
    return in_proportion(curves, {c.group: c.size for c in curves}, cost, target_cost, round_to=round_to)


def in_proportion(
    curves: Sequence[Curve], towards: Mapping[str, float], cost: Cost, target_cost: float, *, round_to: int = 1
) -> Allocation:
    """The largest widths in these proportions that the target affords.

    The rest of the budget widens single groups by one step, those first that would be next if all grew.

    Args:
        curves: one per group.
        towards: widths that the result is proportional to, but for rounding, minimum widths and full groups.
        cost: of the network with the given widths; must not fall when a width grows.
        target_cost: the largest cost allowed, in the units of `cost`.
        round_to: widths are rounded up to multiples of this (and of the curve's own), never above the size.

    Raises:
        OptionError: the target is NaN or `round_to` below 1.
        TargetError: even the minimum widths cost more; `nearest` is their cost.

    >>> curves = [Curve(name, 8, np.arange(8), np.linspace(0, 1, 9)) for name in ("a", "b")]
    >>> in_proportion(curves, {"a": 6, "b": 2}, lambda counts: counts["a"] + counts["b"], 8).counts
    {'a': 6, 'b': 2}

    """
    # A width is rounded to k from the scale on at which the exact one is k - 1/2.
    rising = [(np.arange(1, c.size + 1) - 0.5) / towards[c.group] for c in curves if towards[c.group] > 0.0]
    scales = [0.0, *np.unique(np.concatenate([[], *rising])).tolist()]

    def widths(scale: float) -> Counts:
        exact = {c.group: min(float(c.size), scale * towards[c.group]) for c in curves}
        return {c.group: width_of(c, math.floor(exact[c.group] + 0.5 + 1e-9), round_to) for c in curves}

    _, counts = largest(scales, widths, cost, target_cost, round_to)
    for group, width in _next(curves, counts, towards, round_to):
        if cost_beside(cost, counts, group, width) <= limit_of(target_cost):
            counts = {**counts, group: width}
    return Allocation(counts, None, float(cost(counts)))


def _next(
    curves: Sequence[Curve], counts: Counts, towards: Mapping[str, float], round_to: int
) -> list[tuple[str, int]]:
    """The next wider width of every group that has one, in the order in which a growing scale reaches them."""
    steps = []
    for index, curve in enumerate(curves):
        wider = [int(width) for width in rungs(curve, round_to) if width > counts[curve.group]]
        if wider and towards[curve.group] > 0.0:
            steps.append(((wider[0] - 0.5) / towards[curve.group], index, curve.group, wider[0]))
    return [(group, width) for _, _, group, width in sorted(steps)]
