"""Which units stay: from curves to a plan, by a budget on the curves or by what the network was seen to lose.

`measured` allocation scales every group's losses by the error at the outputs with that group alone pruned. With trials,
several allocations are carried out and the one whose outputs, on samples held out, stay closest to the dense network's
is taken; allocations near the best are tried until none is better.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_subprune import budget
from onnx_subprune.analysis import Analysis
from onnx_subprune.calibration import Dataset, Statistics
from onnx_subprune.departure import Departure
from onnx_subprune.errors import OptionError
from onnx_subprune.options import Options
from onnx_subprune.phases import Watch, begin, phase
from onnx_subprune.plan import Plan
from onnx_subprune.recovery import by_channel, recovered
from onnx_subprune.sensitivity import measured_curves
from onnx_subprune.widths import allocate, cost_of, make_plan

__all__ = ["Study", "choose", "scaled"]

_logger = logging.getLogger(__name__)

_STEP = 0.125
# Recovery by channel tells a collapse from a sound network, but not which of two sound ones ends up the better.
_CLEARLY = 0.5
_TRYING = "trying allocations"
_SHARED = ("macs", "params", "drop")


@dataclass(frozen=True, eq=False)
class Study:
    """All that choices are made from."""

    analysis: Analysis
    curves: Sequence[budget.Curve]
    statistics: Statistics
    dataset: Dataset | None
    options: Options
    progress: Watch | None = None

    @property
    def measures(self) -> bool:
        """Whether the network is run to share out the target."""
        target = self.options.target
        return self.options.allocation == "measured" and target.kind in _SHARED and target.value < 1.0


def scaled(study: Study) -> Study:
    """Return the study with losses that are errors at the outputs, where its allocation asks for them.

    Raises:
        OptionError: they are to be measured and there is no data to measure them on.

    """
    options = study.options
    if not study.measures:
        return study
    if study.dataset is None:
        raise OptionError(
            "expected calibration data, found statistics alone: allocation 'measured' runs samples; give --calib, or "
            "ask for --effort fast or another --allocation"
        )
    curves = measured_curves(
        study.analysis,
        study.curves,
        study.statistics,
        study.dataset,
        options,
        progress=phase(study.progress, "measuring sensitivities"),
    )
    return replace(study, curves=curves)


def choose(study: Study) -> tuple[Plan, list[str]]:
    """Return which units stay, and what the user should know of it; `study` is `scaled` already.

    Raises:
        TargetError: the target cannot be met.

    """
    options, structure = study.options, study.analysis.structure
    begin(study.progress, "sharing out the target")
    allocation = "loss" if options.allocation == "measured" else options.allocation
    counts, warnings = allocate(structure, study.curves, options.target, allocation)
    if study.measures and all(counts.values()):
        counts = _tried(study, counts)
    return make_plan(study.analysis, study.curves, counts, options), warnings


def _tried(study: Study, counts: dict[str, int]) -> dict[str, int]:
    """Return the best of several allocations, as carried out and run: by channel first, the better ones in earnest.

    What groups lose alone does not add up where they are pruned together, so that no computed budget is safe.
    """
    options = study.options
    cost = cost_of(study.analysis.structure, options.target)
    assert study.dataset is not None
    departure = Departure(study.analysis.normalised, study.dataset, options, 2 * options.probes)
    named = {"first": counts, **dict(budget.candidates(study.curves, cost, options.target.value))}
    quick = _Trials(replace(study, options=by_channel(options)), departure, most=len(named))
    quick.run(named)
    quick.finish()
    if not options.trials:
        return quick.best if quick.error < _CLEARLY * quick.errors["first"] else counts
    trials = _Trials(study, departure, most=options.trials)
    trials.run({name: named[name] for name in ["first", *quick.ranked()[: options.trials // 3]]})
    while trials.left:
        near = budget.neighbours(study.curves, trials.best, cost, options.target.value, _STEP)
        if not trials.run(dict(near)):
            break
    trials.finish()
    return trials.best


class _Trials:
    """Allocations that were carried out, each at most once, and the best of them."""

    def __init__(self, study: Study, departure: Departure, *, most: int) -> None:
        self._study = study
        self._departure = departure
        self._most = most
        self._seen: dict[tuple[tuple[str, int], ...], tuple[float, str]] = {}
        self.best: dict[str, int] = {}
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
            error = self._error(counts)
            self._seen[key] = (error, name)
            _logger.info("allocation %s: error at the outputs %.5f", name, error)
            if error < self.error:
                self.best, self.error, better = dict(counts), error, True
        return better

    def _error(self, counts: Mapping[str, int]) -> float:
        study = self._study
        plan = make_plan(study.analysis, study.curves, counts, study.options)
        if study.progress is not None:
            study.progress(_TRYING, len(self._seen), self._most)
        fitting = phase(study.progress, "fitting layers")
        found = recovered(study.analysis, plan, study.statistics, study.dataset, study.options, progress=fitting)
        return self._departure(found.model)
