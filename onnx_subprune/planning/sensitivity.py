"""What the network's outputs lose when one group loses units, measured: the weights of a budget.

Each group is pruned alone, to a few widths, recovered by channel, and run on a few samples. The losses at its
consumers get the scale of the errors that were seen at the outputs. A group that was measured without any of its units
may lose them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from math import isfinite

import onnx

from onnx_subprune import budget
from onnx_subprune.calibration import Statistics
from onnx_subprune.evaluate.output_error import Departure
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options
from onnx_subprune.planning.allocation import make_plan
from onnx_subprune.progress import Progress
from onnx_subprune.recovery import by_channel, recover
from onnx_subprune.threads import ahead, side_by_side

__all__ = ["measured_curves"]


def measured_curves(
    analysis: Analysis,
    curves: Sequence[budget.Curve],
    statistics: Statistics,
    departure: Departure,
    options: Options,
    *,
    progress: Progress | None = None,
) -> list[budget.Curve]:
    """Return the curves with losses that are errors at the outputs."""
    alone = by_channel(options)
    found: dict[str, dict[int, float]] = {}
    least = {c.group: int(analysis.structure.removal([c.group]).reason is not None) for c in curves}
    widths = [(curve, width) for curve in curves for width in _widths(curve, options.levels, least[curve.group])]

    def pruned(curve: budget.Curve, width: int) -> onnx.ModelProto:
        plan = make_plan(analysis, curves, {curve.group: width}, options)
        return recover(analysis, plan, statistics, None, alone).model

    # One network is cut while the last one runs.
    with side_by_side(options.threads), closing(ahead(pruned(*each) for each in widths)) as models:
        for index, ((curve, width), model) in enumerate(zip(widths, models, strict=True)):
            if progress is not None:
                progress(index, len(widths))
            error = departure(model, options.probes)
            if isfinite(error):
                found.setdefault(curve.group, {})[width] = error
    if progress is not None:
        progress(len(widths), len(widths))
    free = [replace(curve, minimum=0) if 0 in found.get(curve.group, ()) else curve for curve in curves]
    return budget.fit_sensitivity(free, {name: list(errors.items()) for name, errors in found.items()})


def _widths(curve: budget.Curve, levels: Sequence[float], least: int) -> list[int]:
    """Return the widths to measure: at least one unit less than all."""
    widths = {min(curve.size - 1, round(level * curve.size)) for level in levels}
    return sorted({max(least, width) for width in widths} - {curve.size})
