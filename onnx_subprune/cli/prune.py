"""`onnx-subprune prune`: calibrate, choose, recover, shrink, verify, save."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer

from onnx_subprune import pipeline
from onnx_subprune.cli.outcome import Ending, labelled_data
from onnx_subprune.cli.outputs import check_outputs, check_room, saved_statistics
from onnx_subprune.cli.parameters import (
    Allocation,
    BatchSize,
    Cache,
    Calib,
    CostName,
    CustomOps,
    DryRun,
    Effort,
    Ignore,
    InputShapes,
    Json,
    LabelledData,
    LatencyBatch,
    Model,
    OnePass,
    Only,
    OutOrNothing,
    OutputsAt,
    PlanFile,
    Providers,
    PruneNormalised,
    Quiet,
    Recovery,
    Remeasure,
    ReportFile,
    Ridge,
    RoundTo,
    Samples,
    Seed,
    Select,
    StatisticsFile,
    StripInitializerInputs,
    Sweeps,
    TargetText,
    Threads,
    Timed,
    TimeLimit,
    Verbose,
    libraries,
    parsed,
)
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.errors import OptionError
from onnx_subprune.model import register_custom_ops
from onnx_subprune.options import Options

__all__ = ["prune"]


def prune(
    context: typer.Context,
    model: Model,
    out: OutOrNothing = None,
    *,
    target: TargetText,
    calib: Calib = None,
    cost: CostName = None,
    data: LabelledData = None,
    effort: Effort = "balanced",
    select: Select = None,
    recovery: Recovery = None,
    one_pass: OnePass = None,
    sweeps: Sweeps = None,
    allocation: Allocation = None,
    round_to: RoundTo = None,
    ignore: Ignore = None,
    only: Only = None,
    ridge: Ridge = Options.ridge,
    prune_normalised: PruneNormalised = False,
    strip_initializer_inputs: StripInitializerInputs = False,
    outputs_at: OutputsAt = None,
    statistics: StatisticsFile = None,
    samples: Samples = None,
    seed: Seed = Options.seed,
    batch_size: BatchSize = Options.batch_size,
    input_shapes: InputShapes = None,
    providers: Providers = None,
    threads: Threads = None,
    custom_ops: CustomOps = None,
    cache: Cache = True,
    latency_batch: LatencyBatch = None,
    remeasure: Remeasure = False,
    time_limit: TimeLimit = None,
    plan: PlanFile = None,
    report_file: ReportFile = None,
    timing: Timed = None,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Prune MODEL to a target and write OUT; what removed units contributed is recovered by least squares."""
    if out is None and not dry_run:
        raise typer.BadParameter("missing argument 'OUT': it may be left out with --dry-run only")
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        options = Options.of_effort(
            effort,
            **parsed(
                target=target,
                cost=cost,
                select=select,
                recovery=recovery,
                one_pass=one_pass,
                sweeps=sweeps,
                allocation=allocation,
                round_to=round_to,
                ignore=ignore,
                only=only,
                samples=samples,
                seed=seed,
                batch_size=batch_size,
                ridge=ridge,
                prune_normalised=prune_normalised,
                strip_initializer_inputs=strip_initializer_inputs,
                outputs_at=outputs_at,
                providers=providers,
                threads=threads,
                custom_ops=custom_ops,
                cache=cache,
                input_shapes=input_shapes,
                latency_batch=latency_batch,
                remeasure=remeasure,
                time_limit=time_limit,
            ),
        )
        written = {"OUT": out, "--plan": plan, "--report": report_file, "--statistics": statistics if calib else None}
        read = {"MODEL": model, "--calib": calib, "--data": data, "--statistics": None if calib else statistics}
        read |= libraries(custom_ops)
        _check(read, written, dry_run=dry_run)
        check_room(model, None if dry_run else out, options.target)
        register_custom_ops(options.custom_ops)
        loaded = saved_statistics(calib, statistics)
        labelled = labelled_data(data, model)
        with screen.progress() as progress:
            if calib and statistics is not None and not dry_run:
                # Saved before anything that may still fail: a target out of reach must not cost the calibration.
                loaded = pipeline.calibrate(model, calib, options, progress=progress)
                loaded.save(statistics)
                written["--statistics"] = None
            result = pipeline.prune(model, calib, options, statistics=loaded, evaluation=labelled, progress=progress)
            ending = Ending(written, calib, calib or str(statistics), labelled, timing, context.obj or (), dry=dry_run)
            measured = ending.measure(result, progress)
        ending.finish(result, measured, screen)


def _check(read: Mapping[str, Path | str | None], written: Mapping[str, Path | None], *, dry_run: bool) -> None:
    if dry_run:
        others = [name for name, path in written.items() if path is not None and name != "OUT"]
        if others:
            raise OptionError(f"expected --dry-run to write nothing, found {others[0]} too; leave one of them out")
    else:
        check_outputs(read, written)
