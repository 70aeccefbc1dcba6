"""The one way through the house, read top to bottom.

load -> normalise -> structure -> calibrate -> rank -> measure -> budget -> recover -> shrink -> refit -> verify -> save
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import onnx

from onnx_subprune import budget, passes
from onnx_subprune.calibration import Dataset, Statistics
from onnx_subprune.errors import OptionError, PlanError, TargetError
from onnx_subprune.evaluate.output_error import Departure
from onnx_subprune.model import measure_cost, model_bytes
from onnx_subprune.network.analysis import Analysis, ModelSource, analyse
from onnx_subprune.network.inputs import check_statistics, prepare, probe, pruning_statistics
from onnx_subprune.network.taps import taps_of
from onnx_subprune.network.verify import check_structure, verify
from onnx_subprune.options import AUTO, Options, Target
from onnx_subprune.plan import Plan
from onnx_subprune.planning.choice import Choice, Study, choose, scaled
from onnx_subprune.planning.curves import rank_groups
from onnx_subprune.planning.drop_search import fall_of, smallest_network
from onnx_subprune.planning.latency import Clock, fast_multiples, stepped, timed_shapes
from onnx_subprune.progress import Watch, begin, phase
from onnx_subprune.recovery import Recovered, recover, resume
from onnx_subprune.recovery.exact import Refit
from onnx_subprune.result import Result
from onnx_subprune.structure import Group, Structure

_logger = logging.getLogger(__name__)

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
        TargetError: the target cannot be met.
        InternalError: the result failed verification.

    """
    options = options or Options()
    begin(progress, "reading the model")
    analysis, dataset = prepare(model, data, options, statistics)
    timed_shapes(analysis, options.latency_batch)
    groups = _chosen(analysis.structure, options)
    statistics = statistics or pruning_statistics(analysis, dataset, options, phase(progress, "calibrating"))
    check_statistics(
        statistics,
        analysis,
        taps_of(analysis.structure),
        "calibrate with the same --prune-normalised as you prune with",
    )
    curves = rank_groups(analysis, groups, statistics, options, progress=phase(progress, "ranking units"))
    curves, clock, told = _on_this_machine(analysis, curves, options, progress)
    departure = _departure(analysis, dataset, options)
    study = scaled(Study(analysis, curves, statistics, dataset, options, progress, clock, departure))
    carry_out = partial(
        _carry_out, analysis, statistics=statistics, options=options, dataset=dataset, progress=progress
    )
    if options.target.kind == "drop":
        # What is returned is what was measured.
        found = smallest_network(study, fall_of(study, evaluation))
        result = replace(
            carry_out(found.plan, found=found.recovered, warnings=[*told, *found.warnings]), drop=found.drop
        )
    else:
        result = _made(choose(study), carry_out, departure, told)
    if clock is not None:
        result = _confirmed(result, clock, progress)
        if result.latency is not None and _misses(result) and options.target.kind == "latency":
            # What the finished network takes is one more measurement of its widths: there may be better ones.
            clock.remember(_widths(result.plan), result.latency)
            choice = choose(study)
            if _widths(choice.plan) != _widths(result.plan):
                result = _confirmed(_made(choice, carry_out, departure, told), clock, progress)
        result = _told(result)
    return replace(result, curves=tuple(study.curves), losses_at="outputs" if study.measures else "consumers")


def _made(
    choice: Choice, carry_out: Callable[..., Result], departure: Departure | None, warnings: Sequence[str]
) -> Result:
    plan, more, begun = choice
    return carry_out(plan, departure=departure, begun=begun, warnings=[*warnings, *more])


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

    Raises:
        PlanError: the plan belongs to another model, or needs data or statistics that were not given.

    """
    options = (options or Options()).with_recovery(plan.options)
    begin(progress, "reading the model")
    analysis, dataset = prepare(model, data, options, statistics)
    if plan.fingerprint != analysis.fingerprint:
        raise PlanError(
            f"expected the model that the plan was made for ({plan.fingerprint[:12]}), "
            f"found {analysis.fingerprint[:12]}; apply the plan to that model or make a new one"
        )
    if plan.options.recovery == "exact" and dataset is None:
        found = "nothing" if statistics is None else "statistics alone"
        raise PlanError(
            f"the plan recovers exactly, which runs samples: expected calibration data, found {found}; give --calib"
        )
    if plan.options.recovery != "none" and statistics is None:
        if dataset is None:
            raise PlanError(
                f"the plan recovers by '{plan.options.recovery}' and needs calibration data or statistics, found "
                "neither; give --calib or --statistics"
            )
        statistics = pruning_statistics(analysis, dataset, options, phase(progress, "calibrating"))
    if statistics is not None:
        check_statistics(
            statistics, analysis, taps_of(analysis.structure), "give those of the run that made the plan, or --calib"
        )
    departure = _departure(analysis, dataset, options)
    return _carry_out(analysis, plan, statistics, options, dataset, departure=departure, progress=progress)


def calibrate(
    model: ModelSource, data: Any, options: Options | None = None, *, progress: Watch | None = None
) -> Statistics:
    """Take the statistics that `prune` needs, to save them or to use them for several targets.

    Raises:
        ModelError, DataError, OptionError: the input is at fault, or nothing in the model can be pruned.

    """
    options = options or Options()
    begin(progress, "reading the model")
    analysis, dataset = prepare(model, data, options)
    return pruning_statistics(analysis, dataset, options, phase(progress, "calibrating"))


def _chosen(structure: Structure, options: Options) -> list[Group]:
    """Return the groups to prune; a pattern that matches nothing is the user's mistake."""
    for pattern in (*options.ignore, *options.only):
        if not any(group.matches(pattern) for group in structure.groups):
            names = ", ".join(group.name for group in structure.prunable[:3])
            raise OptionError(
                f"expected '{pattern}' to match a group, node or weight, found none that does; names look like {names}"
            )
    return [
        group
        for group in structure.prunable
        if not any(group.matches(pattern) for pattern in options.ignore)
        and (not options.only or any(group.matches(pattern) for pattern in options.only))
    ]


def _on_this_machine(
    analysis: Analysis, curves: list[budget.Curve], options: Options, progress: Watch | None
) -> tuple[list[budget.Curve], Clock | None, list[str]]:
    """Return the curves with widths that are fast here, where these are asked for, and what predicts latencies."""
    timed = options.cost == "latency" or (options.target.kind == "latency" and options.target.value < 1.0)
    if not timed and options.round_to != AUTO:
        return curves, None, []
    multiples = fast_multiples(analysis.model, options, phase(progress, "measuring which widths are fast"))
    curves = stepped(curves, analysis.structure, multiples.of)
    if not timed:
        return curves, None, list(multiples.warnings)
    clock = Clock(analysis, curves, options, multiples, progress=phase(progress, "measuring latencies"))
    return curves, clock, []


def _confirmed(result: Result, clock: Clock, progress: Watch | None) -> Result:
    """Return the result with the latency of what is given back, measured."""
    begin(progress, "measuring the result")
    return replace(result, latency=clock.confirmed(result.model, _widths(result.plan)))


def _widths(plan: Plan) -> dict[str, int]:
    return plan.widths


def _misses(result: Result) -> bool:
    """Whether the finished network takes longer than its target allows."""
    target = Target.parse(result.plan.target)
    return result.latency is not None and result.latency.measured > target.value * (1 + budget.TOLERANCE)


def _told(result: Result) -> Result:
    """Return the result with a warning where its latency misses the target.

    Raises:
        TargetError: it takes longer than the dense network.

    """
    if result.latency is None or not _misses(result):
        return result
    target, measured = Target.parse(result.plan.target), result.latency.measured
    if measured > 1.0:
        raise TargetError(
            f"expected to reach {target}, but the finished network takes {measured:.3f} of the time of the dense one: "
            "the machine is noisy, try again when it is not, or ask for macs=F",
            1.0,
        )
    warning = (
        f"{target} was met while the widths were chosen; measured once more the result takes {measured:.3f} of the "
        "time of the dense network: the machine is noisy, use `bench` when it is not"
    )
    return replace(result, warnings=(*result.warnings, warning))


def _departure(analysis: Analysis, dataset: Dataset | None, options: Options) -> Departure | None:
    return None if dataset is None else Departure(analysis.normalised, dataset, options, 4 * options.probes)


def _carry_out(
    analysis: Analysis,
    plan: Plan,
    statistics: Statistics | None,
    options: Options,
    dataset: Dataset | None,
    *,
    departure: Departure | None = None,
    found: Recovered | None = None,
    begun: Recovered | None = None,
    warnings: Sequence[str] = (),
    progress: Watch | None = None,
) -> Result:
    """Recover and shrink, if that has not been done yet (`found`) or no more than one sweep (`begun`), and verify."""
    dense = measure_cost(analysis.model, analysis.input_shapes)
    errors: dict[str, float] = {}
    fit: Refit | None = None
    if plan.removes:
        _logger.info("%d groups could be removed as a whole", len(analysis.structure.removable))
        begin(progress, "removing units")
        fitting = phase(progress, "fitting layers")
        if begun is not None and dataset is not None and departure is not None:
            found = resume(begun, analysis, plan, dataset, options, departure=departure, progress=fitting)
        found = found or recover(analysis, plan, statistics, dataset, options, departure=departure, progress=fitting)
        model, errors, fit, warnings = found.model, dict(found.errors), found.fit, [*warnings, *found.warnings]
    else:
        model = onnx.ModelProto()
        model.CopyFrom(analysis.model)
    pruned = measure_cost(model, analysis.input_shapes)
    passes.write_stamp(
        model,
        passes.Stamp(plan.target, dense.macs, pruned.macs, dense.parameters, pruned.parameters, plan.fingerprint),
    )
    pruned = replace(pruned, bytes=model_bytes(model))
    if plan.removes:
        begin(progress, "verifying")
        feeds = probe(analysis, dataset, options)
        check_structure(analysis, plan, feeds)
        verify(model, analysis.model, feeds)
    return Result(model, plan, dense, pruned, statistics, analysis, errors, tuple(warnings), options, fit=fit)
