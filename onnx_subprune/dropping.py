"""`drop=`: the smallest network whose metric falls by at most so much, found by search over budgets.

Statistics, curves and measured losses are taken once; each point of the search is a whole prune, recovery and
measurement.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx

from onnx_subprune import budget, evaluate
from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.choosing import Study, choose
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.model import input_specs
from onnx_subprune.options import Options, Target
from onnx_subprune.phases import begin, phase
from onnx_subprune.recovery import recovered

__all__ = ["Fall", "fall_of", "smallest_target"]

_logger = logging.getLogger(__name__)

Fall = Callable[[onnx.ModelProto], float]
_LOWEST, _HIGHEST = 0.05, 0.95
_TRIALS = 8
_SEARCHING = "searching for the smallest network"


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
        return lambda model: before - float(evaluation(model))
    if evaluation is not None:
        data = evaluation if isinstance(evaluation, Dataset) else open_data(evaluation, input_specs(dense))

        def accuracy(model: onnx.ModelProto) -> float:
            return evaluate.top1(model, data, providers=options.providers, threads=options.threads).accuracy

        known = accuracy(dense)
        return lambda model: known - accuracy(model)
    return lambda model: _disagreement(study, model)


def smallest_target(study: Study, fall: Fall) -> Target:
    """Return the smallest share of MACs whose network falls by at most what the target allows; `study` is `scaled`.

    Raises:
        TargetError: no budget of the search does.

    """
    allowed = study.options.target.value

    tried = 0

    def at(fraction: float) -> float:
        nonlocal tried
        if study.progress is not None:
            study.progress(_SEARCHING, tried, _TRIALS)
        tried += 1
        options = replace(study.options, target=_rounded(fraction), trials=0)
        try:
            plan, _ = choose(replace(study, options=options))
        except TargetError:
            return math.inf
        fitting = phase(study.progress, "fitting layers")
        found = recovered(study.analysis, plan, study.statistics, study.dataset, options, progress=fitting)
        begin(study.progress, "measuring the fall")
        fallen = fall(found.model)
        _logger.info("%s: the metric falls by %.4f", options.target, fallen)
        return fallen

    found = budget.smallest(at, _LOWEST, _HIGHEST, allowed, evaluations=_TRIALS)
    if study.progress is not None:
        study.progress(_SEARCHING, _TRIALS, _TRIALS)
    if found.best is None:
        least = min(trial.fall for trial in found.tried)
        raise TargetError(
            f"expected a network that falls by at most {allowed:g}, found a fall of {least:.4f} at {_HIGHEST:g} of the "
            f"MACs; ask for drop={least:.4f} or more",
            least,
        )
    return _rounded(found.best.fraction)


def _rounded(fraction: float) -> Target:
    return Target("macs", round(fraction, 4))


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
