"""`onnx-subprune apply`: replay a saved plan."""

from __future__ import annotations

import typer

from onnx_subprune import pipeline
from onnx_subprune.cli.outcome import Ending
from onnx_subprune.cli.outputs import check_outputs, saved_statistics
from onnx_subprune.cli.parameters import (
    BatchSize,
    Cache,
    Calib,
    CustomOps,
    InputShapes,
    Json,
    Model,
    Out,
    OutputsAt,
    PlanArgument,
    Providers,
    Quiet,
    ReportFile,
    Samples,
    Seed,
    StatisticsFile,
    StripInitializerInputs,
    Threads,
    Timed,
    Verbose,
    libraries,
    parsed,
)
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.options import Options
from onnx_subprune.plan import Plan

__all__ = ["apply"]


def apply(
    context: typer.Context,
    plan: PlanArgument,
    model: Model,
    out: Out,
    *,
    calib: Calib = None,
    statistics: StatisticsFile = None,
    samples: Samples = None,
    seed: Seed = Options.seed,
    batch_size: BatchSize = Options.batch_size,
    input_shapes: InputShapes = None,
    strip_initializer_inputs: StripInitializerInputs = False,
    outputs_at: OutputsAt = None,
    providers: Providers = None,
    threads: Threads = None,
    custom_ops: CustomOps = None,
    cache: Cache = True,
    report_file: ReportFile = None,
    timing: Timed = None,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Replay PLAN on MODEL; with the same data and options OUT is the model that `prune` wrote."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        options = Options(
            **parsed(
                samples=samples,
                seed=seed,
                batch_size=batch_size,
                providers=providers,
                threads=threads,
                custom_ops=custom_ops,
                cache=cache,
                input_shapes=input_shapes,
                strip_initializer_inputs=strip_initializer_inputs,
                outputs_at=outputs_at,
            )
        )
        written = {"OUT": out, "--report": report_file, "--statistics": statistics if calib else None}
        read = {"MODEL": model, "PLAN": plan, "--calib": calib, "--statistics": None if calib else statistics}
        read |= libraries(custom_ops)
        check_outputs(read, written)
        saved = Plan.load(plan)
        loaded = saved_statistics(calib, statistics, needed=saved.options.recovery == "channel")
        with screen.progress() as progress:
            result = pipeline.apply(saved, model, calib, options, statistics=loaded, progress=progress)
            ending = Ending(written, calib, calib or str(statistics), timing=timing, command=context.obj or ())
            measured = ending.measure(result, progress)
        ending.finish(result, measured, screen)
