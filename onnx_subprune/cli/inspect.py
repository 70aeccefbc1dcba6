"""`onnx-subprune inspect`: what can be pruned, what cannot and why."""

from __future__ import annotations

import onnx
from rich.console import RenderableType

from onnx_subprune import pipeline, report
from onnx_subprune.cli.outputs import check_outputs
from onnx_subprune.cli.parameters import (
    InputShapes,
    Json,
    Model,
    PruneNormalised,
    Quiet,
    ReportFile,
    StripInitializerInputs,
    Verbose,
    shapes,
)
from onnx_subprune.cli.sizes import assumed
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.errors import ModelError
from onnx_subprune.model import input_specs, load_model, overridable_warnings, without_overridable
from onnx_subprune.network import check_float

__all__ = ["inspect"]


def inspect(
    model: Model,
    *,
    prune_normalised: PruneNormalised = False,
    strip_initializer_inputs: StripInitializerInputs = False,
    input_shapes: InputShapes = None,
    report_file: ReportFile = None,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Show what of MODEL can be pruned, what cannot, and why."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        given = dict(shapes(input_shapes or ()))
        check_outputs({"MODEL": model}, {"--report": report_file})
        proto = load_model(model, resident=False)
        if strip_initializer_inputs:
            proto = without_overridable(proto)
        screen.warn([*_refused(proto), *overridable_warnings(proto)])
        analysis = pipeline.analyse(proto, given, prune_normalised=prune_normalised)
        screen.warn(assumed(input_specs(proto), given, analysis.input_shapes))
        document = analysis.document()
        if report_file is not None:
            report.write_report(document, report_file)
        tables: list[RenderableType] = []
        if document["groups"]:
            tables.append(report.group_table(document))
        if document["frozen"]:
            tables.append(report.frozen_table(document))
        screen.show(
            document,
            *tables,
            *report.notice_lines(document),
            *report.comparison_lines(document),
            report.totals(document),
        )


def _refused(proto: onnx.ModelProto) -> list[str]:
    """Return why `prune` refuses a model of which groups are shown all the same."""
    try:
        check_float(proto)
    except ModelError as error:
        return [f"prune refuses this model: {error}"]
    return []
