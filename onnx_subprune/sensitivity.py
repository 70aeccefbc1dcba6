"""What the network's outputs lose when one group loses units, measured: the weights of a budget.

Each group is pruned alone, to one or two widths, recovered by channel, and run on a few samples. The losses at its
consumers get the scale of the errors that were seen at the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx_subprune import budget
from onnx_subprune.analysis import Analysis
from onnx_subprune.calibration import Dataset, Progress, Statistics
from onnx_subprune.departure import Departure
from onnx_subprune.options import Options
from onnx_subprune.recovery import by_channel, recovered
from onnx_subprune.widths import make_plan

__all__ = ["measured_curves"]


def measured_curves(
    analysis: Analysis,
    curves: Sequence[budget.Curve],
    statistics: Statistics,
    dataset: Dataset,
    options: Options,
    *,
    progress: Progress | None = None,
) -> list[budget.Curve]:
    """Return the curves with losses that are errors at the outputs."""
    departure = Departure(analysis.normalised, dataset, options, options.probes)
    alone = by_channel(options)
    found: dict[str, list[tuple[int, float]]] = {}
    widths = [(curve, width) for curve in curves for width in _widths(curve, options.levels)]
    for index, (curve, width) in enumerate(widths):
        if progress is not None:
            progress(index, len(widths))
        plan = make_plan(analysis, curves, {curve.group: width}, options)
        model = recovered(analysis, plan, statistics, None, alone).model
        found.setdefault(curve.group, []).append((width, departure(model)))
    if progress is not None:
        progress(len(widths), len(widths))
    return budget.fit_sensitivity(curves, found)


def _widths(curve: budget.Curve, levels: Sequence[float]) -> list[int]:
    """Return the widths to measure: at least one unit less than all."""
    return sorted({max(1, min(curve.size - 1, round(level * curve.size))) for level in levels} - {curve.size})
