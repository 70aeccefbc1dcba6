"""The one way through the house, read top to bottom.

load -> normalise -> structure -> calibrate -> rank -> measure -> budget -> recover -> shrink -> refit -> verify -> save
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onnx_subprune.calibration import Dataset, Statistics
from onnx_subprune.errors import PlanError
from onnx_subprune.evaluate.feeds import made_up
from onnx_subprune.model.compared_models import restore_draws
from onnx_subprune.network.analysis import Analysis, ModelSource, analyse
from onnx_subprune.network.calibrated import Calibrated, output_distance
from onnx_subprune.network.finishing import finish
from onnx_subprune.network.input_checks import checked_inputs
from onnx_subprune.network.inputs import check_pruning_statistics, open_dataset, prepare, probe, pruning_statistics
from onnx_subprune.network.kept_work import has_statistics, kept_losses, kept_statistics
from onnx_subprune.network.named_outputs import drop_unread
from onnx_subprune.network.rewrite import dense_copy
from onnx_subprune.network.selection import chosen_groups
from onnx_subprune.network.stamping import stamp
from onnx_subprune.network.tapped_features import reached_groups
from onnx_subprune.network.verify import check_normalised, check_structure, check_sunk, verify
from onnx_subprune.options import Options
from onnx_subprune.plan import Plan
from onnx_subprune.planning.choice import Choice, choose, choose_again
from onnx_subprune.planning.course import Course
from onnx_subprune.planning.drop_search import fall_of, smallest_network
from onnx_subprune.planning.latency import check_latency, fast_widths, timed_shapes
from onnx_subprune.planning.loss_curves import rank_groups
from onnx_subprune.planning.measured_cost import check_reached
from onnx_subprune.planning.reachable import check_data, check_reachable
from onnx_subprune.planning.sensitivity import measure_losses
from onnx_subprune.planning.study import Study
from onnx_subprune.planning.time_limit import foresee
from onnx_subprune.progress import PhaseClock, Watch, begin, phase
from onnx_subprune.recovery import OutputErrors, Recovered, better_than_none, recover, resume, unmeasured_share
from onnx_subprune.result import Result

_logger = logging.getLogger(__name__)

_CHOICES = 2
"""So often other widths are chosen where the finished network takes too long."""

__all__ = ["Analysis", "Result", "analyse", "apply", "calibrate", "prune"]


def prune(
    model: ModelSource,
    data: Any,
    options: Options | None = None,
    *,
    statistics: Statistics | None = None,
    evaluation: Any = None,
    progress: Watch | None = None,
) -> Result:
    """Prune a model to a target and recover what the removed units contributed.

    Args:
        model: a path or a loaded model; it is not changed.
        data: unlabelled calibration inputs, anything that `calibration.open_data` takes; None with `statistics`.
        options: the target and how to reach it.
        statistics: of an earlier calibration of the same model, used instead of a calibration on `data`.
        evaluation: for a target `drop`: labelled data, or a function of a model that is larger for better ones; without
            it the share of calibration samples is taken whose largest class changes.
        progress: called with the name of a phase, the steps done in it and their number (None if unknown);
            `progress_bar` gives one that draws.

    Raises:
        ModelError, DataError, OptionError: the input is at fault.
        TargetError: the target cannot be met, or what came out does not meet it.
        InternalError: the result failed verification.

    """
    options = options or Options()
    progress = clock = PhaseClock(progress)
    begin(progress, "reading the model")
    analysis, dataset = prepare(model, data, options, statistics)
    options, cautions = checked_inputs(analysis, dataset, options)
    # What cannot succeed is refused before the long work.
    timed_shapes(analysis, options.latency_batch)
    if statistics is not None:
        check_pruning_statistics(statistics, analysis, "calibrate with the same --prune-normalised as you prune with")
    groups = chosen_groups(analysis.structure, options)
    check_reachable(analysis, groups, options)
    if dataset is not None or statistics is not None:
        check_data(analysis, dataset, options, evaluation)
    with made_up(made=dataset is None):
        rounding = check_normalised(analysis, probe(analysis, dataset, options))
    calibrates = statistics is None and not has_statistics(analysis, data, options)
    read = clock.seconds
    begin(progress, "forecasting")
    opened = isinstance(data, Dataset)
    prospect = foresee(analysis, groups, dataset, options, read, calibrates=calibrates, fixed=opened)
    if prospect.options.samples != options.samples:
        dataset = open_dataset(data, analysis.inputs, prospect.options)
    options = prospect.options
    if statistics is None:
        statistics = _statistics(analysis, data, dataset, options, progress)
    groups, unseen = reached_groups(analysis.structure, groups, statistics)
    curves = rank_groups(analysis, groups, statistics, options, progress=phase(progress, "ranking units"))
    curves, meter, warnings = fast_widths(analysis, curves, options, progress)
    warnings = [*cautions, *prospect.warnings, *unseen, *warnings]
    distance = output_distance(analysis, dataset, options)
    study = Study(analysis, statistics, dataset, options, distance, progress, curves, meter, rounding=rounding)
    if study.measures_losses:
        study = measure_losses(study, kept_losses(analysis, data, statistics, options))
    if options.target.kind == "drop":
        smallest = smallest_network(study, fall_of(study, evaluation))
        # The result is the network that was measured.
        result = _finish(
            study, smallest.plan, smallest.network, [*warnings, *smallest.warnings], smallest.output_errors
        )
        result = _with_latency(study, replace(result, drop=smallest.drop))
    else:
        result = _with_latency(study, _carry_out(study, choose(study), warnings))
        for _ in range(_CHOICES):
            again = None if result.latency is None else choose_again(study, result.plan, result.latency)
            if again is None:
                break
            result = _with_latency(study, _carry_out(study, again, warnings))
        check_reached(options.target, result.dense, result.pruned, removes=result.plan.removes)
    if result.latency is not None:
        check_latency(options, result.latency)
    return replace(
        result,
        curves=tuple(study.curves),
        losses_at="outputs" if study.measures_losses else "consumers",
        course=Course(prospect.forecast, prospect.left_out, clock.taken()),
    )


def apply(
    plan: Plan,
    model: ModelSource,
    data: Any = None,
    options: Options | None = None,
    *,
    statistics: Statistics | None = None,
    progress: Watch | None = None,
) -> Result:
    """Replay a saved plan on the model it was made for.

    With the data and options of the run that made the plan, the result is the same model. A plan with exact recovery
    needs the data; for one with recovery by channel the statistics will do.

    Args:
        plan: says which units stay and how their consumers make up for the others.
        model: a path or a loaded model; it is not changed.
        data: unlabelled calibration inputs, as for `prune`.
        options: where and how networks run; ranking and recovery are those of the plan.
        statistics: of an earlier calibration of the same model, used instead of a calibration on `data`.
        progress: as for `prune`.

    Raises:
        PlanError: the plan belongs to another model, or needs data or statistics that were not given.

    """
    options = (options or Options()).with_recovery(plan.options)
    begin(progress, "reading the model")
    analysis, dataset = prepare(model, data, options, statistics)
    options, warnings = checked_inputs(analysis, dataset, options)
    if plan.fingerprint != analysis.fingerprint:
        raise PlanError(
            f"expected the model that the plan was made for ({plan.fingerprint[:12]}), "
            f"found {analysis.fingerprint[:12]}; apply the plan to that model or make a new one"
        )
    if options.recovery == "exact" and dataset is None:
        given = "nothing" if statistics is None else "statistics alone"
        raise PlanError(
            f"the plan recovers exactly, which runs samples: expected calibration data, found {given}; give --calib"
        )
    if options.recovery != "none" and statistics is None:
        if dataset is None:
            raise PlanError(
                f"the plan recovers by '{options.recovery}' and needs calibration data or statistics, found neither; "
                "give --calib or --statistics"
            )
        statistics = _statistics(analysis, data, dataset, options, progress)
    if statistics is not None:
        check_pruning_statistics(statistics, analysis, "give those of the run that made the plan, or --calib")
    with made_up(made=dataset is None):
        rounding = check_normalised(analysis, probe(analysis, dataset, options))
    distance = output_distance(analysis, dataset, options)
    calibrated = Calibrated(analysis, statistics, dataset, options, distance, progress, rounding=rounding)
    return _carry_out(calibrated, Choice(plan, []), warnings)


def calibrate(
    model: ModelSource, data: Any, options: Options | None = None, *, progress: Watch | None = None
) -> Statistics:
    """Take the statistics that `prune` needs, to save them or to use them for several targets.

    Args:
        model: a path or a loaded model; it is not changed.
        data: unlabelled calibration inputs, as for `prune`.
        options: which samples, where they run, and whether normalised axes may shrink.
        progress: as for `prune`.

    Raises:
        ModelError, DataError, OptionError: the input is at fault, or nothing in the model can be pruned.

    """
    options = options or Options()
    begin(progress, "reading the model")
    analysis, dataset = prepare(model, data, options)
    options, warnings = checked_inputs(analysis, dataset, options)
    for line in warnings:
        _logger.warning("%s", line)
    return _statistics(analysis, data, dataset, options, progress)


def _statistics(
    analysis: Analysis, data: Any, dataset: Dataset | None, options: Options, progress: Watch | None
) -> Statistics:
    """Return the statistics of an earlier run on the same data, or take them now."""
    calibrating = phase(progress, "calibrating")
    return kept_statistics(analysis, data, options, lambda: pruning_statistics(analysis, dataset, options, calibrating))


def _carry_out(calibrated: Calibrated, choice: Choice, warnings: Sequence[str] = ()) -> Result:
    """Recover and shrink by a choice, from the network after one sweep where that was made already, and verify."""
    network, errors = None, None
    # A model whose cost cannot be counted is refused before the long work.
    _logger.info("the dense network: %s", calibrated.analysis.cost)
    if choice.plan.removes:
        begin(calibrated.progress, "removing units")
        if choice.begun is None:
            network = recover(calibrated, choice.plan)
        else:
            network = resume(choice.begun, calibrated, choice.plan)
        network, errors = better_than_none(calibrated, choice.plan, network)
    more = unmeasured_share(calibrated.options, errors)
    return _finish(calibrated, choice.plan, network, [*warnings, *choice.warnings, *more], errors)


def _finish(
    calibrated: Calibrated,
    plan: Plan,
    network: Recovered | None,
    warnings: Sequence[str],
    output_errors: OutputErrors | None = None,
) -> Result:
    """Stamp and verify a network; without one, or where no unit goes, the result is the model as it was given."""
    analysis, options = calibrated.analysis, calibrated.options
    feeds = probe(analysis, calibrated.dataset, options)
    if network is None or not plan.removes:
        network = Recovered(dense_copy(analysis), {}, ())
    else:
        drop_unread(network.model, analysis.outputs_at)
        finished = finish(network.model, analysis)
        check_sunk(finished, network.model, analysis, feeds)
        network = replace(network, model=finished)
    restore_draws(network.model, analysis.model)
    pruned = stamp(network.model, analysis, plan.target)
    if plan.removes:
        _logger.info("%d groups could be removed as a whole", len(analysis.structure.removable))
        begin(calibrated.progress, "verifying")
        check_structure(analysis, plan, feeds, calibrated.rounding.tolerance)
        verify(network.model, analysis.model, feeds)
    of_samples = () if calibrated.statistics is None else calibrated.statistics.warnings
    return Result(
        model=network.model,
        plan=plan,
        dense=analysis.cost,
        pruned=pruned,
        statistics=calibrated.statistics,
        analysis=analysis,
        errors=dict(network.errors),
        warnings=(*of_samples, *warnings, *network.warnings),
        options=options,
        fit=network.fit,
        output_errors=output_errors,
        rounding=calibrated.rounding,
    )


def _with_latency(study: Study, result: Result) -> Result:
    """Return the result with the latency of its model, measured, where the target asks for it."""
    if study.meter is None:
        return result
    begin(study.progress, "measuring the result")
    return replace(result, latency=study.meter.confirm(result.model, result.plan.widths))
