"""How many units every group keeps: uniformly, by one share of variance for all, or by what the result may cost.

The paper's budget (arXiv 2405.17506) is one cut-off for the whole network: every group keeps the fewest units whose
cumulative share of variance reaches it. A cost target looks for the largest cut-off that is affordable. The widths
change only where the cut-off passes a value of some curve, and they never grow as it falls, so a bisection over those
finitely many values finds it. The rest of the budget is then spent on single steps, the largest share of variance
first. Where even the smallest widths cost too much, whole groups go.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np

from onnx_subprune.budget.curves import Curve, never_empty
from onnx_subprune.errors import OptionError, TargetError

__all__ = [
    "Allocation",
    "Allocator",
    "Cost",
    "CostBeside",
    "Counts",
    "cheapest_cutoff",
    "check_round",
    "cost_beside",
    "drop_branches",
    "largest",
    "limit_of",
    "uniform",
    "variance",
    "width_of",
]

Counts = dict[str, int]
Cost = Callable[[Counts], float]
Step = tuple[str, int]

_TOLERANCE = 1e-12


@runtime_checkable
class CostBeside(Protocol):
    """A cost that knows what a change of one group does without asking all of them."""

    def __call__(self, counts: Counts) -> float:
        """Return the cost of given widths."""
        ...

    def beside(self, counts: Counts, group: str, width: int) -> float:
        """Return the cost of given widths, but for one group; the same counts, asked for again, are not changed."""
        ...


def cost_beside(cost: Cost, counts: Counts, group: str, width: int) -> float:
    """Return the cost of given widths but for one group.

    Args:
        cost: of the network with given widths.
        counts: of all groups; not changed between two calls.
        group: whose width is another.
        width: of the group.

    """
    if isinstance(cost, CostBeside):
        return cost.beside(counts, group, width)
    return cost({**counts, group: width})


@dataclass(frozen=True)
class Allocation:
    """Units kept per group, their cost, and the cut-off that they started from.

    The cut-off is 0 where only minimum widths fit, and None where the widths come from no cut-off.

    Attributes:
        counts: units that stay, by group.
        cutoff: share of variance that each group keeps at least.
        cost: of the network with these widths, in the unit of the budget.

    """

    counts: Counts
    cutoff: float | None
    cost: float


class Allocator(Protocol):
    """Whatever finds widths within a target cost and raises TargetError where even the smallest cost more."""

    def __call__(self, curves: Sequence[Curve], cost: Cost, target_cost: float, *, round_to: int) -> Allocation:
        """Return widths of all groups whose cost is at most the target."""
        ...


def uniform(curves: Sequence[Curve], fraction: float, round_to: int = 1) -> Counts:
    """Keep the same fraction of every group: rounded half up, at least the group's minimum, then to a multiple.

    Args:
        curves: one per group.
        fraction: of the units, in [0, 1]; 0 keeps the minimum.
        round_to: widths are rounded up to multiples of this (and of the curve's own), never above the size.

    Raises:
        OptionError: the fraction is outside [0, 1] or `round_to` below 1.

    >>> curve = Curve("conv1", 10, np.arange(10), np.linspace(0, 1, 11))
    >>> uniform([curve], 0.25), uniform([curve], 0.25, round_to=4)
    ({'conv1': 3}, {'conv1': 4})

    """
    if fraction != 0.0:
        _check_fraction("fraction of units", fraction)
    check_round(round_to)
    # The tolerance makes 0.29 * 50 = 14.499999999999998 the half that the user means.
    return {c.group: width_of(c, math.floor(fraction * c.size + 0.5 + 1e-9), round_to) for c in curves}


def variance(curves: Sequence[Curve], cutoff: float, round_to: int = 1) -> Counts:
    """Keep in every group the fewest units whose cumulative share of variance reaches the cut-off.

    Args:
        curves: one per group.
        cutoff: share of variance in (0, 1]; 1 keeps every unit, dead ones too.
        round_to: as for `uniform`.

    Raises:
        OptionError: the cut-off is outside (0, 1] or `round_to` below 1.

    >>> variance([Curve("conv1", 4, np.arange(4), np.array([0, 0.6, 0.9, 1, 1]))], 0.9)
    {'conv1': 2}

    """
    _check_fraction("share of variance", cutoff)
    check_round(round_to)
    return _at_cutoff(curves, cutoff, round_to)


def cheapest_cutoff(curves: Sequence[Curve], cost: Cost, target_cost: float, round_to: int = 1) -> Allocation:
    """The largest cut-off that the target affords, and the rest of the budget spent on the best single steps.

    A step widens one group to the next allowed width that gains anything; steps are taken by the share of variance
    they add, the largest first, until none is affordable. Dead units are never given back.

    Args:
        curves: one per group.
        cost: of the network with the given widths; must not fall when a width grows. Called about
            log2(total units) times, and about twice as often for every group that hits the limit.
        target_cost: the largest cost allowed, in the units of `cost`.
        round_to: as for `uniform`.

    Raises:
        OptionError: the target is NaN or `round_to` below 1.
        TargetError: even the minimum widths cost more; `nearest` is their cost.

    """
    cutoffs = [0.0, *np.unique(np.concatenate([[1.0], *(curve.share[1:] for curve in curves)])).tolist()]
    cutoff, counts = largest(cutoffs, lambda value: _at_cutoff(curves, value, round_to), cost, target_cost, round_to)
    if cutoff < 1.0:
        counts = _spend(curves, counts, cost, limit_of(target_cost), round_to)
    return Allocation(counts, cutoff, float(cost(counts)))


def largest(
    values: Sequence[float], widths: Callable[[float], Counts], cost: Cost, target_cost: float, round_to: int
) -> tuple[float, Counts]:
    """The largest of some rising values whose widths the target affords, and these widths.

    Args:
        values: rising.
        widths: at a value; they never shrink as it rises.
        cost: of the network with given widths.
        target_cost: the largest cost allowed, in the units of `cost`.
        round_to: as for `uniform`.

    Raises:
        OptionError: the target is NaN or `round_to` below 1.
        TargetError: even the first value costs more; `nearest` is its cost.

    >>> largest([0.0, 0.5, 1.0], lambda share: {"conv1": int(10 * share)}, lambda counts: counts["conv1"] / 10, 0.7, 1)
    (0.5, {'conv1': 5})

    """
    check_round(round_to)
    if math.isnan(target_cost):
        raise OptionError("expected a target cost, found NaN; give a number")
    affordable = bisect_right(values, limit_of(target_cost), key=lambda value: cost(widths(value))) - 1
    if affordable < 0:
        least = float(cost(widths(values[0])))
        raise TargetError(
            f"expected a cost of at most {target_cost:g}, but the smallest widths cost {least:g}; raise the target",
            least,
        )
    return values[affordable], widths(values[affordable])


def drop_branches(
    curves: Sequence[Curve],
    cost: Cost,
    target_cost: float,
    removable: Callable[[list[str]], bool],
    round_to: int = 1,
    *,
    allocate: Allocator = cheapest_cutoff,
    worth: Callable[[Curve, int], float] | None = None,
) -> Allocation:
    """Widths without the groups whose last units are worth the least, as few as the target allows.

    At the smallest widths all groups stand in the order of what they are still worth. They go one after the other,
    where that is possible and saves anything, until the rest is affordable.

    Args:
        curves: one per group.
        cost: as for `cheapest_cutoff`; groups that are gone have a count of 0.
        target_cost: the largest cost allowed, in the units of `cost`.
        removable: whether all these groups, by name, may lose all their units together.
        round_to: as for `uniform`.
        allocate: finds the widths of the groups that stay.
        worth: of a group that keeps so many units; by default their share of variance.

    Raises:
        OptionError: the target is NaN or `round_to` below 1.
        TargetError: even so the cost is higher; `nearest` is the least.

    """
    try:
        return allocate(curves, cost, target_cost, round_to=round_to)
    except TargetError:
        pass
    # Those whose minimum is 0 too: together they may be more than can go.
    counts, gone = _at_cutoff(never_empty(curves), 0.0, round_to), list[str]()
    nearest = float(cost(counts))
    value = worth or _share
    for curve in sorted(curves, key=lambda c: value(c, counts[c.group])):
        fewer = {**counts, curve.group: 0}
        if removable([*gone, curve.group]) and (lower := cost(fewer)) < nearest:
            counts, nearest = fewer, float(lower)
            gone.append(curve.group)
            if nearest <= limit_of(target_cost):
                break
    none = dict.fromkeys(gone, 0)
    rest = [curve for curve in curves if curve.group not in none]
    allocation = allocate(rest, lambda widths: cost({**widths, **none}), target_cost, round_to=round_to)
    return Allocation({**allocation.counts, **none}, allocation.cutoff, allocation.cost)


def _share(curve: Curve, count: int) -> float:
    return float(curve.share[count])


def limit_of(target_cost: float) -> float:
    """The target with room for rounding.

    Args:
        target_cost: in the units of a cost.

    """
    return target_cost + _TOLERANCE * abs(target_cost)


def _at_cutoff(curves: Sequence[Curve], cutoff: float, round_to: int) -> Counts:
    return {c.group: width_of(c, _reaching_width(c, cutoff), round_to) for c in curves}


def _reaching_width(curve: Curve, cutoff: float) -> int:
    """The fewest units whose share reaches the cut-off."""
    if cutoff >= 1.0:
        return curve.size
    return int(np.searchsorted(curve.share, cutoff - _TOLERANCE, side="left"))


def width_of(curve: Curve, count: int, round_to: int) -> int:
    """The smallest allowed width of at least `count` units.

    Args:
        curve: of the group.
        count: units that are wanted.
        round_to: widths are multiples of this (and of the curve's own) or the full size.

    >>> curve = Curve("conv1", 10, np.arange(10), np.linspace(0, 1, 11), minimum=2)
    >>> [width_of(curve, count, round_to=4) for count in (0, 4, 5, 9)]
    [4, 4, 8, 10]
    >>> width_of(Curve("conv2", 10, np.arange(10), np.linspace(0, 1, 11), least_cut=4), 7, round_to=1)
    10

    """
    multiple = math.lcm(curve.round_to, round_to)
    width = multiple * math.ceil(max(count, curve.minimum) / multiple)
    return width if width <= curve.size - curve.least_cut else curve.size


def _spend(curves: Sequence[Curve], counts: Counts, cost: Cost, limit: float, round_to: int) -> Counts:
    """Take the affordable steps in the order of their gain.

    A step that is not affordable ends its group: no later step can be cheaper. The steps before the first such one
    are found by doubling and bisection: the same result as trying one after another, in far fewer calls.
    """
    steps = _steps(curves, counts, round_to)
    while steps:
        taken = _affordable(len(steps), partial(_fits, steps, counts, cost, limit))
        counts = {**counts, **dict(steps[:taken])} if taken else counts
        # Without one group the others' steps keep their order.
        ended = {group for group, _ in steps[taken : taken + 1]}
        steps = [step for step in steps[taken:] if step[0] not in ended]
    return counts


def _fits(steps: Sequence[Step], counts: Counts, cost: Cost, limit: float, n: int) -> bool:
    """Whether the first n steps are affordable."""
    if n == 1:
        return cost_beside(cost, counts, *steps[0]) <= limit
    return cost({**counts, **dict(steps[:n])}) <= limit


def _affordable(n: int, fits: Callable[[int], bool]) -> int:
    """The largest k of 0..n for which `fits` holds; it holds for 0, and once it fails it fails for good."""
    high = 1
    while high <= n and fits(high):
        high *= 2
    return high // 2 + bisect_left(range(high // 2 + 1, min(high, n + 1)), True, key=lambda k: not fits(k))


def _steps(curves: Sequence[Curve], counts: Counts, round_to: int) -> list[Step]:
    """All steps (group, new width) in the order in which greedy choice takes them; ties go to the earlier group."""
    heap = [entry for i, curve in enumerate(curves) if (entry := _entry(i, curve, counts[curve.group], round_to))]
    heapq.heapify(heap)
    steps: list[Step] = []
    while heap:
        _, i, width = heapq.heappop(heap)
        steps.append((curves[i].group, width))
        if entry := _entry(i, curves[i], width, round_to):
            heapq.heappush(heap, entry)
    return steps


def _entry(i: int, curve: Curve, width: int, round_to: int) -> tuple[float, int, int] | None:
    """The next step of a group past `width`, if there is one that gains anything."""
    count = int(np.searchsorted(curve.share, curve.share[width] + _TOLERANCE, side="right"))
    if count > curve.size:
        return None
    wider = width_of(curve, count, round_to)
    return (-float(curve.share[wider] - curve.share[width]), i, wider)


def _check_fraction(what: str, value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise OptionError(f"expected a {what} in (0, 1], found {value}; for example 0.5 keeps half")


def check_round(round_to: int) -> None:
    """Refuse widths that are no multiples of a positive number.

    Args:
        round_to: the number.

    Raises:
        OptionError: it is below 1.

    """
    if round_to < 1:
        raise OptionError(f"expected widths rounded to multiples of 1 or more, found {round_to}; use for example 8")
