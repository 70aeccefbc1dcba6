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
from onnx_subprune.calibration import DEFAULT_BATCH_SIZE, Dataset, open_data
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.evaluate.class_agreement import ClassAgreement
from onnx_subprune.options import COSTS, Target
from onnx_subprune.plan import Plan
from onnx_subprune.planning.choice import choose
from onnx_subprune.planning.study import Study
from onnx_subprune.progress import begin
from onnx_subprune.recovery import OutputErrors, Recovered, better_than_none, recover

__all__ = ["Drop", "Fall", "Smallest", "fall_of", "no_classes", "no_samples", "smallest_network"]

_logger = logging.getLogger(__name__)

_LOWEST, _HIGHEST = 0.05, 0.95
_TRIALS = 8
_SEARCHING = "searching for the smallest network"


@dataclass(frozen=True)
class Drop:
    """By how much the metric of a target `drop` fell.

    Attributes:
        metric: its name: `top-1` on labelled data, `same class` (the share of calibration samples whose largest class
            is that of the dense network), or `given`, a function of the caller.
        allowed: the fall that was allowed.
        fall: the fall measured on the result.
        cost: that was made as small as the fall allows, one of `options.COSTS`.
        tried: the shares of the cost that were tried, and the falls measured there.

    """

    metric: str
    allowed: float
    fall: float
    cost: str
    tried: tuple[budget.Trial, ...]


@dataclass(frozen=True)
class Fall:
    """By how much a network is worse than the dense one.

    Attributes:
        metric: its name (`Drop.metric`).
        measure: the fall of a network.

    """

    metric: str
    measure: Callable[[onnx.ModelProto], float]


@dataclass(frozen=True, eq=False)
class Smallest:
    """The smallest network that was measured as allowed.

    Attributes:
        plan: says which units stay in it.
        network: as it was recovered and measured.
        warnings: for the user.
        output_errors: of the network, with and without its recovery.
        drop: the search that led to it.

    """

    plan: Plan
    network: Recovered
    warnings: Sequence[str]
    output_errors: OutputErrors | None
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
    dense, runtime = study.analysis.model, study.options.runtime
    batch_size = _measured_batch_size(study)
    if callable(evaluation):
        dense_value = float(evaluation(dense))
        return Fall("given", lambda model: dense_value - float(evaluation(model)))
    if evaluation is not None:
        data = evaluation if isinstance(evaluation, Dataset) else open_data(evaluation, study.analysis.inputs)

        def accuracy(model: onnx.ModelProto) -> float:
            return evaluate.top1(model, data, **vars(replace(runtime, batch_size=batch_size))).accuracy

        dense_accuracy = accuracy(dense)
        return Fall("top-1", lambda model: dense_accuracy - accuracy(model))
    return Fall("same class", _class_changes(study))


def smallest_network(study: Study, fall: Fall) -> Smallest:
    """Return the network of the smallest cost that falls by at most the share that the target allows.

    Args:
        study: with the losses that its allocation asks for (`measure_losses`).
        fall: by how much a network is worse than the dense one.

    Raises:
        TargetError: no budget of the search leads to one.

    """
    allowed, cost = study.options.target.value, study.options.cost or COSTS[0]
    search = _Search(study, fall, cost)
    searched = budget.smallest(search.fall_at, _LOWEST, _HIGHEST, allowed, evaluations=_TRIALS)
    if study.progress is not None:
        study.progress(_SEARCHING, _TRIALS, _TRIALS)
    if search.best is None or searched.best is None:
        least = min(trial.fall for trial in searched.tried)
        raise TargetError(
            f"expected a network that falls by at most {allowed:g}, found a fall of {least:.4f} at {_HIGHEST:g} of the "
            f"{cost}; ask for drop={least:.4f} or more",
            least,
        )
    return Smallest(*search.best, Drop(fall.metric, allowed, searched.best.fall, cost, searched.tried))


class _Search:
    """Networks made at one budget after the other; the smallest that is allowed is kept."""

    def __init__(self, study: Study, fall: Fall, cost: str) -> None:
        self._study, self._fall, self._cost = study, fall, cost
        self._tried = 0
        self._fraction = math.inf
        self.best: tuple[Plan, Recovered, Sequence[str], OutputErrors | None] | None = None

    def fall_at(self, fraction: float) -> float:
        """Return the fall of the network that costs this share; infinite where there is none."""
        study = self._study
        if study.progress is not None:
            study.progress(_SEARCHING, self._tried, _TRIALS)
        self._tried += 1
        # The search needs a network that was measured as good enough, not the best of several at each budget.
        options = replace(study.options, target=Target(self._cost, round(fraction, 4)), cost=None, trials=0)
        budgeted = replace(study, options=options)
        try:
            plan, warnings, _ = choose(budgeted)
        except TargetError:
            return math.inf
        network, errors = better_than_none(budgeted, plan, recover(budgeted, plan))
        begin(study.progress, "measuring the fall")
        fall = self._fall.measure(network.model)
        _logger.info("%s: the metric falls by %.4f", options.target, fall)
        if fall <= study.options.target.value and fraction < self._fraction:
            self._fraction, self.best = fraction, (plan, network, warnings, errors)
        return fall


def _measured_batch_size(study: Study) -> int:
    # What is measured must not depend on the option, but a network may take one sample at a time only.
    return 1 if study.options.batch_size == 1 else DEFAULT_BATCH_SIZE


def _class_changes(study: Study) -> Callable[[onnx.ModelProto], float]:
    """Return what measures the share of calibration samples whose largest class is not that of the dense network."""
    if study.dataset is None:
        raise no_samples()
    runtime = replace(study.options.runtime, batch_size=_measured_batch_size(study))
    agreement = ClassAgreement(study.analysis.model, study.dataset, runtime, study.analysis.outputs_at)

    def changes(model: onnx.ModelProto) -> float:
        share = agreement(model)
        if share is None:
            raise no_classes(study.analysis.outputs_at)
        return 1.0 - share

    return changes


def no_samples() -> OptionError:
    """Return the error of a search for which there are no samples."""
    return OptionError("expected data to measure the fall of a metric on, found statistics alone; give --data")


def no_classes(named: Sequence[str]) -> OptionError:
    """Return the error of a search in a network whose outputs hold no classes.

    Args:
        named: tensors that networks are compared at, in the place of the outputs.

    """
    return OptionError(
        f"expected {_classes_of(named)} to compare, as scores [samples, classes], of a sequence or of a map, or as "
        "class numbers, found none; give labelled --data"
    )


def _classes_of(named: Sequence[str]) -> str:
    return f"classes at every one of {', '.join(map(repr, named))}" if named else "an output of classes"
