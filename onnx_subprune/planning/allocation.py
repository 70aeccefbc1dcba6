"""How many units every group keeps for a target, and which go as a whole: see docs/mathematics.md, sections 5 and 9."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from onnx_subprune import budget
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options, Target
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.structure import Structure

__all__ = ["allocate", "cost_of", "dead_groups", "make_plan", "possible"]

_MEASURES: Mapping[str, Callable[[Structure], Callable[..., float]]] = {
    "macs": lambda structure: structure.macs,
    "params": lambda structure: structure.parameters,
}
"""What a network of given widths costs, by the kind of a target (`options.COSTS`); of latency a `Clock` says so."""


def allocate(
    structure: Structure,
    curves: Sequence[budget.Curve],
    target: Target,
    allocation: str = "cutoff",
    cost: budget.Cost | None = None,
) -> tuple[dict[str, int], list[str]]:
    """Find the widths that meet the target, with what the user should know of them.

    `allocation`, one of `options.ALLOCATIONS`, says how a target of MACs or parameters is shared among the groups, or
    of whatever else `cost` says that a network of given widths costs, as a share of the dense one.

    Raises:
        OptionError: the allocation needs losses that the curves do not have.
        TargetError: the target cannot be met.

    """
    if target.kind == "units":
        if target.value > 0.0:
            return budget.uniform(curves, target.value), []
        needed = structure.needed(curve.group for curve in curves)
        free = [curve if curve.group in needed else replace(curve, minimum=0) for curve in curves]
        return budget.uniform(free, 0.0), [f"'{name}' keeps a unit: {reason}" for name, reason in needed.items()]
    if target.kind == "variance":
        return budget.variance(curves, target.value), []
    return _affordable(structure, curves, target, allocation, cost or cost_of(structure, target)), []


def make_plan(analysis: Analysis, curves: Sequence[budget.Curve], counts: Mapping[str, int], options: Options) -> Plan:
    """Return which units stay; groups without a count are whole, those that only a removed branch had lose all."""
    structure = analysis.structure
    kept = {c.group: tuple(sorted(int(u) for u in c.order[: counts[c.group]])) for c in curves if c.group in counts}
    kept |= dict.fromkeys(dead_groups(structure, [name for name, units in kept.items() if not units]), ())
    groups = tuple(PlannedGroup(g.name, g.size, kept.get(g.name, tuple(range(g.size)))) for g in structure.prunable)
    return Plan(analysis.fingerprint, str(options.target), groups, options.recovery_options)


def cost_of(structure: Structure, target: Target) -> budget.Cost:
    """Return what a network of given widths costs, as a share of the dense one, by the kind of the target."""
    # A latency below 1 has a clock that says what it is; all of the network is all of it by any measure.
    measure = _MEASURES.get(target.kind, _MEASURES["macs"])(structure)
    atoms = {group.name: group.atom for group in structure.prunable}
    dense = measure({})

    def cost(widths: Mapping[str, int]) -> float:
        whole = [name for name, count in widths.items() if not count]
        removal = structure.removal(whole) if whole else None
        return measure({atoms[name]: count for name, count in widths.items()}, removal) / dense

    return possible(structure, cost)


def possible(structure: Structure, cost: budget.Cost) -> budget.Cost:
    """Return a cost that is infinite where groups cannot lose all their units together."""

    def checked(widths: Mapping[str, int]) -> float:
        whole = [name for name, count in widths.items() if not count]
        return cost(dict(widths)) if not whole or structure.removal(whole).reason is None else math.inf

    return checked


def _affordable(
    structure: Structure, curves: Sequence[budget.Curve], target: Target, allocation: str, cost: budget.Cost
) -> dict[str, int]:
    def removable(names: list[str]) -> bool:
        return structure.removal(names).reason is None

    allocator, worth = _allocator(curves, allocation)
    try:
        return budget.drop_branches(curves, cost, target.value, removable, allocate=allocator, worth=worth).counts
    except TargetError as error:
        nearest = math.ceil(error.nearest * 1e4) / 1e4
        raise TargetError(
            f"expected to reach {target}, but the smallest widths leave {nearest:.4f} of the {target.kind}; "
            f"ask for {target.kind}={nearest:.4f} or more",
            nearest,
        ) from None


def _allocator(
    curves: Sequence[budget.Curve], allocation: str
) -> tuple[budget.Allocator, Callable[[budget.Curve, int], float] | None]:
    """Return what finds the widths, and what the last units of a group are worth."""
    if allocation == "cutoff":
        return budget.cheapest_cutoff, None
    if allocation == "uniform":
        return budget.affordable_uniform, None
    without = next((curve.group for curve in curves if curve.loss is None), None)
    if without is not None:
        raise OptionError(
            f"expected a loss for every group, which allocation 'loss' needs, found none for '{without}'; "
            "choose another selection, or allocation 'cutoff'"
        )
    return budget.knapsack, budget.lost_without


def dead_groups(structure: Structure, gone: list[str]) -> list[str]:
    """Return the groups none of whose producers is left once others are gone."""
    live = structure.removal(gone).live
    dead = [g.name for g in structure.prunable if gone and all(id(use.node) not in live for use in g.producers)]
    return dead if structure.removal({*gone, *dead}).reason is None else []
