"""`onnx-subprune factorise`: the low-rank baseline that pruning is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from onnx_subprune import factorisation, report
from onnx_subprune.cli.outputs import check_outputs, saved_statistics
from onnx_subprune.cli.parameters import (
    BatchSize,
    Calib,
    InputShapes,
    Json,
    Model,
    Providers,
    Quiet,
    ReportFile,
    Samples,
    Seed,
    StatisticsFile,
    Threads,
    Verbose,
    names,
    shapes,
)
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.factorisation.low_rank_pipeline import TARGETS
from onnx_subprune.model import operator_counts
from onnx_subprune.options import Options, Target

__all__ = ["factorise"]

_FACTORISING = "Factorising"


def factorise(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the new model goes.", show_default=False)],
    *,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="KIND=F",
            help=f"Fraction of the original that may remain: {', '.join(f'{kind}=F' for kind in TARGETS)}; "
            "units is the fraction of every layer's own cost.",
            rich_help_panel=_FACTORISING,
            show_default=False,
        ),
    ],
    calib: Calib = None,
    round_to: Annotated[
        int,
        typer.Option("--round-to", metavar="N", help="Ranks are multiples of N.", rich_help_panel=_FACTORISING),
    ] = 1,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="GLOB",
            help="Leave layers whole that match by node or weight; repeatable.",
            rich_help_panel=_FACTORISING,
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="GLOB",
            help="Factorise only layers that match; repeatable.",
            rich_help_panel=_FACTORISING,
            show_default=False,
        ),
    ] = None,
    statistics: StatisticsFile = None,
    samples: Samples = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    input_shapes: InputShapes = None,
    providers: Providers = None,
    threads: Threads = None,
    report_file: ReportFile = None,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Write layers of MODEL as two of a smaller rank: a baseline to compare `prune` with.

    No unit is removed: every layer that is cut becomes two nodes, the principal components of its outputs.
    """
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        options = Options(
            target=Target.parse(target),
            round_to=round_to,
            ignore=tuple(ignore or ()),
            only=tuple(only or ()),
            samples=samples,
            seed=seed,
            batch_size=batch_size,
            providers=names(providers),
            threads=threads,
            input_shapes=shapes(input_shapes),
        )
        written = {"OUT": out, "--report": report_file, "--statistics": statistics if calib else None}
        check_outputs({"MODEL": model, "--calib": calib}, written, pages=False)
        loaded = saved_statistics(calib, statistics)
        with screen.progress() as progress:
            if calib and statistics is not None:
                loaded = factorisation.calibrate_layers(model, calib, options, progress=progress)
                loaded.save(statistics)
            result = factorisation.factorise(model, calib, options, statistics=loaded, progress=progress)
        screen.warn(result.warnings)
        document = _document(result, command=context.obj or (), source=calib or str(statistics))
        result.save(out)
        if report_file is not None:
            report.write_json(document, report_file)
        screen.show(document, report.cost_table(document), report.rank_table(document))


def _document(result: factorisation.Factorisation, *, command: Sequence[str], source: str) -> report.Document:
    """Return everything there is to say about a factorisation as plain data."""
    statistics = result.statistics
    return {
        "format": "onnx_subprune.factorise/1",
        "versions": report.versions(),
        "command": list(command),
        "target": str(result.target),
        "fingerprint": result.analysis.fingerprint,
        "input_shapes": {name: list(shape) for name, shape in result.analysis.input_shapes.items()},
        "dense": asdict(result.dense),
        "pruned": asdict(result.pruned),
        "operators": {"dense": operator_counts(result.analysis.model), "pruned": operator_counts(result.model)},
        "layers": [{**asdict(layer), "macs_kept": layer.macs_kept} for layer in result.layers],
        "left": dict(result.left),
        "calibration": {"source": source, "samples": statistics.samples, "taps": len(statistics.grams)},
        "warnings": list(result.warnings),
    }
