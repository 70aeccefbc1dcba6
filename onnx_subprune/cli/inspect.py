"""`onnx-subprune inspect`: what can be pruned, what cannot and why."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType

from onnx_subprune import pipeline, report
from onnx_subprune.cli.outputs import check_outputs
from onnx_subprune.cli.parameters import (
    CustomOps,
    InputShapes,
    Json,
    Model,
    OutputsAt,
    PruneNormalised,
    Quiet,
    ReportFile,
    StripInitializerInputs,
    Verbose,
    libraries,
    shapes,
)
from onnx_subprune.cli.sizes import assumed
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.model import overridable_warnings, register_custom_ops, together

__all__ = ["inspect"]

SizingData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Count with the sizes of the first sample of this (.npz, .npy, a folder, or file.py:function).",
        show_default=False,
    ),
]


def inspect(
    model: Model,
    *,
    prune_normalised: PruneNormalised = False,
    strip_initializer_inputs: StripInitializerInputs = False,
    outputs_at: OutputsAt = None,
    input_shapes: InputShapes = None,
    custom_ops: CustomOps = None,
    data: SizingData = None,
    report_file: ReportFile = None,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Show what of MODEL can be pruned, what cannot, and why."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        given = dict(shapes(input_shapes or ()))
        check_outputs({"MODEL": model, "--data": data, **libraries(custom_ops)}, {"--report": report_file})
        register_custom_ops(custom_ops or ())
        analysis = pipeline.analyse(
            model,
            given,
            prune_normalised=prune_normalised,
            strip_initializer_inputs=strip_initializer_inputs,
            data=data,
            outputs_at=tuple(outputs_at or ()),
        )
        screen.warn(
            [
                *overridable_warnings(analysis.model),
                *assumed(analysis.inputs, analysis.input_shapes if data is not None else given, analysis.input_shapes),
            ]
        )
        document = analysis.document()
        tables: list[RenderableType] = []
        if document["groups"]:
            tables.append(report.group_table(document))
        if document["frozen"]:
            tables.append(report.frozen_table(document))
        lines = (*report.notice_lines(document), *report.comparison_lines(document), report.totals(document))
        with together():
            if report_file is not None:
                report.write_report(document, report_file)
            screen.show(document, *tables, *lines)
