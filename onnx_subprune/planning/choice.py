"""Which units stay: from curves to a plan, by a budget on the curves or by what the network was seen to lose.

`measured` allocation scales every group's losses by the error at the outputs with that group alone pruned. With trials,
several allocations are carried out and the one whose outputs, on samples held out, stay closest to the dense network's
is taken; allocations near the best are tried until none is better.

For a target of latency a model of the machine computes the cost, and the budget is corrected by measuring until the
widths that it leads to meet the target.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from onnx_subprune import budget
from onnx_subprune.calibration import Dataset, Statistics
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.evaluate.output_error import Departure
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options, Target
from onnx_subprune.plan import Plan
from onnx_subprune.planning.allocation import allocate, cost_of, make_plan, possible
from onnx_subprune.planning.latency import Clock
from onnx_subprune.planning.sensitivity import measured_curves
from onnx_subprune.progress import Watch, begin, phase
from onnx_subprune.recovery import Recovered, by_channel, recover

__all__ = ["Choice", "Study", "choose", "scaled"]

_logger = logging.getLogger(__name__)

_STEP = 0.125
# Recovery by channel tells a collapse from a sound network, but not which of two sound ones ends up the better.
_CLEARLY = 0.5
_TRYING = "trying allocations"
_SHARED = ("macs", "params", "latency", "drop")


@dataclass(frozen=True, eq=False)
class Study:
    """All that choices are made from; a target of latency needs a `clock`."""

    analysis: Analysis
    curves: Sequence[budget.Curve]
    statistics: Statistics
    dataset: Dataset | None
    options: Options
    progress: Watch | None = None
    clock: Clock | None = None
    departure: Departure | None = None

    @property
    def measures(self) -> bool:
        """Whether the network is run to share out the target."""
        target = self.options.target
        return self.options.allocation == "measured" and target.kind in _SHARED and target.value < 1.0


class Choice(NamedTuple):
    """Which units stay, what the user should know of it, and the network of just these units where one was fitted."""

    plan: Plan
    warnings: list[str]
    begun: Recovered | None = None


class _Widths(NamedTuple):
    """How many units each group keeps, and the network of these widths after one sweep of fits, where there is one."""

    counts: dict[str, int]
    begun: Recovered | None = None


def scaled(study: Study) -> Study:
    """Return the study with losses that are errors at the outputs, where its allocation asks for them.

    Raises:
        OptionError: they are to be measured and there is no data to measure them on.

    """
    options = study.options
    if not study.measures:
        return study
    if study.departure is None:
        raise OptionError(
            "expected calibration data, found statistics alone: allocation 'measured' runs samples; give --calib, or "
            "ask for --effort fast or another --allocation"
        )
    curves = measured_curves(
        study.analysis,
        study.curves,
        study.statistics,
        study.departure,
        options,
        progress=phase(study.progress, "measuring sensitivities"),
    )
    return replace(study, curves=curves)


def choose(study: Study) -> Choice:
    """Return which units stay; `study` is `scaled` already.

    Raises:
        TargetError: the target cannot be met.

    """
    options, structure = study.options, study.analysis.structure
    begin(study.progress, "sharing out the target")
    allocation = "loss" if options.allocation == "measured" else options.allocation
    if study.clock is not None and options.target.value < 1.0:
        found, warnings = _timed(study, study.clock, allocation)
    else:
        counts, warnings = allocate(structure, study.curves, options.target, allocation)
        found = _Widths(counts)
        if study.measures:
            found = _tried(study, counts, cost_of(structure, options.target), options.target.value)
    whole = [name for name, count in found.counts.items() if not count]
    if whole and options.target.kind in _SHARED:
        warnings.append(f"removed as a whole for {options.target}: {', '.join(whole)}")
    return Choice(make_plan(study.analysis, study.curves, found.counts, options), warnings, found.begun)


def _timed(study: Study, clock: Clock, allocation: str) -> tuple[_Widths, list[str]]:
    """Return widths whose measured latency meets the target, with what the user should know of them.

    Where another allocation of the same budget turns out to be better, its widths are scaled until they meet it too.
    """
    structure, curves, target = study.analysis.structure, study.curves, study.options.target.value
    predicted = possible(structure, clock.predicted)

    def within(limit: float) -> dict[str, int]:
        # A target that costs are shared out for has nothing to tell the user.
        return allocate(structure, curves, Target("latency", min(limit, 1.0)), allocation, predicted)[0]

    met = budget.meet(within, _counted(study, clock), target)
    if not study.measures:
        return _Widths(met.counts), clock.warnings
    found = _tried(study, met.counts, predicted, met.limit)
    if found.counts != met.counts:
        counts = _scaled_to_meet(study, clock, predicted, found.counts, met)
        found = found if counts == found.counts else _Widths(counts)
    return found, clock.warnings


def _scaled_to_meet(
    study: Study, clock: Clock, predicted: budget.Cost, other: dict[str, int], met: budget.Met
) -> dict[str, int]:
    """Return widths in proportion to others that meet the target of latency, or those that met it where none do."""

    def in_proportion(limit: float) -> dict[str, int]:
        return budget.in_proportion(_open(study.curves, other), other, predicted, limit).counts

    try:
        target = study.options.target.value
        return budget.meet(in_proportion, _counted(study, clock), target, start=met.limit).counts
    except TargetError:
        return met.counts


def _counted(study: Study, clock: Clock) -> Callable[[Mapping[str, int], int], float]:
    """Return what measures widths, and tells how many of those that may be needed have been."""
    tell = phase(study.progress, "measuring candidates")
    seen: set[tuple[tuple[str, int], ...]] = set()

    def measured(counts: Mapping[str, int], repeats: int) -> float:
        if tell is not None:
            tell(len(seen), budget.MEETINGS)
        seen.add(tuple(sorted(counts.items())))
        return clock.measured(counts, repeats)

    return measured


def _tried(study: Study, counts: dict[str, int], cost: budget.Cost, limit: float) -> _Widths:
    """Return the best of several allocations, as carried out and run: by channel first, the better ones in earnest.

    What groups lose alone does not add up where they are pruned together, so that no computed budget is safe.
    """
    options = study.options
    assert study.departure is not None
    named = {"first": counts, **_others(study, counts, cost, limit)}
    quick = _Trials(replace(study, options=by_channel(options)), study.departure, most=len(named))
    quick.run(named)
    quick.finish()
    quick.found = None
    if not options.trials:
        return _Widths(quick.best if quick.error < _CLEARLY * quick.errors["first"] else counts)
    trials = _Trials(study, study.departure, most=options.trials)
    others = [name for name in quick.ranked() if name != "first"]
    trials.run({name: named[name] for name in ["first", *others[: max(1, options.trials // 3)]]})
    while trials.left:
        near = budget.neighbours(_open(study.curves, trials.best), trials.best, cost, limit, _STEP)
        if not trials.run(dict(near)):
            break
    trials.finish()
    return _Widths(trials.best, trials.found)


def _others(study: Study, found: dict[str, int], cost: budget.Cost, limit: float) -> dict[str, dict[str, int]]:
    """Return other allocations than the one found; there are none where only the removal of groups meets the target."""
    try:
        return dict(budget.candidates(study.curves, cost, limit, loss=found))
    except TargetError:
        return {}


def _open(curves: Sequence[budget.Curve], counts: Mapping[str, int]) -> list[budget.Curve]:
    """Return the curves with a minimum of 0 where a group has no units, and of 1 or more where it has."""
    held = budget.kept(curves)
    return [now if counts[now.group] else replace(now, minimum=0) for now in held]


class _Trials:
    """Allocations that were carried out, each at most once, and the best of them."""

    def __init__(self, study: Study, departure: Departure, *, most: int) -> None:
        self._study = study
        self._departure = departure
        self._most = most
        self._seen: dict[tuple[tuple[str, int], ...], tuple[float, str]] = {}
        self.best: dict[str, int] = {}
        self.found: Recovered | None = None
        self.error = float("inf")

    @property
    def left(self) -> int:
        """How many more may be tried."""
        return self._most - len(self._seen)

    @property
    def errors(self) -> dict[str, float]:
        """What was tried, by name, with the error at the outputs."""
        return {name: error for error, name in self._seen.values()}

    def ranked(self) -> list[str]:
        """Return the names of what was tried, the best first."""
        return [name for _, name in sorted(self._seen.values())]

    def finish(self) -> None:
        """Say that no more will be tried."""
        if self._study.progress is not None:
            self._study.progress(_TRYING, self._most, self._most)

    def run(self, allocations: Mapping[str, dict[str, int]]) -> bool:
        """Try allocations that were not tried before; whether one of them is better than the best so far."""
        better = False
        for name, counts in allocations.items():
            key = tuple(sorted(counts.items()))
            if self.left <= 0 or key in self._seen:
                continue
            found = self._recover(counts)
            error = self._departure(found.model)
            self._seen[key] = (error, name)
            _logger.info("allocation %s: error at the outputs %.5f", name, error)
            if error < self.error:
                self.best, self.found, self.error, better = dict(counts), found, error, True
        return better

    def _recover(self, counts: Mapping[str, int]) -> Recovered:
        study = self._study
        plan = make_plan(study.analysis, study.curves, counts, study.options)
        if study.progress is not None:
            study.progress(_TRYING, len(self._seen), self._most)
        fitting = phase(study.progress, "fitting layers")
        return recover(
            study.analysis,
            plan,
            study.statistics,
            study.dataset,
            replace(study.options, sweeps=1),
            departure=self._departure,
            progress=fitting,
        )
