"""`onnx-subprune prune`: calibrate, choose, recover, shrink, verify, save."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_subprune import pipeline
from onnx_subprune.cli.outcome import Ending, labelled_data
from onnx_subprune.cli.outputs import check_outputs, saved_statistics
from onnx_subprune.cli.parameters import (
    RUNTIME,
    BatchSize,
    Calib,
    InputShapes,
    Json,
    Model,
    Providers,
    PruneNormalised,
    Quiet,
    ReportFile,
    Samples,
    Seed,
    StatisticsFile,
    Threads,
    Timed,
    Verbose,
    multiple,
    names,
    shapes,
    strength,
)
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.errors import OptionError
from onnx_subprune.options import ALLOCATIONS, AUTO, COSTS, EFFORTS, RECOVERIES, SELECTIONS, TARGETS, Options, Target

__all__ = ["prune"]

_PRUNING = "Pruning"


DryOut = Annotated[
    Path | None,
    typer.Argument(
        metavar="OUT", help="Where the pruned model goes; may be left out with --dry-run.", show_default=False
    ),
]
TargetText = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="KIND=F",
        help=f"Fraction of the original that may remain: {', '.join(f'{kind}=F' for kind in TARGETS)}.",
        rich_help_panel=_PRUNING,
        show_default=False,
    ),
]
CostName = Annotated[
    str | None,
    typer.Option(
        "--cost",
        metavar="NAME",
        help=f"What a target drop=F makes as small as it can: {', '.join(COSTS)}.",
        rich_help_panel=_PRUNING,
        show_default=COSTS[0],
    ),
]
Effort = Annotated[
    str,
    typer.Option(
        "--effort",
        metavar="NAME",
        help=f"{', '.join(EFFORTS)}: what the options below are where they are not given.",
        rich_help_panel=_PRUNING,
    ),
]
EvaluationData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Labelled data to measure top-1 accuracy on, before and after; a target drop=F is measured on it.",
        rich_help_panel=_PRUNING,
        show_default=False,
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        "--select",
        metavar="NAME",
        help=f"How units are ranked: {', '.join(SELECTIONS)}.",
        rich_help_panel=_PRUNING,
    ),
]
Recovery = Annotated[
    str | None,
    typer.Option(
        "--recovery",
        metavar="NAME",
        help=f"How consumers make up for removed units: {', '.join(RECOVERIES)}.",
        rich_help_panel=_PRUNING,
    ),
]
Allocation = Annotated[
    str | None,
    typer.Option(
        "--allocation",
        metavar="NAME",
        help=f"How macs=F, params=F and latency=F are shared among groups: {', '.join(ALLOCATIONS)}.",
        rich_help_panel=_PRUNING,
    ),
]
OnePass = Annotated[
    bool | None,
    typer.Option(
        "--one-pass/--sequential",
        help="Fit layers to the inputs of the dense network, or one after the other to those of the pruned one.",
        rich_help_panel=_PRUNING,
    ),
]
Sweeps = Annotated[
    int | None,
    typer.Option(
        "--sweeps",
        metavar="N",
        help="How often exact recovery goes through all layers, as long as it helps.",
        rich_help_panel=_PRUNING,
    ),
]
RoundTo = Annotated[
    str,
    typer.Option(
        "--round-to",
        metavar="N",
        help=f"Keep multiples of N units; '{AUTO}': those that are fast on this machine, measured.",
        rich_help_panel=_PRUNING,
    ),
]
LatencyBatch = Annotated[
    int | None,
    typer.Option(
        "--latency-batch",
        metavar="N",
        help="Samples per run that latency=F is measured with, on the dynamic first axis.",
        rich_help_panel=RUNTIME,
        show_default="1",
    ),
]
Remeasure = Annotated[
    bool,
    typer.Option(
        "--remeasure",
        help="Forget what was measured on this machine before, for latency=F and --round-to auto.",
        rich_help_panel=RUNTIME,
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="GLOB",
        help="Leave groups whole that match by name, node or weight; repeatable.",
        rich_help_panel=_PRUNING,
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="GLOB",
        help="Prune only groups that match; repeatable.",
        rich_help_panel=_PRUNING,
        show_default=False,
    ),
]
Ridge = Annotated[
    float,
    typer.Option("--ridge", metavar="F", help="Relative ridge of the least squares.", rich_help_panel=_PRUNING),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        help="Write which units stay, for `apply`.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; write nothing.", rich_help_panel="Output")
]


def prune(
    context: typer.Context,
    model: Model,
    out: DryOut = None,
    *,
    target: TargetText,
    calib: Calib = None,
    cost: CostName = None,
    data: EvaluationData = None,
    effort: Effort = "balanced",
    select: Select = None,
    recovery: Recovery = None,
    one_pass: OnePass = None,
    sweeps: Sweeps = None,
    allocation: Allocation = None,
    round_to: RoundTo = "1",
    ignore: Ignore = None,
    only: Only = None,
    ridge: Ridge = 1e-6,
    prune_normalised: PruneNormalised = False,
    statistics: StatisticsFile = None,
    samples: Samples = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    input_shapes: InputShapes = None,
    providers: Providers = None,
    threads: Threads = None,
    latency_batch: LatencyBatch = None,
    remeasure: Remeasure = False,
    plan: PlanFile = None,
    report_file: ReportFile = None,
    latency: Timed = None,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Prune MODEL to a target and write OUT; what removed units contributed is recovered by least squares."""
    if out is None and not dry_run:
        raise typer.BadParameter("missing argument 'OUT': it may be left out with --dry-run only")
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        given = {
            "select": select,
            "recovery": recovery,
            "one_pass": one_pass,
            "sweeps": sweeps,
            "allocation": allocation,
        }
        options = Options.of_effort(
            effort,
            **{name: value for name, value in given.items() if value is not None},
            target=Target.parse(target),
            cost=cost,
            round_to=multiple(round_to),
            ignore=tuple(ignore or ()),
            only=tuple(only or ()),
            samples=samples,
            seed=seed,
            batch_size=batch_size,
            ridge=strength(ridge),
            prune_normalised=prune_normalised,
            providers=names(providers),
            threads=threads,
            input_shapes=shapes(input_shapes),
            latency_batch=latency_batch,
            remeasure=remeasure,
        )
        written = {"OUT": out, "--plan": plan, "--report": report_file, "--statistics": statistics if calib else None}
        _check(model, calib, written, dry_run=dry_run)
        loaded = saved_statistics(calib, statistics)
        labelled = labelled_data(data, model)
        with screen.progress() as progress:
            if calib and statistics is not None and not dry_run:
                # Saved before anything that may still fail: a target out of reach must not cost the calibration.
                loaded = pipeline.calibrate(model, calib, options, progress=progress)
                loaded.save(statistics)
                written["--statistics"] = None
            result = pipeline.prune(model, calib, options, statistics=loaded, evaluation=labelled, progress=progress)
            ending = Ending(written, calib, calib or str(statistics), labelled, latency, context.obj or (), dry=dry_run)
            ending.save(result)
            measured = ending.measure(result, progress)
        ending.tell(result, measured, screen)


def _check(model: Path, calib: str | None, written: dict[str, Path | None], *, dry_run: bool) -> None:
    if dry_run:
        others = [name for name, path in written.items() if path is not None and name != "OUT"]
        if others:
            raise OptionError(f"expected --dry-run to write nothing, found {others[0]} too; leave one of them out")
    else:
        check_outputs({"MODEL": model, "--calib": calib}, written)
