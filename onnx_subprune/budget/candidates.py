"""Several allocations for one target, to be tried against each other on held-out data.

Which measure of loss predicts best what the network loses depends on the network: the error at a consumer may be
drowned downstream or grow. So a few plain ones are offered, and steps away from the one that was found best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_subprune.budget.allocate import Cost, Counts, cheapest_cutoff, limit_of
from onnx_subprune.budget.curves import Curve, never_empty
from onnx_subprune.budget.exchange import Moves, moves_within, settle
from onnx_subprune.budget.knapsack import knapsack
from onnx_subprune.budget.ladder import Ladders, losses_of
from onnx_subprune.budget.proportional import affordable_uniform, in_proportion

__all__ = ["blend", "candidates", "neighbours"]


def candidates(
    curves: Sequence[Curve],
    cost: Cost,
    target_cost: float,
    weights: Mapping[str, float] | None = None,
    round_to: int = 1,
    *,
    loss: Counts | None = None,
) -> list[tuple[str, Counts]]:
    """A short list of named allocations that meet the target; of equal ones only the first is listed.

    They are: `uniform`, `cutoff` (one share of variance), `loss`, `relative` (each group's loss relative to that
    without any of its units), `root` (square roots of losses), with weights `sensitivity` (weighted losses), and
    `loss+uniform`, `sensitivity+uniform`: widths half-way between the two.

    Args:
        curves: one per group; without losses there are only the first two.
        cost: of the network with the given widths; must not fall when a width grows.
        target_cost: the largest cost allowed, in the units of `cost`.
        weights: of the groups' losses: how much of a squared error at the consumers reaches the output.
        round_to: widths are multiples of this (and of the curve's own) or the full size.
        loss: the allocation of that name, where it was found already.

    Raises:
        OptionError: the target is NaN or `round_to` below 1.
        TargetError: even the minimum widths cost more; `nearest` is their cost.

    """
    nonempty = never_empty(curves)
    uniform = affordable_uniform(nonempty, cost, target_cost, round_to=round_to).counts
    allocations = [("uniform", uniform), ("cutoff", cheapest_cutoff(nonempty, cost, target_cost, round_to).counts)]
    if all(curve.loss is not None for curve in curves):
        ways: dict[str, tuple[Mapping[str, float] | None, float]] = {
            "loss": (None, 1.0),
            "relative": (_relative(curves), 1.0),
            "root": (None, 0.5),
        }
        if weights is not None:
            ways["sensitivity"] = (weights, 1.0)
        if loss is not None:
            del ways["loss"]
        best = {} if loss is None else {"loss": loss}
        best |= {
            name: knapsack(curves, cost, target_cost, scale, round_to, power=power).counts
            for name, (scale, power) in ways.items()
        }
        allocations += best.items()
        for name in ("loss", "sensitivity"):
            if name in best:
                mixed = blend(nonempty, best[name], uniform, cost, target_cost, round_to=round_to)
                allocations.append((f"{name}+uniform", mixed))
    return _distinct(allocations)


def blend(
    curves: Sequence[Curve],
    first: Mapping[str, int],
    second: Mapping[str, int],
    cost: Cost,
    target_cost: float,
    *,
    share: float = 0.5,
    round_to: int = 1,
) -> Counts:
    """Widths in the proportions of `(1 - share) * first + share * second`, as large as the target affords.

    Args:
        curves: one per group.
        first: units by group.
        second: units by group.
        cost: of the network with the given widths.
        target_cost: the largest cost allowed, in the units of `cost`.
        share: of the second in the proportions, in [0, 1].
        round_to: widths are multiples of this (and of the curve's own) or the full size.

    Raises:
        OptionError, TargetError: as `candidates`.

    """
    towards = {c.group: (1.0 - share) * first[c.group] + share * second[c.group] for c in curves}
    return in_proportion(curves, towards, cost, target_cost, round_to=round_to).counts


def neighbours(
    curves: Sequence[Curve],
    counts: Counts,
    cost: Cost,
    target_cost: float,
    step: float = 0.125,
    *,
    weights: Mapping[str, float] | None = None,
    power: float = 1.0,
    round_to: int = 1,
) -> list[tuple[str, Counts]]:
    """Allocations near the given one: each widens one group, and the others pay for it where they lose least.

    Args:
        curves: one per group, with losses.
        counts: where to start: allowed widths within the target.
        cost: of the network with the given widths; asked for 4 times per group and a few times per neighbour.
        target_cost: the largest cost allowed, in the units of `cost`.
        step: share of its units that a group gains, at least one step. If negative, that the group loses; what it
            saves is spent on the others.
        weights: of the groups' losses; all 1 by default.
        power: of the losses.
        round_to: widths are multiples of this (and of the curve's own) or the full size.

    Returns:
        The name of the group that was changed, and the widths, those first that are computed to lose least; groups
        that cannot change are left out.

    """
    ladders = Ladders(curves, cost, weights=weights, power=power, round_to=round_to)
    state, limit = ladders.state(counts), limit_of(target_cost)
    ends = [(0, rung) if step > 0 else (rung, top) for rung, top in zip(state, ladders.top, strict=True)]
    others = [moves_within(ladders, state, group, *ends[group]) for group in range(len(state))]
    changed = []
    for group, curve in enumerate(curves):
        rung = _rung_away(ladders, group, state[group], step)
        price = ladders.cost_beside(state, group, rung) - ladders.cost(state)
        fixed = Moves(np.array([rung]), np.array([price]), ladders.losses[group][[rung]])
        moves = [*others[:group], fixed, *others[group + 1 :]]
        near = settle(ladders, moves, limit - ladders.cost(state), limit) if rung != state[group] else None
        if near is not None:
            changed.append((ladders.loss(near), curve.group, ladders.counts(near)))
    return [(group, counts) for _, group, counts in sorted(changed, key=_loss)]


def _rung_away(ladders: Ladders, group: int, rung: int, step: float) -> int:
    """The rung that is a share of the units away, at least one rung, as far as there are any."""
    widths = ladders.widths[group]
    wanted = widths[rung] + step * ladders.curves[group].size
    if step > 0:
        return min(ladders.top[group], max(rung + 1, int(np.searchsorted(widths, wanted + 1e-9, "right")) - 1))
    return max(0, min(rung - 1, int(np.searchsorted(widths, wanted - 1e-9))))


def _loss(changed: tuple[float, str, Counts]) -> float:
    return changed[0]


def _relative(curves: Sequence[Curve]) -> dict[str, float]:
    return {c.group: 1.0 / float(losses_of(c)[0]) if losses_of(c)[0] > 0.0 else 0.0 for c in curves}


def _distinct(allocations: Sequence[tuple[str, Counts]]) -> list[tuple[str, Counts]]:
    return [
        (name, counts)
        for i, (name, counts) in enumerate(allocations)
        if all(counts != other for _, other in allocations[:i])
    ]
