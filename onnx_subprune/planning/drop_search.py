"""`drop=`: the smallest network whose metric falls by at most so much, found by search over budgets.

Statistics, curves and measured losses are taken once; each point of the search is a whole prune, recovery and
measurement.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from onnx_subprune import budget, evaluate
from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.model import input_specs
from onnx_subprune.options import COSTS, Options, Target
from onnx_subprune.plan import Plan
from onnx_subprune.planning.choice import Study, choose
from onnx_subprune.progress import begin, phase
from onnx_subprune.recovery import Recovered, recover
from onnx_subprune.result import Drop

__all__ = ["Fall", "Smallest", "fall_of", "smallest_network"]

_logger = logging.getLogger(__name__)

_LOWEST, _HIGHEST = 0.05, 0.95
_TRIALS = 8
_SEARCHING = "searching for the smallest network"


@dataclass(frozen=True)
class Fall:
    """By how much a network is worse than the dense one, and the name of the metric that says so (`result.Drop`)."""

    metric: str
    of: Callable[[onnx.ModelProto], float]


@dataclass(frozen=True, eq=False)
class Smallest:
    """The smallest network that was measured as allowed, how it was made, and what the user should know of its plan."""

    plan: Plan
    recovered: Recovered
    warnings: Sequence[str]
    drop: Drop


def fall_of(study: Study, evaluation: Any) -> Fall:
    """Return what says by how much a network is worse than the dense one.

    Args:
        study: of the network.
        evaluation: labelled data: the fall of top-1 accuracy, 0 to 1; a function of a model, the larger the better;
            None: the share of calibration samples whose largest class is another one.

    Raises:
        OptionError: there is nothing to measure.

    """
    dense, options = study.analysis.model, study.options
    if callable(evaluation):
        before = float(evaluation(dense))
        return Fall("given", lambda model: before - float(evaluation(model)))
    if evaluation is not None:
        data = evaluation if isinstance(evaluation, Dataset) else open_data(evaluation, input_specs(dense))

        def accuracy(model: onnx.ModelProto) -> float:
            return evaluate.top1(model, data, providers=options.providers, threads=options.threads).accuracy

        known = accuracy(dense)
        return Fall("top-1", lambda model: known - accuracy(model))
    return Fall("same class", lambda model: _disagreement(study, model))


def smallest_network(study: Study, fall: Fall) -> Smallest:
    """Return the network of the smallest cost that falls by at most what the target allows; `study` is `scaled`.

    Raises:
        TargetError: no budget of the search does.

    """
    allowed, cost = study.options.target.value, study.options.cost or COSTS[0]
    search = _Search(study, fall, cost)
    found = budget.smallest(search.at, _LOWEST, _HIGHEST, allowed, evaluations=_TRIALS)
    if study.progress is not None:
        study.progress(_SEARCHING, _TRIALS, _TRIALS)
    if search.best is None or found.best is None:
        least = min(trial.fall for trial in found.tried)
        raise TargetError(
            f"expected a network that falls by at most {allowed:g}, found a fall of {least:.4f} at {_HIGHEST:g} of the "
            f"{cost}; ask for drop={least:.4f} or more",
            least,
        )
    drop = Drop(fall.metric, allowed, found.best.fall, cost, found.tried)
    return Smallest(*search.best, drop)


class _Search:
    """Networks made at one budget after the other; the smallest that is allowed is kept."""

    def __init__(self, study: Study, fall: Fall, cost: str) -> None:
        self._study, self._fall, self._cost = study, fall, cost
        self._tried = 0
        self._fraction = math.inf
        self.best: tuple[Plan, Recovered, Sequence[str]] | None = None

    def at(self, fraction: float) -> float:
        """Return the fall of the network that costs this share; infinite where there is none."""
        study = self._study
        if study.progress is not None:
            study.progress(_SEARCHING, self._tried, _TRIALS)
        self._tried += 1
        # One that was measured to be good enough is found, not the best of several at each budget.
        options = replace(study.options, target=Target(self._cost, round(fraction, 4)), cost=None, trials=0)
        try:
            plan, warnings, _ = choose(replace(study, options=options))
        except TargetError:
            return math.inf
        fitting = phase(study.progress, "fitting layers")
        found = recover(
            study.analysis,
            plan,
            study.statistics,
            study.dataset,
            options,
            departure=study.departure,
            progress=fitting,
        )
        begin(study.progress, "measuring the fall")
        fallen = self._fall.of(found.model)
        _logger.info("%s: the metric falls by %.4f", options.target, fallen)
        if fallen <= study.options.target.value and fraction < self._fraction:
            self._fraction, self.best = fraction, (plan, found, warnings)
        return fallen


def _disagreement(study: Study, model: onnx.ModelProto) -> float:
    if study.dataset is None:
        raise OptionError("expected data to measure the fall of a metric on, found statistics alone; give --data")
    options: Options = study.options
    found = evaluate.fidelity(
        study.analysis.model, model, study.dataset, providers=options.providers, threads=options.threads
    )
    agreements = [one.agreement for one in found.outputs.values() if one.agreement is not None]
    if not agreements:
        raise OptionError(
            "expected an output [samples, classes] to compare the largest class of, found none; give labelled --data"
        )
    return 1.0 - min(agreements)
