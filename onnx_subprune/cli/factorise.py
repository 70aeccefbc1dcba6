"""`onnx-subprune factorise`: the low-rank baseline that pruning is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_subprune import factorisation, report
from onnx_subprune.cli.outputs import check_outputs, saved_statistics
from onnx_subprune.cli.parameters import (
    BatchSize,
    Calib,
    CustomOps,
    InputShapes,
    Json,
    Model,
    OutputsAt,
    Providers,
    Quiet,
    ReportFile,
    Samples,
    Seed,
    StatisticsFile,
    StripInitializerInputs,
    Threads,
    Verbose,
    libraries,
    option,
    parsed,
)
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.factorisation import TARGETS
from onnx_subprune.model import together
from onnx_subprune.network import TOLERANCE
from onnx_subprune.options import Options

__all__ = ["factorise"]

_FACTORISING = "Factorising"

NewModel = Annotated[Path, typer.Argument(metavar="OUT", help="Where the new model goes.", show_default=False)]
FactorisationTarget = Annotated[
    str,
    option(
        "target",
        "KIND=F",
        _FACTORISING,
        help=f"Fraction of the original that may remain: {', '.join(f'{kind}=F' for kind in TARGETS)}; "
        "units is the fraction of every layer's own cost.",
        show_default=False,
    ),
]
RankMultiple = Annotated[
    int | None,
    option("round_to", "N", _FACTORISING, help="Ranks are multiples of N; of 1 by default.", show_default=False),
]
IgnoredLayers = Annotated[
    list[str] | None,
    option(
        "ignore",
        "GLOB",
        _FACTORISING,
        help="Leave layers whole that match by node or weight; repeatable.",
        show_default=False,
    ),
]
OnlyLayers = Annotated[
    list[str] | None,
    option("only", "GLOB", _FACTORISING, help="Factorise only layers that match; repeatable.", show_default=False),
]


def factorise(
    context: typer.Context,
    model: Model,
    out: NewModel,
    *,
    target: FactorisationTarget,
    calib: Calib = None,
    round_to: RankMultiple = None,
    ignore: IgnoredLayers = None,
    only: OnlyLayers = None,
    outputs_at: OutputsAt = None,
    statistics: StatisticsFile = None,
    samples: Samples = None,
    seed: Seed = Options.seed,
    batch_size: BatchSize = Options.batch_size,
    input_shapes: InputShapes = None,
    strip_initializer_inputs: StripInitializerInputs = False,
    providers: Providers = None,
    threads: Threads = None,
    custom_ops: CustomOps = None,
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
            **parsed(
                target=target,
                round_to=round_to,
                ignore=ignore,
                only=only,
                outputs_at=outputs_at,
                samples=samples,
                seed=seed,
                batch_size=batch_size,
                providers=providers,
                threads=threads,
                custom_ops=custom_ops,
                input_shapes=input_shapes,
                strip_initializer_inputs=strip_initializer_inputs,
            )
        )
        written = {"OUT": out, "--report": report_file, "--statistics": statistics if calib else None}
        read = {"MODEL": model, "--calib": calib, "--statistics": None if calib else statistics}
        read |= libraries(custom_ops)
        check_outputs(read, written, pages=False)
        loaded = saved_statistics(calib, statistics)
        with screen.progress() as progress:
            if calib and statistics is not None:
                loaded = factorisation.calibrate_layers(model, calib, options, progress=progress)
                loaded.save(statistics)
            result = factorisation.factorise(model, calib, options, statistics=loaded, progress=progress)
        screen.warn(result.warnings)
        document = result.document(command=context.obj or (), source=calib or str(statistics))
        tables = (report.cost_table(document), report.rank_table(document))
        with together():
            if report_file is not None:
                report.write_json(document, report_file)
            result.save(out)
            held = report.oracle_line(document, above=TOLERANCE)
            screen.show(document, *tables, *report.comparison_lines(document), *filter(None, [held]))
