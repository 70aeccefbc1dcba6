"""What is known to fail is refused before anything is calibrated: targets out of reach, and data that is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx_subprune import budget
from onnx_subprune.calibration import Dataset, FirstSamples
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.evaluate.class_agreement import ClassAgreement
from onnx_subprune.model import run
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options, Target
from onnx_subprune.planning.allocation import allocate
from onnx_subprune.planning.drop_search import no_classes, no_samples
from onnx_subprune.planning.measured_cost import check_reached, within_measured
from onnx_subprune.planning.rehearsal import made_up_curves
from onnx_subprune.planning.study import Study
from onnx_subprune.structure import Group

__all__ = ["check_data", "check_reachable"]


def check_reachable(analysis: Analysis, groups: Sequence[Group], options: Options) -> None:
    """Refuse a target that even the smallest widths do not meet: what they cost depends on no data.

    Args:
        analysis: of the dense network.
        groups: that may be pruned.
        options: the target, and what widths are multiples of.

    Raises:
        ModelError: the cost of the network cannot be counted.
        TargetError: the target is out of reach; `nearest` is the smallest that is not.

    """
    target, cost = options.target, analysis.cost
    if not analysis.structure.prunable or target.value >= 1.0:
        return
    curves = made_up_curves(analysis, groups, options)
    if target.kind in ("macs", "params"):
        _check_cost(analysis, curves, options)
    if target.kind == "units":
        widths, _ = allocate(analysis.structure, curves, target)
        removes = any(widths[curve.group] < curve.size for curve in curves)
        check_reached(target, cost, cost, removes=removes)


def _check_cost(analysis: Analysis, curves: Sequence[budget.Curve], options: Options) -> None:
    def shared(target: Target) -> tuple[dict[str, int], list[str]]:
        # The smallest widths are the same by every allocation; this one is the cheapest.
        return allocate(analysis.structure, curves, target, "uniform")

    try:
        shared(options.target)
    except TargetError:
        # What the smallest network costs as it is written, biases included, is what can be asked for.
        within_measured(shared, analysis, options)


def check_data(
    analysis: Analysis,
    dataset: Dataset | None,
    options: Options,
    evaluation: Any,
) -> None:
    """Refuse a run that needs samples it has not got, or classes that no output has.

    Args:
        analysis: of the dense network.
        dataset: calibration samples; None where there are statistics alone.
        options: what the run does.
        evaluation: what a target `drop` is measured on; None for the classes of the samples.

    Raises:
        OptionError: the run would end in it after the long work.

    """
    runs = {
        "allocation 'measured'": Study(analysis, None, None, options).measures_losses,
        "exact recovery": options.recovery == "exact" and options.target.value < 1.0,
    }
    if dataset is None and any(runs.values()):
        raise OptionError(
            "expected calibration data, found statistics alone: "
            f"{' and '.join(name for name, needed in runs.items() if needed)} would run samples; give --calib, or ask "
            "for --effort fast"
        )
    if options.target.kind == "drop" and evaluation is None:
        _check_classes(analysis, dataset, options)


def _check_classes(analysis: Analysis, dataset: Dataset | None, options: Options) -> None:
    if dataset is None:
        raise no_samples()
    first = FirstSamples(dataset, 1)
    if ClassAgreement(analysis.model, first, options.runtime, options.outputs_at)(analysis.model) is not None:
        return
    outputs = run(options.runtime.session(analysis.model), next(iter(first.batches(1))))
    # Of an output without entries nothing is known: other samples may have classes.
    if all(getattr(value, "size", 0) for value in outputs.values()):
        raise no_classes(options.outputs_at)
