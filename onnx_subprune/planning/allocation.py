"""How many units every group keeps for a target, and which groups go whole: docs/mathematics.md, sections 5 and 9."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from onnx_subprune import budget
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.options import Target
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.planning.study import Study
from onnx_subprune.structure import Atom, Structure

__all__ = ["allocate", "dead_groups", "feasible", "make_plan", "relative_cost"]

_MEASURES: Mapping[str, Callable[[Structure], Callable[..., float]]] = {
    "macs": lambda structure: structure.macs,
    "params": lambda structure: structure.parameters,
}
"""The cost of a network of given widths, by the kind of a target (`options.COSTS`); latency has a `LatencyMeter`."""


def allocate(
    structure: Structure,
    curves: Sequence[budget.Curve],
    target: Target,
    allocation: str = "cutoff",
    cost: budget.Cost | None = None,
) -> tuple[dict[str, int], list[str]]:
    """Find the widths that meet the target.

    Args:
        structure: of the dense network.
        curves: of the groups that may be pruned.
        target: that the widths meet.
        allocation: how a target of MACs, parameters or latency is shared out, one of `options.ALLOCATIONS`.
        cost: of a network of given widths, as a share of the dense one; by default that of the target's kind.

    Returns:
        The units that each group keeps, by its name, and warnings for the user.

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
    return _affordable(structure, curves, target, allocation, cost or relative_cost(structure, target)), []


def make_plan(study: Study, widths: Mapping[str, int]) -> Plan:
    """Return which units stay for the widths of some groups.

    Groups without a width are whole; those that only a removed branch had lose all their units.

    Args:
        study: its curves say in which order units go.
        widths: units that groups keep, by name.

    """
    structure, options = study.analysis.structure, study.options
    kept = {
        curve.group: tuple(sorted(int(unit) for unit in curve.order[: widths[curve.group]]))
        for curve in study.curves
        if curve.group in widths
    }
    kept |= dict.fromkeys(dead_groups(structure, [name for name, units in kept.items() if not units]), ())
    groups = tuple(PlannedGroup(g.name, g.size, kept.get(g.name, tuple(range(g.size)))) for g in structure.prunable)
    return Plan(study.analysis.fingerprint, str(options.target), groups, options.recovery_options)


def relative_cost(structure: Structure, target: Target) -> budget.Cost:
    """Return the cost of a network of given widths as a share of the dense one, by the kind of the target.

    It is infinite where groups cannot lose all their units together.

    Args:
        structure: of the dense network.
        target: whose kind of cost is counted.

    """
    # A latency below 1 is measured elsewhere; the whole network costs all of it by any measure.
    measure = _MEASURES.get(target.kind, _MEASURES["macs"])(structure)
    atoms = {group.name: group.atom for group in structure.prunable}
    dense = measure({})

    def cost(widths: Mapping[str, int]) -> float:
        emptied = [name for name, width in widths.items() if not width]
        removal = structure.removal(emptied) if emptied else None
        return measure({atoms[name]: width for name, width in widths.items()}, removal) / dense

    whole = feasible(structure, cost)
    if target.kind == "params" or structure.places:
        return whole
    return _MacsBeside(structure, whole, atoms, dense)


class _MacsBeside:
    """The multiply-accumulates of given widths, as a share, which knows what the width of a single group changes.

    Args:
        structure: of the dense network.
        whole: the cost of any widths.
        atoms: of the groups, by name.
        dense: cost of the dense network.

    """

    def __init__(self, structure: Structure, whole: budget.Cost, atoms: Mapping[str, Atom], dense: float) -> None:
        self._structure, self._whole, self._atoms, self._dense = structure, whole, atoms, dense
        self._base: tuple[budget.Counts, dict[Atom, int] | None] | None = None

    def __call__(self, counts: budget.Counts) -> float:
        """Return the cost of given widths."""
        return self._whole(counts)

    def beside(self, counts: budget.Counts, group: str, width: int) -> float:
        """Return the cost of given widths, but for one group."""
        if self._base is None or self._base[0] is not counts:
            # What goes as a whole takes others along: that is asked of the whole network.
            by_atom = {self._atoms[name]: count for name, count in counts.items()} if all(counts.values()) else None
            self._base = counts, by_atom
        _, by_atom = self._base
        if by_atom is None or not width:
            return self._whole({**counts, group: width})
        return self._structure.mac_products.beside(by_atom, self._atoms[group], width) / self._dense


def feasible(structure: Structure, cost: budget.Cost) -> budget.Cost:
    """Return a cost that is infinite where groups cannot lose all their units together.

    Args:
        structure: of the dense network.
        cost: of a network of given widths.

    """

    def feasible_cost(widths: Mapping[str, int]) -> float:
        emptied = [name for name, width in widths.items() if not width]
        return cost(dict(widths)) if not emptied or structure.removal(emptied).reason is None else math.inf

    return feasible_cost


def _affordable(
    structure: Structure, curves: Sequence[budget.Curve], target: Target, allocation: str, cost: budget.Cost
) -> dict[str, int]:
    def removable(names: list[str]) -> bool:
        return structure.removal(names).reason is None

    allocator, worth = _allocator(curves, allocation)
    try:
        return budget.drop_branches(curves, cost, target.value, removable, allocate=allocator, worth=worth).counts
    except TargetError as error:
        raise target.out_of_reach("the smallest widths", error.nearest) from None


def _allocator(
    curves: Sequence[budget.Curve], allocation: str
) -> tuple[budget.Allocator, Callable[[budget.Curve, int], float] | None]:
    """Return the function that finds the widths, and the one that says how much the last units of a group are worth."""
    if allocation == "cutoff":
        return budget.cheapest_cutoff, None
    if allocation == "uniform":
        return budget.affordable_uniform, None
    unmeasured = next((curve.group for curve in curves if curve.loss is None), None)
    if unmeasured is not None:
        raise OptionError(
            f"expected a loss for every group, which allocation 'loss' needs, found none for '{unmeasured}'; "
            "choose another selection, or allocation 'cutoff'"
        )
    return budget.knapsack, budget.lost_without


def dead_groups(structure: Structure, gone: list[str]) -> list[str]:
    """Return the groups that have no producer any more once others are gone.

    Args:
        structure: of the dense network.
        gone: names of the groups that lose all their units.

    """
    live = structure.removal(gone).live
    dead = [g.name for g in structure.prunable if gone and all(id(use.node) not in live for use in g.producers)]
    return dead if structure.removal({*gone, *dead}).reason is None else []
