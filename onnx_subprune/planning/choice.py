"""Which units stay: from curves to a plan, by a budget on the curves or by the errors that pruned networks showed.

With trials, several allocations are carried out and the one whose outputs, on samples held out, stay closest to the
dense network's is taken; allocations near the best are tried until none is better.

For a target of latency a model of the machine computes the cost, and the budget is corrected by measuring until the
widths that it leads to meet the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from onnx_subprune import budget
from onnx_subprune.errors import TargetError
from onnx_subprune.options import Target
from onnx_subprune.plan import Plan
from onnx_subprune.planning.allocation import allocate, feasible, make_plan, relative_cost
from onnx_subprune.planning.latency import LatencyMet, LatencyMeter, misses_target
from onnx_subprune.planning.measured_cost import within_measured
from onnx_subprune.planning.study import SHARED_TARGETS, Study
from onnx_subprune.planning.trials import Trials
from onnx_subprune.progress import begin, phase
from onnx_subprune.recovery import Recovered, by_channel

__all__ = ["Choice", "choose", "choose_again"]

_STEP = 0.125
# Recovery by channel tells a collapse from a sound network, but not which of two sound ones ends up the better.
_CLEARLY = 0.5


class Choice(NamedTuple):
    """Which units stay.

    Attributes:
        plan: says so.
        warnings: for the user.
        begun: the network of just these units after one sweep of fits, where there is one.

    """

    plan: Plan
    warnings: list[str]
    begun: Recovered | None = None


class _Allocation(NamedTuple):
    """How many units each group keeps, and the network of these widths after one sweep of fits, where there is one."""

    widths: dict[str, int]
    begun: Recovered | None = None


def choose(study: Study) -> Choice:
    """Return which units stay.

    Args:
        study: with the losses that its allocation asks for (`measure_losses`).

    Raises:
        TargetError: the target cannot be met.

    """
    options, structure = study.options, study.analysis.structure
    begin(study.progress, "sharing out the target")
    name = "loss" if options.allocation == "measured" else options.allocation
    if study.meter is not None and options.target.value < 1.0:
        allocation, warnings = _within_latency(study, study.meter, name), study.meter.warnings
    else:
        shared = within_measured(
            lambda target: allocate(structure, study.curves, target, name), study.analysis, options
        )
        allocation, warnings = _Allocation(shared.widths), shared.warnings
        if study.measures_losses:
            cost = relative_cost(structure, options.target)
            allocation = _best_of_trials(study, shared.widths, cost, shared.limit)
    emptied = [group for group, width in allocation.widths.items() if not width]
    if emptied and options.target.kind in SHARED_TARGETS:
        warnings.append(f"removed as a whole for {options.target}: {', '.join(emptied)}")
    return Choice(make_plan(study, allocation.widths), warnings, allocation.begun)


def choose_again(study: Study, plan: Plan, latency: LatencyMet) -> Choice | None:
    """Return other widths where the finished network misses its target of latency, None where there are none.

    The time of the finished network is one more measurement of its widths.

    Args:
        study: of the choice.
        plan: that was chosen.
        latency: of the network that it gave.

    """
    if study.meter is None or study.options.target.kind != "latency" or not misses_target(plan, latency):
        return None
    study.meter.remember(plan.widths, latency)
    choice = choose(study)
    return None if choice.plan.widths == plan.widths else choice


def _within_latency(study: Study, meter: LatencyMeter, name: str) -> _Allocation:
    """Return widths whose measured latency meets the target.

    Where another allocation of the same budget turns out to be better, its widths are scaled until they meet it too.
    """
    structure, curves, target = study.analysis.structure, study.curves, study.options.target.value
    predicted = feasible(structure, meter.predicted)

    def within(limit: float) -> dict[str, int]:
        # A target that costs are shared out for has nothing to tell the user.
        return allocate(structure, curves, Target("latency", min(limit, 1.0)), name, predicted)[0]

    met = budget.meet(within, _measurement(study, meter), target)
    if not study.measures_losses:
        return _Allocation(met.counts)
    best = _best_of_trials(study, met.counts, predicted, met.limit)
    if best.widths == met.counts:
        return best
    widths = _scaled_to_meet(study, meter, predicted, best.widths, met)
    return best if widths == best.widths else _Allocation(widths)


def _scaled_to_meet(
    study: Study, meter: LatencyMeter, predicted: budget.Cost, widths: dict[str, int], met: budget.Met
) -> dict[str, int]:
    """Return widths in proportion to some others that meet the target, or those that met it where none do."""

    def in_proportion(limit: float) -> dict[str, int]:
        return budget.in_proportion(_with_minima(study.curves, widths), widths, predicted, limit).counts

    try:
        target = study.options.target.value
        return budget.meet(in_proportion, _measurement(study, meter), target, start=met.limit).counts
    except TargetError:
        return met.counts


def _measurement(study: Study, meter: LatencyMeter) -> Callable[[Mapping[str, int], int], float]:
    """Return what measures widths, and reports how many of those that may be needed have been measured."""
    progress = phase(study.progress, "measuring candidates")
    seen: set[tuple[tuple[str, int], ...]] = set()

    def measure(widths: Mapping[str, int], repeats: int) -> float:
        if progress is not None:
            progress(len(seen), budget.MEETINGS)
        seen.add(tuple(sorted(widths.items())))
        return meter.measure(widths, repeats)

    return measure


def _best_of_trials(study: Study, widths: dict[str, int], cost: budget.Cost, limit: float) -> _Allocation:
    """Return the best of several allocations, as carried out and run: by channel first, the better ones in earnest.

    The losses of groups that were pruned alone do not add up where they are pruned together, so that no computed
    budget is safe.
    """
    options = study.options
    assert study.distance is not None
    candidates = {"first": widths, **_alternatives(study, widths, cost, limit)}
    quick = Trials(replace(study, options=by_channel(options)), study.distance, most=len(candidates))
    quick.run(candidates)
    quick.finish()
    quick.network = None
    if not options.trials:
        return _Allocation(quick.widths if quick.error < _CLEARLY * quick.errors["first"] else widths)
    trials = Trials(study, study.distance, most=options.trials)
    others = [name for name in quick.ranked() if name != "first"]
    trials.run({name: candidates[name] for name in ["first", *others[: max(1, options.trials // 3)]]})
    while trials.remaining:
        near = budget.neighbours(_with_minima(study.curves, trials.widths), trials.widths, cost, limit, _STEP)
        if not trials.run(dict(near)):
            break
    trials.finish()
    return _Allocation(trials.widths, trials.network)


def _alternatives(study: Study, widths: dict[str, int], cost: budget.Cost, limit: float) -> dict[str, dict[str, int]]:
    """Return other allocations within the limit; there are none where only the removal of groups meets the target."""
    try:
        return dict(budget.candidates(study.curves, cost, limit, loss=widths))
    except TargetError:
        return {}


def _with_minima(curves: Sequence[budget.Curve], widths: Mapping[str, int]) -> list[budget.Curve]:
    """Return the curves with a minimum of 0 where a group has no units, and of 1 or more where it has."""
    return [curve if widths[curve.group] else replace(curve, minimum=0) for curve in budget.never_empty(curves)]
